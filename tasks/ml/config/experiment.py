"""The experiment: one validated, immutable configuration of data, model, training and export.

Prefect renders these models as the run form, and the command line offers their fields as dotted options
(`--training.epochs 20`), so every field needs a `description` with its meaning and unit.
This module imports neither torch nor anything else that is slow to load, so that bad input is rejected at once.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hallmark.tasks.common.digests import digest_of
from hallmark.tasks.ml.config.data import Columns, Data, Table
from hallmark.tasks.ml.config.fields import FLOAT32, Part
from hallmark.tasks.ml.config.losses import CrossEntropy, Loss
from hallmark.tasks.ml.config.models import Model

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""Pattern of an experiment's name, which is also used for files and the registered model."""

MOST_EPOCHS = 10_000_000
"""Maximum number of epochs. The smallest experiments would train for days."""

Device = Literal["auto", "cpu", "cuda", "mps"]


class Constant(Part):
    """Constant learning rate."""

    kind: Literal["constant"] = Field(description="learning rate schedule")


class Cosine(Part):
    """Cosine decay of the learning rate to 0, updated each epoch."""

    kind: Literal["cosine"] = Field(description="learning rate schedule")


class Step(Part):
    """Multiplication of the learning rate by `factor` every `every` epochs."""

    kind: Literal["step"] = Field(description="learning rate schedule")
    every: int = Field(default=10, ge=1, le=MOST_EPOCHS, description="number of epochs between two steps")
    factor: float = Field(default=0.1, gt=0, lt=1, description="factor applied to the learning rate at each step")


class OneCycle(Part):
    """Increase of the learning rate from lr / 25 to lr, then decrease to nearly 0, updated each step (Smith, 2017)."""

    kind: Literal["one_cycle"] = Field(description="learning rate schedule")
    warmup: float = Field(
        default=0.3, gt=0, lt=1, description="fraction of all steps in which the learning rate increases"
    )


Schedule = Annotated[Constant | Cosine | Step | OneCycle, Field(discriminator="kind")]


class Augmentation(Part):
    """Random changes of the training images, drawn again in each epoch; all off by default."""

    horizontal_flip: float = Field(default=0.0, ge=0, le=1, description="probability of a left-right flip")
    vertical_flip: float = Field(default=0.0, ge=0, le=1, description="probability of a top-bottom flip")
    shift: int = Field(
        default=0,
        ge=0,
        le=64,
        description="largest shift in each direction, in pixels; edge pixels are repeated",
    )
    rotation: float = Field(
        default=0.0,
        ge=0,
        le=180,
        description="largest rotation in each direction, in degrees; corners become black",
    )
    brightness: float = Field(default=0.0, ge=0, le=1, description="multiply brightness by 1 - value to 1 + value")
    contrast: float = Field(default=0.0, ge=0, le=1, description="multiply contrast by 1 - value to 1 + value")
    saturation: float = Field(
        default=0.0, ge=0, le=1, description="multiply saturation by 1 - value to 1 + value; colour images only"
    )
    hue: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="largest hue shift in each direction, as a fraction of the colour wheel; colour images only",
    )

    @property
    def first(self) -> str | None:
        """Name of the first augmentation that is on, or None."""
        return next((name for name, value in self if value), None)


