"""The data part of an experiment: which rows to use, how to split them, and how to scale them."""

from shlex import quote
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from hallmark.tasks.common.records import ColumnKind
from hallmark.tasks.ml.config.fields import FLOAT32, Labels, Names, Numbers, Part
from hallmark.tasks.ml.config.table_names import folder_name, is_address, require_address, stem, suffixes

BY_COLUMN = ("group", "time", "column")
"""Split methods that use a column of a table; the option of the same name names the column."""


class Split(Part):
    """Split into training, validation and test rows."""

    method: Literal["stratified", "shuffled", "content", "given", "resubstitution", "group", "time", "column"] = Field(
        default="stratified",
        description="stratified: keep the class proportions in every split; shuffled: ignore the classes; content: "
        "place each row by its own digest, so that rows keep their split as data grows and duplicates stay together; "
        "given: use the source's own test split; resubstitution: test on the training rows. For tables only: group: "
        "keep rows with the same value together; time: test on the latest rows; column: read each row's split",
    )
    group: str | None = Field(
        default=None,
        description="table column whose rows with the same value stay in one split, for example a patient id",
    )
    time: str | None = Field(
        default=None,
        description="table column of dates or numbers: the earliest rows are for training, the latest for testing",
    )
    column: str | None = Field(
        default=None, description="table column that holds each row's split: train, validation or test"
    )
    validation: float = Field(
        default=0.2, ge=0, lt=1, description="fraction of all rows used for validation; 0 for no validation split"
    )
    test: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="fraction of all rows used for the final test; must be 0 if the method provides the test rows",
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="random seed of the split")

    @model_validator(mode="before")
    @classmethod
    def _infer_method_from_column(cls, given: Any) -> Any:  # noqa: ANN401 - unvalidated input
        """Choose the method from the named column if no method is given."""
        if isinstance(given, dict) and "method" not in given:
            for name in BY_COLUMN:
                if given.get(name):
                    shares = {"validation": 0, "test": 0} if name == "column" else {}
                    return shares | given | {"method": name}
        return given

    @model_validator(mode="after")
    def _names_exactly_one_column(self) -> "Split":
        named = [name for name in BY_COLUMN if getattr(self, name) is not None]
        if self.method in BY_COLUMN and self.method not in named:
            raise ValueError(f"method '{self.method}' needs a column: set split.{self.method} to its name")
        if surplus := [name for name in named if name != self.method]:
            given = f"{surplus[0]} '{getattr(self, surplus[0])}'"
            raise ValueError(f"{given} and method '{self.method}' contradict each other: use method '{surplus[0]}'")
        return self

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave no rows to train on: "
                "their sum must be below 1"
            )
        return self

    @model_validator(mode="after")
    def _shares_suit_the_method(self) -> "Split":
        provides_test = self.method in ("given", "resubstitution", "column")
        if provides_test and self.test:
            raise ValueError(f"method '{self.method}' provides the test rows, so test {self.test} must be 0")
        if not provides_test and not self.test:
            raise ValueError(f"method '{self.method}' and test 0 leave no rows to test on: set test above 0")
        if self.method == "resubstitution" and self.validation:
            raise ValueError(f"method 'resubstitution' trains on every row, so validation {self.validation} must be 0")
        if self.method == "column" and self.validation:
            raise ValueError(f"method 'column' provides the validation rows, so validation {self.validation} must be 0")
        return self


class Source(Part):
    """Fields that all datasets share: the split, and the scaling that becomes part of the ONNX graph."""

    split: Split = Field(default=Split(), description="split into training, validation and test rows")
    scaling: Literal["none", "standard", "range"] = Field(
        default="standard",
        description="standard: (x - mean) / standard deviation per column; range: x / largest pixel value; none: raw",
    )
    scaling_fitted_on: Literal["train", "all"] = Field(
        default="train",
        description="rows used to compute mean and standard deviation; all leaks the test split into training",
    )

    brings_test: ClassVar[bool] = False
    """Whether the source provides its own test split."""

    @property
    def name(self) -> str:
        """Name of the dataset and of the MLflow experiment."""
        return str(getattr(self, "kind"))  # noqa: B009 - each source has its own literal

    @model_validator(mode="before")
    @classmethod
    def _complete_split(cls, given: Any) -> Any:  # noqa: ANN401 - unvalidated input
        """Complete a partial split with this source's defaults instead of those of `Split`."""
        part = given.get("split") if isinstance(given, dict) else None
        if isinstance(part, dict) and not any(part.get(name) for name in ("method", *BY_COLUMN)):
            own = cls.model_fields["split"].default.model_dump()
            return given | {"split": own | part}
        return given

    @model_validator(mode="after")
    def _given_split_exists(self) -> "Source":
        if self.split.method == "given" and not self.brings_test:
            raise ValueError(
                f"split.method 'given' and kind '{getattr(self, 'kind', '')}' contradict each other: "
                "it has no test split"
            )
        return self

    @model_validator(mode="after")
    def _column_split_needs_a_table(self) -> "Source":
        if self.split.method in BY_COLUMN and getattr(self, "kind", None) != "table":
            raise ValueError(f"split.method '{self.split.method}' needs data.kind 'table'")
        return self

    @model_validator(mode="after")
    def _fitted_scaling_is_standard(self) -> "Source":
        if self.scaling_fitted_on == "all" and self.scaling != "standard":
            raise ValueError(
                f"scaling '{self.scaling}' and scaling_fitted_on 'all' contradict each other: only 'standard' is "
                "fitted on rows; use it, or leave scaling_fitted_on at 'train'"
            )
        return self


