"""What one step hands to the next: small frozen results that hold paths, digests and numbers.

Never a module, a tensor or a pickle: bulk data lies in the files that a record names.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ColumnKind = Literal["numeric", "boolean", "categorical"]
MISSING = -1
"""Stands among the kept values of a categorical column for no value at all."""
UNKNOWN = -2
"""Stands in a raw row for a value that is none of those of its column."""
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table of one's own: what it is, and how it becomes numbers."""

    name: str
    kind: ColumnKind
    missing: int
    """Rows without a value, of all."""
    values: tuple[str, ...] = ()
    """Of a categorical column all its values, sorted: a row holds the index of its own."""
    strange: int = 0
    """Values that are no numbers, where most are, or where that is what they must be."""
    example: str = ""
    """The first of them."""
    fill: float = 0.0
    """What stands for a missing number: the training rows' median, or their most frequent of a boolean column."""
    shift: float = 0.0
    factor: float = 1.0
    """The network is given `(value - shift) * factor`."""
    kept: tuple[int, ...] = ()
    """Values that the network has an input for each, by index; `MISSING` is that there is none."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """The prepared splits on disk.

    `folder` holds, for each split, `<split>.x.npy` (raw rows), `<split>.y.npy` (int64 class index) and
    `<split>.rows.npy` ((N, 32) uint8, the SHA-256 of each raw row). Of a table of one's own also `columns.json`
    (a `Column` each) and `encoding.onnx` (from its columns to what the network takes); its raw rows are
    `(N, columns) float32`: a number, the index of a categorical column's value, or NaN where there is none.
    """

    name: str
    folder: Path
    digest: str
    columns: tuple[str, ...]
    """Column names in order; empty for images."""
    shape: tuple[int, ...]
    """Shape of one row as the network takes it: `(F,)` for columns, `(H, W)` for grey images, `(H, W, 3)` in colour."""
    dtype: str
    largest: float | None
    """Largest value a pixel can take; None for columns."""
    classes: tuple[str, ...]
    rows: dict[SplitName, int]
    kinds: tuple[ColumnKind, ...] = ()
    """Kind of each column of a user's table; empty for other datasets, whose columns are all numbers without gaps."""
    resized: bool = False
    """Whether its images are a user's files that were turned upright and resized; see `images.image_file.decode`."""

    @property
    def is_table(self) -> bool:
        """Whether it was read from a user's table: rows pass through a fitted encoding and may have gaps and text."""
        return bool(self.kinds)


@dataclass(frozen=True, slots=True)
class Fit:
    """The result of training."""

    weights: Path
    """safetensors with scaling and network."""
    weights_sha256: str
    history: Path
    """Parquet with columns `metric`, `step`, `value`: every epoch and every update."""
    metrics: dict[str, float]
    """Those of the last epoch."""
    epochs: int
    """So many were run."""
    best_epoch: int
    """The epoch whose weights were kept: the last one, unless early stopping found a better."""
    stopped: str
    """Why: all epochs done, no lower loss, or that lbfgs has converged or finds no step that lowers the loss."""
    seconds: float
    device: str
    threads: int
    """CPU threads that torch used: what a sum is rounded to depends on them."""
    networks: int
    """So many were trained as one, this among them."""
    initial_seed: int
    """Seed from which the initial weights were drawn."""
    fingerprint: dict[str, str]
    """What the bits of the result depend on beside experiment and data; see `training.fingerprint`."""
    resumed_from: tuple[int, int] | None
    """Epochs that were complete, and updates of the next, where an interrupted training went on."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with an experiment, or may be."""

    code: str
    sentence: str
    remedy: str
    """Options to add to the command where it begins with `--`, else words."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How the trained model does on the test split."""

    metrics: dict[str, float]
    files: tuple[Path, ...]
    """Pictures (PNG) and the report (JSON: confusion matrix and per-class table)."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """The shipped `.onnx` file."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Proof:
    """The evidence that artifact and torch model agree, on a CPU. A disagreement raises instead."""

    max_abs_diff: float
    """Largest absolute difference of a probability between a runtime and torch's float32, over all that was asked."""
    rows: int
    """Rows of the test split, each compared with its label."""
    rows_made: int
    """Edges of the input's domain, and noise."""
    rows_in_every_way: int
    """Those of both that were asked in every way."""
    ways: tuple[str, ...]
    """Runtimes, optimisation levels and batch sizes."""
    own_error: float
    """Largest error of a probability that torch's own float32 makes against float64."""
    largest_error: float
    """Largest error that a runtime makes: the smallest tolerance that would have passed."""
    tolerance: float
    """What was allowed on test rows."""
    ties: int
    """Labels that differ because two classes are equally probable within the error measured."""
    report: Path
    """JSON: all numbers, and every tie with both score rows."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of the registered model."""

    name: str
    version: int
    is_champion: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of an experiment, however many processes it takes."""

    id: str | None
    """Tells its MLflow run from all others; None if that has failed and the next process opens its own."""
    name: str
    """Of the experiment."""
    marks: dict[str, str]
    """What must stay the same for another process to go on with it."""
    folder: Path
    """Where its checkpoints and its journal lie."""
    is_continued: bool = False
    """Whether another process began it."""


@dataclass(frozen=True, slots=True)
class Run:
    """The MLflow run of one experiment execution."""

    id: str
    name: str
    url: str
    """Where the MLflow UI shows it."""
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class RecentRun:
    """A row of `hallmark runs`."""

    id: str
    experiment: str
    """Name of the experiment."""
    name: str
    status: str
    started: float
    """Seconds since the epoch."""
    accuracy: float | None
    loss: float | None
    kind: str
    model_version: str | None


@dataclass(frozen=True, slots=True)
class Member:
    """What became of one experiment of a sweep."""

    label: str
    """In what it differs from the others: `training.lr=0.1 training.seed=3`."""
    values: dict[str, bool | int | float | str]
    """The same by option."""
    run: Run
    way: str
    """How it was trained: `stacked`, `stacked in the pool` or `process pool`."""
    fit: Fit | None
    failed: str
    """Why there is no fit, if so."""
    loss: float | None
    """Validation loss of the weights that were kept; None if there are none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that one execution of the train flow produced."""

    dataset: Dataset
    run: Run
    fit: Fit
    evaluation: Evaluation
    findings: tuple[Finding, ...]
    artifact: Artifact
    proof: Proof
    model_version: ModelVersion


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a run that shipped a file says of itself."""

    run: str
    dataset: str
    weights_sha256: str
    onnx_sha256: str
    initial_seed: int
    marks: dict[str, str]
    """What the bits depend on beside experiment and data: device, threads, processor, versions, code."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of a recorded experiment when it was run again."""

    weights: bool
    """Whether they are identical."""
    file: bool
    """Whether the shipped file is."""
    differences: tuple[str, ...]
    """What the bits depend on, and is another now."""

    @property
    def is_identical(self) -> bool:
        """Whether all came out the same."""
        return self.weights and self.file


