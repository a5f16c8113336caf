"""The data part of an experiment: which rows, how they are divided, and how they are scaled."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tasks.ml.config_part import FLOAT32, Labels, Numbers, Part


class Split(Part):
    """How rows are divided into training, validation and test."""

    method: Literal["stratified", "shuffled", "content", "given", "resubstitution"] = Field(
        default="stratified",
        description="stratified keeps the class shares in every split; shuffled ignores the classes; content: a row's "
        "own digest decides, so that it never moves as data grows and duplicates stay together; given: the test "
        "split that the source brings; resubstitution: the training rows are the test rows too",
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
        brought = self.method in ("given", "resubstitution")
        if brought and self.test:
            raise ValueError(f"method '{self.method}' brings the test rows, so test {self.test} must be 0")
        if not brought and not self.test:
            raise ValueError(f"method '{self.method}' and test 0 leave nothing to test on: choose a share above 0")
        if self.method == "resubstitution" and self.validation:
            raise ValueError(f"method 'resubstitution' trains on every row, so validation {self.validation} must be 0")
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

    @model_validator(mode="before")
    @classmethod
    def _keeps_its_own_split(cls, given: Any) -> Any:  # noqa: ANN401 - whatever was given
        """A split that is given in part is laid over this source's own, not over the general one."""
        if isinstance(given, dict) and isinstance(part := given.get("split"), dict) and "method" not in part:
            own = cls.model_fields["split"].default.model_dump()
            return given | {"split": own | part}
        return given

    @model_validator(mode="after")
    def _gives_what_it_brings(self) -> "Source":
        if self.split.method == "given" and not self.brings_test:
            raise ValueError("split.method 'given' and this kind contradict each other: it brings no test split")
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


Data = Annotated[Iris | Threshold | Points | Blobs | Digits | MNIST, Field(discriminator="kind")]