class Training(Part):
    """How the model is trained."""

    epochs: int = Field(
        default=100,
        ge=1,
        le=MOST_EPOCHS,
        description="maximum number of passes over the training split; for lbfgs, of iterations",
    )
    batch_size: Literal["full"] | Annotated[int, Field(ge=1, le=10**9)] = Field(
        default="full", description="rows per step; full: the whole training split"
    )
    shuffle: bool = Field(default=True, description="shuffle the rows in every epoch; no effect if batch_size is full")
    loss: Loss = Field(default=CrossEntropy(kind="cross_entropy"), description="loss function to minimise")
    optimizer: Literal["sgd", "adam", "adamw", "lbfgs"] = Field(
        default="adam", description="algorithm that updates the weights"
    )
    lr: float = Field(default=0.01, gt=0, le=FLOAT32, description="learning rate of each step")
    schedule: Schedule = Field(default=Constant(kind="constant"), description="learning rate schedule")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="momentum; sgd only")
    nesterov: bool = Field(default=False, description="use Nesterov momentum; sgd only")
    weight_decay: float = Field(
        default=0.0, ge=0, le=FLOAT32, description="L2 penalty added to the gradient; for adamw, decoupled weight decay"
    )
    l2: float = Field(
        default=0.0,
        ge=0,
        le=FLOAT32,
        description="L2 regularisation, lbfgs only: adds l2 / 2 * (sum of squared weights, without biases) to the "
        "loss; equals scikit-learn's C = 1 / l2 if the loss's reduction is sum",
    )
    patience: int = Field(
        default=0,
        ge=0,
        le=MOST_EPOCHS,
        description="stop after this many epochs without a lower monitored loss and keep the best weights; 0: never",
    )
    monitor: Literal["validation", "train", "test"] = Field(
        default="validation",
        description="split used for validation and early stopping; train and test reproduce common tutorial mistakes",
    )
    augmentation: Augmentation = Field(
        default=Augmentation(), description="random changes of the training images, by torchvision's v2 transforms"
    )
    last_batch_loss: bool = Field(
        default=False, description="also log the loss of each epoch's last batch, which some tutorials report"
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="random seed of initial weights and batch order")
    shuffle_seed: int | None = Field(
        default=None, ge=0, le=2**32 - 1, description="random seed of the batch order; default: training.seed"
    )
    initial_weights: Literal["seeded", "unseeded"] = Field(
        default="seeded",
        description="seeded: drawn from training.seed; unseeded: drawn before seeding, different in every run",
    )
    device: Device = Field(
        default="auto",
        description="device to train on; auto: cuda, else mps, else cpu. Not part of the digest",
    )
    tf32: bool = Field(
        default=False, description="allow TF32 matrix products on cuda (10-bit mantissa): faster, less precise"
    )

    @property
    def order_seed(self) -> int:
        """Random seed of the batch order."""
        return self.seed if self.shuffle_seed is None else self.shuffle_seed

    def rows_in_batch(self, rows: int) -> int:
        """Return the size of a batch if the training split has `rows` rows."""
        return rows if self.batch_size == "full" else self.batch_size

    @model_validator(mode="before")
    @classmethod
    def _fill_in_default_kinds(cls, given: Any) -> Any:  # noqa: ANN401 - unvalidated input
        if isinstance(given, dict):
            for name, kind in (("loss", "cross_entropy"), ("schedule", "constant")):
                if isinstance(part := given.get(name), dict) and "kind" not in part:
                    given = given | {name: {"kind": kind} | part}
        return given

    @model_validator(mode="after")
    def _options_suit_the_optimizer(self) -> "Training":
        for name, suits in (("momentum", "sgd"), ("nesterov", "sgd"), ("l2", "lbfgs")):
            if getattr(self, name) and self.optimizer != suits:
                raise ValueError(
                    f"{name} {getattr(self, name)} and optimizer '{self.optimizer}' contradict each other: "
                    f"only {suits} has {name}"
                )
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov and momentum 0.0 contradict each other: give a momentum above 0")
        return self

    @model_validator(mode="after")
    def _lbfgs_needs_a_fixed_loss(self) -> "Training":
        if self.optimizer == "lbfgs":
            if self.batch_size != "full":
                raise ValueError(
                    f"optimizer 'lbfgs' and batch_size {self.batch_size} contradict each other: use 'full'"
                )
            if self.weight_decay:
                raise ValueError(
                    f"optimizer 'lbfgs' and weight_decay {self.weight_decay} contradict each other: use l2"
                )
            if on := self.augmentation.first:
                raise ValueError(
                    f"optimizer 'lbfgs' and augmentation.{on} {getattr(self.augmentation, on)} contradict each other: "
                    "lbfgs needs the same loss in every step"
                )
            if self.schedule.kind != "constant":
                found = self.schedule.kind
                raise ValueError(
                    f"optimizer 'lbfgs' and schedule.kind '{found}' contradict each other: lbfgs needs 'constant'"
                )
        return self

    @model_validator(mode="after")
    def _loss_is_a_single_number(self) -> "Training":
        if self.loss.reduction == "none":
            raise ValueError(
                "loss.reduction 'none' gives one loss per row, but training needs a single number: use 'mean' or 'sum'"
            )
        return self


