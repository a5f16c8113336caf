"""The data part of an experiment: which rows, how they are divided, and how they are scaled."""

import re
from pathlib import PurePath
from shlex import quote
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from hallmark.tasks.common.records import ColumnKind
from hallmark.tasks.ml.config.fields import FLOAT32, Labels, Names, Numbers, Part

BY_COLUMN = ("group", "time", "column")
"""Methods of division that look at a column of a table, which the option of the same name says."""


class Split(Part):
    """How rows are divided into training, validation and test."""

    method: Literal["stratified", "shuffled", "content", "given", "resubstitution", "group", "time", "column"] = Field(
        default="stratified",
        description="stratified keeps the class shares in every split; shuffled ignores the classes; content: a row's "
        "own digest decides, so that it never moves as data grows and duplicates stay together; given: the test "
        "split that the source brings; resubstitution: the training rows are the test rows too; of tables: group "
        "keeps rows together, time tests on the latest, column says the split of each row",
    )
    group: str | None = Field(
        default=None, description="column of a table: rows with the same value share a split; such as a patient"
    )
    time: str | None = Field(
        default=None, description="column of a table, dates or numbers: the earliest rows train, the latest are tested"
    )
    column: str | None = Field(
        default=None, description="column of a table that says each row's split: train, validation or test"
    )
    validation: float = Field(
        default=0.2, ge=0, lt=1, description="share of all rows that steers the training; 0 for none"
    )
    test: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="share of all rows that is looked at once, at the end; 0 where the method brings the test rows",
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="seed of the division")

    @model_validator(mode="before")
    @classmethod
    def _is_by_the_column_it_names(cls, given: Any) -> Any:  # noqa: ANN401 - whatever was given
        """Whoever names a column to divide by has chosen the method."""
        if isinstance(given, dict) and "method" not in given:
            for name in BY_COLUMN:
                if given.get(name):
                    shares = {"validation": 0, "test": 0} if name == "column" else {}
                    return shares | given | {"method": name}
        return given

    @model_validator(mode="after")
    def _names_one_column(self) -> "Split":
        named = [name for name in BY_COLUMN if getattr(self, name) is not None]
        if self.method in BY_COLUMN and self.method not in named:
            raise ValueError(f"method '{self.method}' needs a column: give split.{self.method} its name")
        if surplus := [name for name in named if name != self.method]:
            given = f"{surplus[0]} '{getattr(self, surplus[0])}'"
            raise ValueError(f"{given} and method '{self.method}' contradict each other: give method '{surplus[0]}'")
        return self

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave no rows to train on: "
                "their sum must stay below 1"
            )
        return self

    @model_validator(mode="after")
    def _cuts_what_the_method_does_not_bring(self) -> "Split":
        brought = self.method in ("given", "resubstitution", "column")
        if brought and self.test:
            raise ValueError(f"method '{self.method}' brings the test rows, so test {self.test} must be 0")
        if not brought and not self.test:
            raise ValueError(f"method '{self.method}' and test 0 leave nothing to test on: choose a share above 0")
        if self.method == "resubstitution" and self.validation:
            raise ValueError(f"method 'resubstitution' trains on every row, so validation {self.validation} must be 0")
        if self.method == "column" and self.validation:
            raise ValueError(f"method 'column' brings the validation rows, so validation {self.validation} must be 0")
        return self