@dataclass(frozen=True, slots=True)
class SweepOutcome:
    """All that a sweep produced."""

    run: Run
    """The parent of the members' runs."""
    axes: tuple[str, ...]
    members: tuple[Member, ...]
    chosen: int
    """Index of the member with the lowest validation loss."""
    outcome: Outcome
    """What became of it: it alone has seen the test split, and was exported."""

    @property
    def by_loss(self) -> list[int]:
        """The members' indices, those with the lowest validation loss first and those that diverged last."""
        losses = [math.inf if member.loss is None else member.loss for member in self.members]
        return sorted(range(len(losses)), key=losses.__getitem__)


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model said of many rows, in all."""

    model: Path
    sha256: str
    """Of the model's file."""
    source: str
    """Where the rows came from."""
    output: Path | None
    """Where the predictions are; None if they went to stdout."""
    rows: int
    class_shares: dict[str, float]
    """Of the rows, by class."""
    training_class_shares: dict[str, float]
    """Of the rows that the model was trained on."""
    outside_training_range: int
    """Rows of which a value lies outside the range that the training rows had, or is a text that they had not."""
    left_out: tuple[str, ...] = ()
    """Columns of the source that the model does not take."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided of a registered model's champion, recorded before it is done."""

    number: int
    """Counts a model's decisions, from 1."""
    name: str
    """Of the registered model."""
    verdict: Literal["FIRST", "PROMOTE", "HOLD", "REJECT", "MANUAL", "ROLLBACK"]
    """FIRST: there was nobody to compare with; MANUAL and ROLLBACK: a person's."""
    reason: str
    version: int
    """Of which version."""
    run_id: str
    """Its MLflow run; empty if it has none."""
    before: int | None
    """Who was champion then."""
    champion: int
    """Who is, afterwards."""
    previous: int | None
    """Who bears the alias `previous` afterwards."""
    at: str
    """When, ISO 8601 in UTC."""
    by: str
    """User."""
    schedule: str | None
    """Which ran it, if one did."""
    digests: dict[str, str]
    """Of the version: experiment, dataset and code; SHA-256 of its file and of the former champion's."""
    rule: dict[str, Any] | None
    judgement: dict[str, Any] | None
    """Counts, p, interval and gates; None where a person decided, or nobody was there to compare with."""
    refused_rows: int = 0
    """Test rows that were left out, since one of the two had been trained on them."""
    done: bool = False
    """Whether the aliases are as decided, and were read back."""

    @property
    def moves(self) -> bool:
        """Whether the champion becomes another."""
        return self.verdict in ("PROMOTE", "MANUAL", "ROLLBACK")


@dataclass(frozen=True, slots=True)
class Judged:
    """How a challenger compares with the champion; nothing has been decided by it."""

    verdict: Literal["PROMOTE", "HOLD", "REJECT"]
    reason: str
    champion: int
    challenger: int
    rule: dict[str, Any]
    judgement: dict[str, Any]
    refused_rows: int
    """Test rows that were left out, since one of the two had been trained on them."""


@dataclass(frozen=True, slots=True)
class Retrained:
    """What came of one retraining."""

    name: str
    verdict: Literal["UNCHANGED", "FIRST", "PROMOTE", "HOLD", "REJECT"]
    reason: str
    champion: int
    """Version that is champion now."""
    decision: Decision | None
    """None if nothing had changed."""
