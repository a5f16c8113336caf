"""The experiment: one validated, immutable configuration of data, model, training and export.

Prefect renders these models as the run form and the command line reads them as dotted options
(`--training.epochs 20`), so every field says in `description` what it means and in what unit.
This module imports neither torch nor anything slow: bad input is refused at once.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hallmark.tasks.common.digests import digest_of
from hallmark.tasks.ml.config.data import Columns, Data, Table
from hallmark.tasks.ml.config.fields import FLOAT32, Part
from hallmark.tasks.ml.config.losses import CrossEntropy, Loss
from hallmark.tasks.ml.config.models import Model

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""What an experiment may be called: its name is that of a file and of a registered model."""

Device = Literal["auto", "cpu", "cuda", "mps"]


class Constant(Part):
    """The learning rate stays."""

    kind: Literal["constant"] = Field(description="course of the learning rate")


class Cosine(Part):
    """The learning rate falls to 0 along half a cosine, epoch by epoch."""

    kind: Literal["cosine"] = Field(description="course of the learning rate")


class Step(Part):
    """The learning rate is multiplied by a factor every so many epochs."""

    kind: Literal["step"] = Field(description="course of the learning rate")
    every: int = Field(default=10, ge=1, description="epochs between two steps")
    factor: float = Field(default=0.1, gt=0, lt=1, description="what each step multiplies the learning rate by")


class OneCycle(Part):
    """The learning rate rises from lr / 25 to lr and falls to nearly 0, update by update (Smith, 2017)."""

    kind: Literal["one_cycle"] = Field(description="course of the learning rate")
    warmup: float = Field(default=0.3, gt=0, lt=1, description="share of the updates in which it rises")


Schedule = Annotated[Constant | Cosine | Step | OneCycle, Field(discriminator="kind")]


class Augmentation(Part):
    """How images are changed at random each time that training sees them; all off by default."""

    horizontal_flip: float = Field(default=0.0, ge=0, le=1, description="probability that left and right change places")
    vertical_flip: float = Field(default=0.0, ge=0, le=1, description="probability that top and bottom change places")
    shift: int = Field(
        default=0,
        ge=0,
        le=64,
        description="pixels that an image moves in either direction at most; its edge is repeated",
    )
    rotation: float = Field(
        default=0.0,
        ge=0,
        le=180,
        description="degrees that an image turns in either direction at most; corners are black",
    )
    brightness: float = Field(default=0.0, ge=0, le=1, description="by a factor of 1 minus this to 1 plus this")
    contrast: float = Field(default=0.0, ge=0, le=1, description="by a factor of 1 minus this to 1 plus this")
    saturation: float = Field(
        default=0.0, ge=0, le=1, description="by a factor of 1 minus this to 1 plus this, of images in colour"
    )
    hue: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="turn of the colour wheel in either direction at most, of images in colour",
    )

    @property
    def first(self) -> str | None:
        """The name of the first field that is on, if any is."""
        return next((name for name, value in self if value), None)