class Source(Part):
    """What every dataset has: splits, and a scaling that ends up inside the ONNX graph."""

    split: Split = Field(default=Split(), description="division into training, validation and test")
    scaling: Literal["none", "standard", "range"] = Field(
        default="standard",
        description="standard: (x - mean) / standard deviation, by column; range: x / largest pixel value",
    )
    scaling_fitted_on: Literal["train", "all"] = Field(
        default="train",
        description="rows that give mean and deviation; all lets the test split leak into training",
    )

    brings_test: ClassVar[bool] = False
    """Whether the source has a test split of its own."""

    @property
    def name(self) -> str:
        """What the dataset is called, and the MLflow experiment of all who train on it."""
        return str(getattr(self, "kind"))  # noqa: B009 - each source has its own literal

    @model_validator(mode="before")
    @classmethod
    def _keeps_its_own_split(cls, given: Any) -> Any:  # noqa: ANN401 - whatever was given
        """A split that is given in part is laid over this source's own, not over the general one."""
        part = given.get("split") if isinstance(given, dict) else None
        if isinstance(part, dict) and not any(part.get(name) for name in ("method", *BY_COLUMN)):
            own = cls.model_fields["split"].default.model_dump()
            return given | {"split": own | part}
        return given

    @model_validator(mode="after")
    def _gives_what_it_brings(self) -> "Source":
        if self.split.method == "given" and not self.brings_test:
            raise ValueError("split.method 'given' and this kind contradict each other: it brings no test split")
        return self

    @model_validator(mode="after")
    def _divides_by_its_own_columns(self) -> "Source":
        if self.split.method in BY_COLUMN and getattr(self, "kind", None) != "table":
            raise ValueError(f"split.method '{self.split.method}' is for tables of one's own: data.kind 'table'")
        return self

    @model_validator(mode="after")
    def _fits_what_it_scales(self) -> "Source":
        if self.scaling_fitted_on == "all" and self.scaling != "standard":
            raise ValueError(
                f"scaling '{self.scaling}' is fitted on nothing, so scaling_fitted_on 'all' contradicts it: "
                "use scaling 'standard' or leave scaling_fitted_on at 'train'"
            )
        return self


class Columns(Source):
    """Rows of named columns."""

    kind: str
    scaling: Literal["none", "standard", "range"] = Field(
        default="standard", description="standard: (x - mean) / standard deviation, by column; range is for pixels"
    )

    @model_validator(mode="after")
    def _has_no_pixels(self) -> "Columns":
        if self.scaling == "range":
            raise ValueError(
                f"scaling 'range' is for pixels and kind '{self.kind}' has columns: use 'standard' or 'none'"
            )
        return self


class Iris(Columns):
    """Fisher's iris as scikit-learn ships it: 150 flowers, four lengths in cm, three species."""

    kind: Literal["iris"] = Field(description="the dataset")


class Threshold(Columns):
    """Is x above 0.2? 40 points from -2 to 1.9 in steps of 0.1; given as a test: the 39 points half-way between."""

    kind: Literal["threshold"] = Field(description="the dataset")
    brings_test: ClassVar[bool] = True
    split: Split = Field(default=Split(method="given", validation=0, test=0), description="division of the points")


class Points(Columns):
    """A handful of points, written out."""

    kind: Literal["points"] = Field(description="the dataset")
    x: Numbers = Field(default=(1.0, 2.0, 3.0), description="the one column")
    y: Labels = Field(default=(0, 0, 1), description="class index of each point: 0, 1, ...")
    asked: Numbers = Field(default=(), description="further x, of which the trained model is asked the probability")
    split: Split = Field(
        default=Split(method="resubstitution", validation=0, test=0), description="division of the points"
    )

    @model_validator(mode="after")
    def _labels_every_point(self) -> "Points":
        if len(self.x) != len(self.y):
            raise ValueError(f"x has {len(self.x)} points and y labels {len(self.y)}: they must be as many")
        classes = sorted(set(self.y))
        if len(classes) < 2 or classes != list(range(len(classes))):
            raise ValueError(f"y holds the classes {classes}: expected 0, 1, ... without a gap, at least two")
        return self


class Blobs(Columns):
    """Gaussian blobs, scikit-learn's make_blobs."""

    kind: Literal["blobs"] = Field(description="the dataset")
    rows: int = Field(default=1000, ge=10, le=10**8, description="points in all, shared evenly among the centres")
    features: int = Field(default=2, ge=1, le=10**4, description="columns")
    centers: int = Field(default=4, ge=2, le=1000, description="blobs, each a class")
    std: float = Field(default=1.5, gt=0, le=FLOAT32, description="standard deviation of each blob")
    seed: int = Field(default=666, ge=0, le=2**32 - 1, description="seed of centres and points")


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
        description="division; given keeps the 10,000 test images",
    )
    scaling: Literal["none", "standard", "range"] = Field(
        default="range", description="range: x / 255; standard: (x - mean) / standard deviation per pixel"
    )


