"""Records that steps pass to each other: small, frozen and JSON-able, holding paths, digests and numbers.

They never hold a module, a tensor or a pickle: bulk data is in the files whose paths they hold.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ColumnKind = Literal["numeric", "boolean", "categorical", "date"]
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
    missing_text: tuple[str, ...] | None = None
    """Texts that mark a missing value; None for the usual ones."""
    decimal: str = ""
    """Character before the fraction of numbers that are written with groups of digits or a unit; empty for others."""
    unit: str = ""
    """Sign or unit beside these numbers, which is dropped."""
    looks: Literal["", "numbers", "decimal comma", "dates", "codes"] = ""
    """What most values of a categorical column look like, if that is not text; `example` is one of them."""
    joined: bool = False
    """Whether values that differ by their spelling only are one."""
    takes_na: bool = False
    """Whether some of the missing values are written NA, among codes of two letters of which NA may be one."""
    distinct: int = 0
    """Number of different values of a numeric column, if the model cannot tell some of them apart ..."""
    merged: int = 0
    """... and the number that it can."""
    wide: bool = False
    """Whether a column is read as float64: a date, or numbers too many of which would be equal in float32."""
    offset: float = 0.0
    """Number that is subtracted from a wide column, in float64, before it becomes float32: the lower median of the
    training rows, for a date the first of them. `fill` and `shift` apply after that."""
    date_form: str = ""
    """Form in which a date is written, a key of `tables.date_columns.date_formats.FORMATS`; empty for ISO 8601."""
    parts: tuple["Column", ...] = ()
    """Numeric columns that `tables.date_columns.date_parts` computes from a date, which is no network input itself."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """The prepared splits on disk.

    `folder` holds, for each split, `<split>.x.npy` (raw rows), `<split>.y.npy` (int64 class index) and
    `<split>.rows.npy` ((N, 32) uint8, the SHA-256 of each raw row). A user's table also has `columns.json` (a `Column`
    each) and `encoding.onnx` (from its columns to the network's input); its raw rows are `(N, columns) float32`
    (float64 if one of the columns is wide): a number, the index of a categorical value, or NaN for a missing value.
    """

    name: str
    folder: Path
    digest: str
    columns: tuple[str, ...]
    """Column names in order; empty for images."""
    shape: tuple[int, ...]
    """Shape of one row of the network's input: `(F,)` for columns, `(H, W)` or `(H, W, 3)` for images."""
    dtype: str
    """NumPy's name of the type of the raw rows: `uint8` for images, `float32` or `float64` for columns."""
    largest: float | None
    """Largest possible pixel value; None for columns."""
    classes: tuple[str, ...]
    rows: dict[SplitName, int]
    kinds: tuple[ColumnKind, ...] = ()
    """Kind of each column of a user's table; empty for other datasets, whose columns are all numbers without gaps."""
    resized: bool = False
    """Whether its images are a user's files that were turned upright and resized; see `images.image_file.decode`."""
    bits: int = 0
    """Bits in use of image files with more than eight bits; 0 if there are none."""
    on_black: bool = False
    """Whether transparent pixels of image files were blended with black instead of white."""
    wide: tuple[str, ...] = ()
    """Names of the columns that are float64. All others are float32, also where `dtype` is float64."""

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
class Champion:
    """The version of a registered model that answers where the model is asked for by its name."""

    version: int
    accuracy: float | None
    """Accuracy on the test split of its own run; None if no run has recorded it."""
    disqualified: str
    """Findings that disqualify it, in words; empty if there are none."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of the registered model."""

    name: str
    version: int
    champion: Champion
    is_new: bool = True
    """Whether the run registered it; False if the same file was registered before."""

    @property
    def is_champion(self) -> bool:
        """Whether this version is the champion."""
        return self.version == self.champion.version

    @property
    def title(self) -> str:
        """Name and version in words, and whether it is the champion."""
        return f"{self.name} version {self.version}{', champion' * self.is_champion}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of an experiment, in one process or, after interruptions, several."""

    id: str | None
    """Unique id of its MLflow run; None if that has failed, so that a new one is opened."""
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