class Export(Part):
    """How the ONNX file is written."""

    opset: int = Field(default=18, ge=18, le=23, description="version of the ONNX operator set")


OUTPUTS: dict[str, tuple[str, ...]] = {
    "cross_entropy": ("logits", "sigmoid", "softmax"),
    "nll": ("log_softmax",),
    "bce": ("sigmoid",),
    "bce_with_logits": ("logits",),
    "mse": ("sigmoid", "softmax"),
}
"""Outputs that each loss accepts. cross_entropy after sigmoid or softmax reproduces a common mistake of tutorials."""


class Experiment(Part):
    """A named configuration of data, model, training and export of one classifier."""

    name: str = Field(
        pattern=f"^{NAME}$",
        description="name of the registered model and of the file: letters, digits, '.', '_', '-'",
        json_schema_extra={"position": 0},
    )
    data: Data = Field(description="rows and their split", json_schema_extra={"position": 1})
    model: Model = Field(description="architecture of the network", json_schema_extra={"position": 2})
    training: Training = Field(default=Training(), description="how to train", json_schema_extra={"position": 3})
    export: Export = Field(
        default=Export(), description="how to write the ONNX file", json_schema_extra={"position": 4}
    )

    @model_validator(mode="after")
    def _loss_suits_the_output(self) -> "Experiment":
        loss, output = self.training.loss.kind, self.model.output
        if output not in OUTPUTS[loss]:
            raise ValueError(
                f"training.loss.kind '{loss}' and model.output '{output}' contradict each other: "
                f"this loss needs output {' or '.join(OUTPUTS[loss])}"
            )
        return self

    @model_validator(mode="after")
    def _patience_needs_a_validation_split(self) -> "Experiment":
        if self.training.patience and self.training.monitor == "train":
            raise ValueError(
                f"training.patience {self.training.patience} and training.monitor 'train' contradict each other: "
                "the training loss is measured before each update, so it cannot rank the weights after it"
            )
        # With method 'column', only the rows show whether there is a validation split.
        has_none = not self.data.split.validation and self.data.split.method != "column"
        if self.training.patience and self.training.monitor == "validation" and has_none:
            raise ValueError(
                f"training.patience {self.training.patience} and data.split.validation 0 contradict each other: "
                "there is no validation split to monitor"
            )
        return self

    @model_validator(mode="after")
    def _model_takes_the_data(self) -> "Experiment":
        if self.model.requires_images and isinstance(self.data, Columns | Table):
            raise ValueError(
                f"model.kind '{self.model.kind}' needs images, but data.kind '{self.data.kind}' has columns: use mlp"
            )
        return self

    @model_validator(mode="after")
    def _augmentation_needs_images(self) -> "Experiment":
        if (on := self.training.augmentation.first) and isinstance(self.data, Columns | Table):
            raise ValueError(
                f"training.augmentation.{on} needs images, but data.kind '{self.data.kind}' has columns: leave it at 0"
            )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) of the fields that differ from their defaults.

        Excludes `name`, `training.device` and the path of a user's data, which do not change the computation. A field
        added later with a default changes no existing digest. `kind` has no default and is always included.
        """
        fields = self.model_dump(
            mode="json", exclude_defaults=True, exclude={"name": True, "training": {"device"}, "data": {"path"}}
        )
        return digest_of(_without_empty(fields))

    def flat(self) -> dict[str, Any]:
        """Return every field by its dotted path on the command line: `{"training.lr": 0.01, ...}`."""
        return dict(_flatten(self.model_dump(mode="json")))


def _flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in tree.items():
        leaves += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return leaves


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    """Drop parts whose fields all have their defaults, so that they do not affect the digest."""
    pruned = {key: _without_empty(value) if isinstance(value, dict) else value for key, value in tree.items()}
    return {key: value for key, value in pruned.items() if value != {}}