class Training(Part):
    """How the weights are found."""

    epochs: int = Field(default=100, ge=1, description="passes over the training split, at most; of lbfgs, iterations")
    batch_size: Literal["full"] | Annotated[int, Field(ge=1)] = Field(
        default="full", description="rows a step; full takes the whole training split in one step"
    )
    shuffle: bool = Field(
        default=True, description="take the rows in another order every epoch, unless batch_size is full"
    )
    loss: Loss = Field(default=CrossEntropy(kind="cross_entropy"), description="what is minimised")
    optimizer: Literal["sgd", "adam", "adamw", "lbfgs"] = Field(
        default="adam", description="rule that updates the weights"
    )
    lr: float = Field(default=0.01, gt=0, le=FLOAT32, description="learning rate, per step")
    schedule: Schedule = Field(default=Constant(kind="constant"), description="course of the learning rate")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="momentum of sgd")
    nesterov: bool = Field(default=False, description="look ahead along the momentum of sgd")
    weight_decay: float = Field(
        default=0.0, ge=0, le=FLOAT32, description="L2 penalty added to the gradient; of adamw, decay beside it"
    )
    l2: float = Field(
        default=0.0,
        ge=0,
        le=FLOAT32,
        description="l2 / 2 * (sum of squared weights, biases apart) is added to what lbfgs minimises; scikit-learn's "
        "C is 1 / l2 if the loss's reduction is sum",
    )
    patience: int = Field(
        default=0,
        ge=0,
        description="stop after so many epochs without a lower monitored loss and keep the best weights; 0 never stops",
    )
    monitor: Literal["validation", "train", "test"] = Field(
        default="validation",
        description="the split that is taken for validation and watched by early stopping; "
        "train and test are mistakes that tutorials make",
    )
    augmentation: Augmentation = Field(
        default=Augmentation(), description="changes of the training images, by torchvision's v2 transforms"
    )
    last_batch_loss: bool = Field(
        default=False, description="log the loss of each epoch's last batch too, which some tutorials report"
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="seed of initial weights and batch order")
    shuffle_seed: int | None = Field(
        default=None, ge=0, le=2**32 - 1, description="seed of the batch order; training.seed if not given"
    )
    initial_weights: Literal["seeded", "unseeded"] = Field(
        default="seeded",
        description="seeded: drawn from the seed; unseeded: drawn before the seed is set, anew in every run",
    )
    device: Device = Field(
        default="auto",
        description="where to train; auto takes cuda, else mps, else cpu. Not part of the digest",
    )
    tf32: bool = Field(
        default=False, description="let cuda round the factors of matrix products to 10 bits: faster, less exact"
    )

    @property
    def order_seed(self) -> int:
        """Seed of the batch order."""
        return self.seed if self.shuffle_seed is None else self.shuffle_seed

    @model_validator(mode="before")
    @classmethod
    def _kinds_have_defaults(cls, given: Any) -> Any:  # noqa: ANN401 - whatever was given
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
    def _lbfgs_sees_one_function(self) -> "Training":
        if self.optimizer == "lbfgs":
            if self.batch_size != "full":
                raise ValueError(f"optimizer 'lbfgs' and batch_size {self.batch_size} contradict each other: use full")
            if self.weight_decay:
                raise ValueError(f"optimizer 'lbfgs' takes no weight_decay {self.weight_decay}: use l2")
            if on := self.augmentation.first:
                raise ValueError(
                    f"optimizer 'lbfgs' and augmentation.{on} {getattr(self.augmentation, on)} contradict each other: "
                    "it searches along one function"
                )
            if self.schedule.kind != "constant":
                found = self.schedule.kind
                raise ValueError(f"optimizer 'lbfgs' searches its steps, so schedule '{found}' must be constant")
        return self

    @model_validator(mode="after")
    def _loss_is_one_number(self) -> "Training":
        if self.loss.reduction == "none":
            raise ValueError("loss.reduction 'none' gives a loss per row and training needs one number: mean or sum")
        return self


class Export(Part):
    """How the artifact is written."""

    opset: int = Field(default=18, ge=18, le=23, description="version of the ONNX operator set")


OUTPUTS: dict[str, tuple[str, ...]] = {
    "cross_entropy": ("logits", "sigmoid", "softmax"),
    "nll": ("log_softmax",),
    "bce": ("sigmoid",),
    "bce_with_logits": ("logits",),
    "mse": ("sigmoid", "softmax"),
}
"""What each loss can be given. sigmoid and softmax before cross_entropy are mistakes that tutorials make."""


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

    @model_validator(mode="after")
    def _loss_suits_the_output(self) -> "Experiment":
        loss, output = self.training.loss.kind, self.model.output
        if output not in OUTPUTS[loss]:
            raise ValueError(
                f"training.loss.kind '{loss}' and model.output '{output}' contradict each other: "
                f"it takes {' or '.join(OUTPUTS[loss])}"
            )
        return self

    @model_validator(mode="after")
    def _patience_has_a_split_to_watch(self) -> "Experiment":
        if self.training.patience and self.training.monitor == "train":
            raise ValueError(
                f"training.patience {self.training.patience} and training.monitor 'train' contradict each other: "
                "the training loss is taken before each update, and tells no weights apart"
            )
        # What a column says of the split, only the rows will show.
        has_none = not self.data.split.validation and self.data.split.method != "column"
        if self.training.patience and self.training.monitor == "validation" and has_none:
            raise ValueError(
                f"training.patience {self.training.patience} and data.split.validation 0 contradict each other: "
                "there is no validation split to watch"
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
    def _images_to_augment(self) -> "Experiment":
        if (on := self.training.augmentation.first) and isinstance(self.data, Columns | Table):
            raise ValueError(
                f"training.augmentation.{on} changes images and data.kind '{self.data.kind}' has columns: leave it at 0"
            )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) of the fields that differ from their defaults.

        `name`, `training.device` and the path of one's own data are left out: none changes what is computed. A field
        added later with a default changes no old digest. `kind` has no default and so always counts.
        """
        fields = self.model_dump(
            mode="json", exclude_defaults=True, exclude={"name": True, "training": {"device"}, "data": {"path"}}
        )
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