class Columns(Source):
    """Rows with named columns."""

    kind: str
    scaling: Literal["none", "standard", "range"] = Field(
        default="standard",
        description="standard: (x - mean) / standard deviation per column; none: raw values; range: for pixels only",
    )

    @model_validator(mode="after")
    def _range_needs_pixels(self) -> "Columns":
        if self.scaling == "range":
            raise ValueError(
                f"scaling 'range' is for pixels and kind '{self.kind}' has columns: use 'standard' or 'none'"
            )
        return self


class Iris(Columns):
    """Fisher's iris as scikit-learn ships it: 150 flowers, four lengths in cm, three species."""

    kind: Literal["iris"] = Field(description="the dataset")


class Threshold(Columns):
    """Is x above 0.2? 40 points from -2 to 1.9 in steps of 0.1, and as test split the 39 points half-way between."""

    kind: Literal["threshold"] = Field(description="the dataset")
    brings_test: ClassVar[bool] = True
    split: Split = Field(default=Split(method="given", validation=0, test=0), description="split of the points")


class Points(Columns):
    """Points with one column, listed in the experiment."""

    kind: Literal["points"] = Field(description="the dataset")
    x: Numbers = Field(default=(1.0, 2.0, 3.0), description="values of the only column")
    y: Labels = Field(default=(0, 0, 1), description="class index of each point: 0, 1, ...")
    asked: Numbers = Field(default=(), description="further values of x for which to report the predicted probability")
    split: Split = Field(
        default=Split(method="resubstitution", validation=0, test=0), description="split of the points"
    )

    @model_validator(mode="after")
    def _labels_match_points(self) -> "Points":
        if len(self.x) != len(self.y):
            raise ValueError(f"x has {len(self.x)} values and y has {len(self.y)}: expected one label per point")
        classes = sorted(set(self.y))
        if len(classes) < 2 or classes != list(range(len(classes))):
            raise ValueError(f"y has the classes {classes}: expected at least two, numbered 0, 1, ... without gaps")
        return self


class Blobs(Columns):
    """Gaussian blobs, scikit-learn's make_blobs."""

    kind: Literal["blobs"] = Field(description="the dataset")
    rows: int = Field(default=1000, ge=10, le=10**8, description="number of points, divided evenly among the centres")
    features: int = Field(default=2, ge=1, le=10**4, description="number of columns")
    centers: int = Field(default=4, ge=2, le=1000, description="number of blobs; each is a class")
    std: float = Field(default=1.5, gt=0, le=FLOAT32, description="standard deviation of each blob")
    seed: int = Field(default=666, ge=0, le=2**32 - 1, description="random seed of centres and points")


class Digits(Source):
    """scikit-learn's handwritten digits: 1797 grey images of 8 x 8 pixels, values 0 to 16."""

    kind: Literal["digits"] = Field(description="the dataset")
    scaling: Literal["none", "standard", "range"] = Field(
        default="range", description="range: x / 16; standard: (x - mean) / standard deviation per pixel"
    )


class MNIST(Source):
    """MNIST, Fashion-MNIST or KMNIST by torchvision: 60,000 and 10,000 grey images of 28 x 28 pixels, 0 to 255."""

    brings_test: ClassVar[bool] = True
    kind: Literal["mnist", "fashion_mnist", "kmnist"] = Field(description="the dataset")
    split: Split = Field(
        default=Split(method="given", validation=0.1, test=0),
        description="split; given uses the original 10,000 test images",
    )
    scaling: Literal["none", "standard", "range"] = Field(
        default="range", description="range: x / 255; standard: (x - mean) / standard deviation per pixel"
    )


class Own(Source):
    """A user's own data: a file or a folder."""

    path: str = Field(
        min_length=1,
        description="path of the file or folder. Not part of the experiment's digest: the dataset's covers the content",
    )

    @property
    def name(self) -> str:
        """Name of the file or folder, reduced to characters that MLflow and file systems accept."""
        return stem(self.path)