class Own(Source):
    """Data of one's own: a file or a folder."""

    path: str = Field(
        min_length=1,
        description="the file, or the folder. Not part of the digest: what lies there is part of the dataset's",
    )

    @property
    def name(self) -> str:
        """The file's or the folder's name, without what MLflow and file systems dislike."""
        return stem(self.path)


class Table(Own):
    """A table of one's own: CSV with a heading, or Parquet. Each row an example, each column an input of the model."""

    kind: Literal["table"] = Field(description="the dataset")
    target: str = Field(min_length=1, description="the column that is to be predicted; its values are the classes")
    ignore: Names = Field(default=(), description="columns that are left out, such as identifiers: id,name")
    columns: dict[str, ColumnKind] = Field(
        default={}, description="what a column is, where that is inferred wrongly: --data.columns.zip categorical"
    )
    categories: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="so many values of a categorical column, the most frequent, are inputs of the network each; "
        "all others count as unknown",
    )
    separator: Literal[",", ";", "tab"] = Field(default=",", description="what stands between two fields of a CSV")
    scaling: Literal["none", "standard", "range"] = Field(
        default="standard", description="standard: (x - mean) / standard deviation, of numeric columns"
    )

    @model_validator(mode="after")
    def _is_fitted_on_training_rows(self) -> "Table":
        if self.scaling == "range" or self.scaling_fitted_on == "all":
            raise ValueError(
                f"scaling '{self.scaling}' and scaling_fitted_on '{self.scaling_fitted_on}': a table is scaled "
                "'standard' or 'none', by its training rows"
            )
        return self

    @model_validator(mode="after")
    def _keeps_its_target(self) -> "Table":
        split = self.split.group or self.split.time or self.split.column
        for what, names in (("ignore", self.ignore), ("columns", self.columns), ("split", (split,))):
            if self.target in names:
                raise ValueError(f"target '{self.target}' cannot stand in {what} too")
        return self


class Images(Own):
    """Images of one's own, PNG or JPEG: a folder with a folder for each class, which bears the name of the class."""

    kind: Literal["images"] = Field(description="the dataset")
    height: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="pixels, to which every image is resized; if not given, as more than half of them have them, where "
        "that is at most 64 x 64, else 64 x 64",
    )
    width: int | None = Field(default=None, ge=1, le=256, description="pixels, to which every image is resized")
    colour: Literal["auto", "grey", "colour"] = Field(
        default="auto", description="what every image is made: auto takes colour where any image has it, else grey"
    )
    unreadable: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="share of files that may be unreadable, and are left out; no more than that",
    )
    scaling: Literal["none", "standard", "range"] = Field(
        default="range", description="range: x / 255; standard: (x - mean) / standard deviation per pixel"
    )

    @model_validator(mode="after")
    def _has_two_sides(self) -> "Images":
        if (self.height is None) != (self.width is None):
            raise ValueError(f"height {self.height} and width {self.width}: give both, or neither")
        return self


def ignoring(column: str) -> str:
    """The option that leaves a column out, as it is typed in a shell: a name with a comma in quotes of its own."""
    listed = f'"{column.replace(chr(34), 2 * chr(34))}"' if "," in column or '"' in column else column
    return f"--data.ignore {quote(listed)}"


def stem(path: str) -> str:
    """A path's last part without its suffix, as an experiment may be called.

    Letters, digits, '.', '_' and '-' stay, everything else becomes '-'.
    """
    said = re.sub(r"[^A-Za-z0-9._-]+", "-", PurePath(path).stem).strip("-._")[:100]
    return said or "own"


Data = Annotated[Iris | Threshold | Points | Blobs | Digits | MNIST | Table | Images, Field(discriminator="kind")]
