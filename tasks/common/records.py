"""Records that steps pass to each other: small, frozen and JSON-able, holding paths, digests and numbers.

They never hold a module, a tensor or a pickle: bulk data is in the files whose paths they hold.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ColumnKind = Literal["numeric", "boolean", "categorical"]
MISSING = -1
"""Index in `Column.kept` that stands for a missing value."""
UNKNOWN = -2
"""Index in a raw row that stands for a value not in `Column.values`."""
CARD = "card.html"
"""File name of a model card, also among the artifacts of its run."""
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
OUTPUT_NAMES = ("label", "probabilities")
"""Names of the outputs of an exported graph. No column of a user's table can have one of them."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a user's table: its kind, and how it is encoded as numbers."""

    name: str
    kind: ColumnKind
    missing: int
    """Number of rows without a value, over all splits."""
    values: tuple[str, ...] = ()
    """All values of a categorical column, sorted; a raw row holds the index of its value."""
    strange: int = 0
    """Number of values that are not numbers although most are, or although the column was declared numeric."""
    example: str = ""
    """First of these values."""
    fill: float = 0.0
    """Replacement for a missing value: median of the training rows, for a boolean column their most frequent value."""
    shift: float = 0.0
    factor: float = 1.0
    """With `shift`, the scaling of the network's input: `(value - shift) * factor`."""
    kept: tuple[int, ...] = ()
    """Indices of the values that have a network input each; `MISSING` stands for the input of a missing value."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """The prepared splits on disk.

    `folder` holds, for each split, `<split>.x.npy` (raw rows), `<split>.y.npy` (int64 class index) and
    `<split>.rows.npy` ((N, 32) uint8, the SHA-256 of each raw row). A user's table also has `columns.json` (a `Column`
    each) and `encoding.onnx` (from its columns to the network's input); its raw rows are `(N, columns) float32`: a
    number, the index of a categorical value, or NaN for a missing value.
    """

    name: str
    folder: Path
    digest: str
    columns: tuple[str, ...]
    """Column names in order; empty for images."""
    shape: tuple[int, ...]
    """Shape of one row of the network's input: `(F,)` for columns, `(H, W)` or `(H, W, 3)` for images."""
    dtype: str
    """NumPy's name of the type of the raw rows: `uint8` for images, `float32` for columns."""
    largest: float | None
    """Largest possible pixel value; None for columns."""
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


ALL_EPOCHS = "all epochs done"
"""`Fit.stopped` of a training that nothing ended early."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The result of training."""

    weights: Path
    """safetensors file of scaling and network."""
    weights_sha256: str
    history: Path
    """Parquet file with columns `metric`, `step`, `value`: every epoch and every update."""
    metrics: dict[str, float]
    """Metrics of the last epoch."""
    epochs: int
    """Number of epochs that ran."""
    best_epoch: int
    """Epoch whose weights were kept: the last one, unless early stopping found a better one."""
    stopped: str
    """Reason for stopping: `ALL_EPOCHS`, no lower loss, or lbfgs converged or found no step that lowers the loss."""
    seconds: float
    device: str
    threads: int
    """Number of CPU threads that torch used; the rounding of sums depends on it."""
    networks: int
    """Number of networks trained together as one stack, including this one."""
    initial_seed: int
    """Random seed of the initial weights."""
    fingerprint: dict[str, str]
    """Versions and hardware on which the exact bits depend, besides experiment and data; see `training.fingerprint`."""
    resumed_from: tuple[int, int] | None
    """Complete epochs, and updates of the next epoch, at which an interrupted training resumed; None if it did not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A possible problem with an experiment."""

    code: str
    sentence: str
    remedy: str
    """Options to add to the command if it begins with `--`, else a sentence."""

    @property
    def markdown(self) -> str:
        """The finding as an item of a Markdown list."""
        return f"- **{self.code}**: {self.sentence}. Remedy: `{self.remedy}`"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Performance of the trained model on the test split."""

    metrics: dict[str, float]
    files: tuple[Path, ...]
    """Plots (PNG) and the report (JSON: confusion matrix and per-class table)."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """The shipped `.onnx` file."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Proof:
    """Evidence that artifact and torch model agree on a CPU. A disagreement raises `ParityError` instead."""

    max_abs_diff: float
    """Largest absolute difference of a probability between a runtime and torch's float32, over all rows."""
    rows: int
    """Number of test rows, whose labels are compared as well."""
    rows_made: int
    """Number of synthetic rows: extremes of the input domain, and noise."""
    rows_in_every_way: int
    """Number of rows of both kinds that ran in all `ways`."""
    ways: tuple[str, ...]
    """Combinations of runtime, optimisation level and batch size."""
    own_error: float
    """Largest error of a probability in torch's float32, compared with float64."""
    largest_error: float
    """Largest error of a runtime: the smallest tolerance that would have passed."""
    tolerance: float
    """Largest accepted error on test rows."""
    ties: int
    """Number of labels that differ because two classes are equally probable within the measured error."""
    report: Path
    """JSON file with all numbers, and every tie with both rows of scores."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of the registered model."""

    name: str
    version: int
    is_champion: bool

    @property
    def title(self) -> str:
        """Name and version in words, and whether it is the champion."""
        return f"{self.name} version {self.version}{', champion' * self.is_champion}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of an experiment, in one process or, after interruptions, several."""

    id: str | None
    """Unique id of its MLflow run; None if the run has failed, so that the next process opens a new one."""
    name: str
    """Name of the experiment."""
    conditions: dict[str, str]
    """Digests and versions that must be unchanged for another process to resume it."""
    folder: Path
    """Folder of its checkpoints and journal."""
    is_continued: bool = False
    """Whether an earlier process started it."""


@dataclass(frozen=True, slots=True)
class Run:
    """The MLflow run of one experiment execution."""

    id: str
    name: str
    url: str
    """Address of the run in the MLflow UI."""
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
    """Start time in seconds since the Unix epoch."""
    accuracy: float | None
    loss: float | None
    kind: str
    """Kind of the preset: `published`, `corrected`, `reference` or `own`; empty if the run did not record it."""
    model_version: str | None
    """Registered version; None if the run registered none."""


@dataclass(frozen=True, slots=True)
class Member:
    """Result of one experiment of a sweep."""

    label: str
    """Values that distinguish it from the other members: `training.lr=0.1 training.seed=3`."""
    values: dict[str, bool | int | float | str]
    """The same values by option."""
    run: Run
    way: str
    """Way of training: `stacked`, `stacked in the pool` or `process pool`."""
    fit: Fit | None
    failed: str
    """Reason why there is no fit; empty if there is one."""
    loss: float | None
    """Validation loss of the kept weights; None if there are none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results of one execution of the train flow."""

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
    """What a finished run with an exported file recorded about itself."""

    run: str
    """Id of the run."""
    dataset: str
    """Digest of the dataset."""
    weights_sha256: str
    """SHA-256 of the weights file."""
    onnx_sha256: str
    """SHA-256 of the exported file."""
    initial_seed: int
    """Random seed of the initial weights."""
    conditions: dict[str, str]
    """Conditions on which the exact bits depend, besides experiment and data: device, threads, versions, code."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Result of running a recorded experiment again."""

    weights: bool
    """Whether the weights are identical."""
    file: bool
    """Whether the exported file is identical."""
    differences: tuple[str, ...]
    """Conditions on which the exact bits depend and that have changed."""

    @property
    def is_identical(self) -> bool:
        """Whether weights and file are identical."""
        return self.weights and self.file


@dataclass(frozen=True, slots=True)
class SweepOutcome:
    """Results of a sweep."""

    run: Run
    """Parent of the members' runs."""
    axes: tuple[str, ...]
    members: tuple[Member, ...]
    chosen: int
    """Index of the member with the lowest validation loss."""
    outcome: Outcome
    """Results of the chosen member, the only one that is tested and exported."""

    @property
    def by_loss(self) -> list[int]:
        """Indices of the members by validation loss, lowest first; members that diverged come last."""
        losses = [math.inf if member.loss is None else member.loss for member in self.members]
        return sorted(range(len(losses)), key=losses.__getitem__)


@dataclass(frozen=True, slots=True)
class Scored:
    """Summary of a model's predictions for many rows."""

    model: Path
    sha256: str
    """SHA-256 of the model's file."""
    source: str
    """Source of the rows, as the user gave it."""
    output: Path | None
    """File of the predictions; None if they went to stdout."""
    rows: int
    class_shares: dict[str, float]
    """Fraction of the rows predicted as each class."""
    training_class_shares: dict[str, float]
    """Fraction of the training rows in each class."""
    outside_training_range: int
    """Number of rows with a number outside the range of the training rows, or with a text that they do not contain."""
    left_out: tuple[str, ...] = ()
    """Columns of the source that the model does not use."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision on a registered model's champion, recorded before the aliases are moved."""

    number: int
    """Number of the decision, counted per model from 1."""
    name: str
    """Name of the registered model."""
    verdict: Literal["FIRST", "PROMOTE", "HOLD", "REJECT", "MANUAL", "ROLLBACK"]
    """FIRST: there was no champion to compare with; MANUAL and ROLLBACK: decided by a person."""
    reason: str
    version: int
    """Version that the decision is about."""
    run_id: str
    """MLflow run of the version; empty if it has none."""
    before: int | None
    """Version that was champion before the decision; None if there was none."""
    champion: int
    """Version that is champion after it."""
    previous: int | None
    """Version that has the alias `previous` after it; None if there is none."""
    at: str
    """Time of the decision, ISO 8601 in UTC."""
    by: str
    """Name of the user who ran the command."""
    schedule: str | None
    """Name of the schedule that started it; None if a person did."""
    digests: dict[str, str]
    """Experiment, dataset and code digests of the version; SHA-256 of its file and of the former champion's."""
    rule: dict[str, Any] | None
    judgement: dict[str, Any] | None
    """Counts, p-value, interval and gates; None if a person decided or there was no champion."""
    refused_rows: int = 0
    """Number of test rows left out because one of the two models was trained on them."""
    done: bool = False
    """Whether the aliases have been moved and read back."""

    @property
    def moves(self) -> bool:
        """Whether the champion changes."""
        return self.verdict in ("PROMOTE", "MANUAL", "ROLLBACK")


@dataclass(frozen=True, slots=True)
class Judged:
    """Comparison of a challenger with the champion, which does not move any alias."""

    verdict: Literal["PROMOTE", "HOLD", "REJECT"]
    reason: str
    champion: int
    challenger: int
    rule: dict[str, Any]
    judgement: dict[str, Any]
    refused_rows: int
    """Number of test rows left out because one of the two models was trained on them."""


@dataclass(frozen=True, slots=True)
class Retrained:
    """Result of one retraining."""

    name: str
    verdict: Literal["UNCHANGED", "FIRST", "PROMOTE", "HOLD", "REJECT"]
    reason: str
    champion: int
    """Version that is champion after the retraining."""
    decision: Decision | None
    """Decision on the new version; None if neither code nor data had changed."""