class Table(Own):
    """A user's table: CSV with a heading, JSON lines, Excel or Parquet. Each row is an example, each column an input.

    The path may be an address of http or https, or a folder of Parquet files.
    """

    kind: Literal["table"] = Field(description="the dataset")
    target: str = Field(min_length=1, description="name of the column to predict; its values are the classes")
    ignore: Names = Field(default=(), description="columns to leave out, such as identifiers: id,name")
    columns: dict[str, ColumnKind] = Field(
        default={}, description="column types that override the inferred ones: --data.columns.zip categorical"
    )
    categories: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="number of most frequent values per categorical column that become network inputs; all others "
        "count as unknown",
    )
    separator: Literal[",", ";", "tab", "|"] = Field(default=",", description="field separator of a CSV file")
    decimal: Literal[".", ","] = Field(
        default=".",
        description="character before the fraction of a number in text; with ',' thousands may be separated by '.'",
    )
    missing: Names | None = Field(
        default=None,
        description="texts that mark a missing value, such as ?,-; default: NA, N/A, NULL, NaN and their variants. "
        "Empty text always does; '' for no other, so that NA is a value",
    )
    sheet: str | None = Field(default=None, description="sheet of an Excel file; default: the first")
    spellings: Literal["as_written", "joined"] = Field(
        default="as_written",
        description="joined: values and classes that differ only by case, blanks, Unicode form, a final dot or the "
        "zeros of a number are one, in their most frequent spelling",
    )
    scaling: Literal["none", "standard", "range"] = Field(
        default="standard", description="standard: (x - mean) / standard deviation of numeric columns; none: raw values"
    )

    @field_validator("path")
    @classmethod
    def _address_is_of_a_table(cls, path: str) -> str:
        if is_address(path):
            require_address(path)
        return path

    @model_validator(mode="after")
    def _scaling_suits_a_table(self) -> "Table":
        if self.scaling == "range" or self.scaling_fitted_on == "all":
            raise ValueError(
                f"scaling '{self.scaling}' and scaling_fitted_on '{self.scaling_fitted_on}': a table needs scaling "
                "'standard' or 'none', fitted on 'train'"
            )
        return self

    @model_validator(mode="after")
    def _only_excel_has_sheets(self) -> "Table":
        if self.sheet is not None and suffixes(self.path)[0] != ".xlsx":
            raise ValueError(
                f"sheet '{self.sheet}' and path '{self.path}' contradict each other: only .xlsx has sheets"
            )
        return self

    @model_validator(mode="after")
    def _target_is_not_used_elsewhere(self) -> "Table":
        split = self.split.group or self.split.time or self.split.column
        for field, names in (("ignore", self.ignore), ("columns", self.columns), ("split", (split,))):
            if self.target in names:
                raise ValueError(f"target '{self.target}' cannot be in {field} too")
        return self


class Images(Own):
    """A user's images: a folder with a folder for each class, named after it, or with such a folder for each split."""

    brings_test: ClassVar[bool] = True
    kind: Literal["images"] = Field(description="the dataset")
    height: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="height in pixels to which images are resized; default: the size of more than half of the images, "
        "if that is at most 64 x 64, else 64 x 64",
    )
    width: int | None = Field(default=None, ge=1, le=256, description="width in pixels to which images are resized")
    colour: Literal["auto", "grey", "colour"] = Field(
        default="auto", description="colour mode of all images; auto: colour if any image has colour, else grey"
    )
    unreadable: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="largest accepted fraction of unreadable files, which are left out; more stop the run. One file is "
        "always accepted, except by 0",
    )
    bits: int | None = Field(
        default=None,
        ge=8,
        le=16,
        description="bits in use of files with more than eight bits, for example 12; default: those that the largest "
        "value of all files needs",
    )
    background: Literal["white", "black"] = Field(
        default="white", description="colour with which transparent pixels are blended"
    )
    scaling: Literal["none", "standard", "range"] = Field(
        default="range", description="range: x / 255; standard: (x - mean) / standard deviation per pixel"
    )

    @property
    def name(self) -> str:
        """Whole name of the folder, whose dots do not separate a suffix."""
        return folder_name(self.path)

    @model_validator(mode="after")
    def _has_both_sides(self) -> "Images":
        if (self.height is None) != (self.width is None):
            raise ValueError(f"height {self.height} and width {self.width}: give both or neither")
        return self


def ignoring(column: str) -> str:
    """Return the option that leaves a column out, quoted for a shell; a name with a comma gets CSV quotes as well."""
    listed = f'"{column.replace(chr(34), 2 * chr(34))}"' if "," in column or '"' in column else column
    return f"--data.ignore {quote(listed)}"


Data = Annotated[Iris | Threshold | Points | Blobs | Digits | MNIST | Table | Images, Field(discriminator="kind")]
