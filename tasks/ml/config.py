"""The experiment: one validated, immutable configuration of data, model, training and export.

Prefect renders these models as the run form and the command line reads them as dotted options
(`--training.epochs 20`), so every field says in `description` what it means and in what unit.
This module imports neither torch nor anything slow: bad input is refused at once.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tasks.ml.digests import digest_of

FLOAT32 = 3e38
"""Numbers that meet float32 weights must fit into it."""

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""What an experiment may be called: its name is that of a file and of a registered model."""

Device = Literal["auto", "cpu", "cuda", "mps"]


class Part(BaseModel):
    """A frozen part of the experiment that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Split(Part):
    """How rows are divided into training, validation and test."""

    method: Literal["stratified", "shuffled"] = Field(
        default="stratified",
        description="stratified keeps the class shares in every split; shuffled ignores the classes",
    )
    validation: float = Field(
        default=0.2, ge=0, lt=1, description="share of all rows that steers the training; 0 for none"
    )
    test: float = Field(default=0.2, gt=0, lt=1, description="share of all rows that is looked at once, at the end")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="seed of the shuffle before the division")

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave no rows to train on: "
                "their sum must stay below 1"
            )
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

    @model_validator(mode="after")
    def _fits_what_it_scales(self) -> "Source":
        if self.scaling_fitted_on == "all" and self.scaling != "standard":
            raise ValueError(
                f"scaling '{self.scaling}' is fitted on nothing, so scaling_fitted_on 'all' contradicts it: "
                "use scaling 'standard' or leave scaling_fitted_on at 'train'"
            )
        return self


class Iris(Source):
    """Fisher's iris as scikit-learn ships it: 150 flowers, four lengths in cm, three species."""

    kind: Literal["iris"] = Field(description="the dataset")

    @model_validator(mode="after")
    def _has_no_pixels(self) -> "Iris":
        if self.scaling == "range":
            raise ValueError("scaling 'range' is for pixels and kind 'iris' has columns: use 'standard' or 'none'")
        return self


class Digits(Source):
    """scikit-learn's handwritten digits: 1797 grey images of 8 x 8 pixels, values 0 to 16."""

    kind: Literal["digits"] = Field(description="the dataset")
    scaling: Literal["none", "standard", "range"] = Field(
        default="range", description="range: x / 16; standard: (x - mean) / standard deviation per pixel"
    )


Data = Annotated[Iris | Digits, Field(discriminator="kind")]


class Softmax(Part):
    """Softmax regression: one linear layer from the inputs to a logit per class."""

    kind: Literal["softmax"] = Field(description="the model")


def _comma_separated(value: object) -> object:
    """The command line writes a list of widths as `64,32`."""
    return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class MLP(Part):
    """Multi-layer perceptron: linear layers with ReLU between them."""

    kind: Literal["mlp"] = Field(description="the model")
    hidden: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65536)], ...],
        BeforeValidator(_comma_separated),
        Field(min_length=1),
    ] = Field(default=(50, 50), description="width of each hidden layer, first to last")


Model = Annotated[Softmax | MLP, Field(discriminator="kind")]


class Training(Part):
    """How the weights are found."""

    epochs: int = Field(default=100, ge=1, description="passes over the training split")
    batch_size: Literal["full"] | Annotated[int, Field(ge=1)] = Field(
        default="full", description="rows a step; full takes the whole training split in one step"
    )
    optimizer: Literal["sgd", "adam"] = Field(default="adam", description="rule that updates the weights")
    lr: float = Field(default=0.01, gt=0, le=FLOAT32, description="learning rate, per step")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="momentum of sgd")
    weight_decay: float = Field(default=0.0, ge=0, le=FLOAT32, description="L2 penalty added to the gradient")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="seed of initial weights and batch order")
    device: Device = Field(
        default="auto",
        description="where to train; auto takes cuda, else mps, else cpu. Not part of the digest",
    )

    @model_validator(mode="after")
    def _momentum_needs_sgd(self) -> "Training":
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(
                f"momentum {self.momentum} and optimizer '{self.optimizer}' contradict each other: "
                "only sgd has momentum"
            )
        return self


class Export(Part):
    """How the artifact is written."""

    opset: int = Field(default=18, ge=18, le=23, description="version of the ONNX operator set")


class Experiment(Part):
    """Data, model, training and export of one classifier, under one name."""

    name: str = Field(
        pattern=f"^{NAME}$",
        description="name of the registered model and of the file: letters, digits, '.', '_', '-'",
        json_schema_extra={"position": 0},
    )
    data: Data = Field(description="rows and their division", json_schema_extra={"position": 1})
    model: Model = Field(description="architecture", json_schema_extra={"position": 2})
    training: Training = Field(
        default=Training(), description="how the weights are found", json_schema_extra={"position": 3}
    )
    export: Export = Field(
        default=Export(), description="how the artifact is written", json_schema_extra={"position": 4}
    )

    @property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) of the fields that differ from their defaults.

        `name` and `training.device` are left out: neither changes what is computed. A field added
        later with a default changes no old digest. `kind` has no default and so always counts.
        """
        fields = self.model_dump(mode="json", exclude_defaults=True, exclude={"name": True, "training": {"device"}})
        return digest_of(_without_empty(fields))

    def flat(self) -> dict[str, Any]:
        """Every field as `{"training.lr": 0.01, ...}`: the dotted paths of the command line."""
        return dict(_flatten(self.model_dump(mode="json")))


def _flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in tree.items():
        leaves += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return leaves


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    """Drop parts of which every field has its default, so that leaving out a field leaves no trace."""
    pruned = {key: _without_empty(value) if isinstance(value, dict) else value for key, value in tree.items()}
    return {key: value for key, value in pruned.items() if value != {}}
