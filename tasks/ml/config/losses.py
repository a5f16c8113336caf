"""The loss part of an experiment's training."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hallmark.tasks.ml.config.fields import Factors, Part

RETIRED = ("size_average", "reduce")
"""Options that torch replaced by `reduction` in version 1.0."""


class AnyLoss(Part):
    """Fields that all losses share."""

    reduction: Literal["none", "mean", "sum"] = Field(
        default="mean", description="how row losses are combined into a batch's loss; training needs mean or sum"
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_retired_options(cls, given: Any) -> Any:  # noqa: ANN401 - unvalidated input
        if isinstance(given, dict) and (old := [name for name in RETIRED if name in given]):
            on = {name: str(given.get(name, True)).lower() not in ("false", "0") for name in RETIRED}
            modern = ("mean" if on["size_average"] else "sum") if on["reduce"] else "none"
            raise ValueError(f"{' and '.join(old)} is retired: use reduction '{modern}'")
        return given


class ClassLoss(AnyLoss):
    """Fields of losses that take class indices."""

    weight: Factors | None = Field(default=None, description="factor of each class, in class order")
    ignore_index: int | None = Field(
        default=None, ge=0, description="index of a class whose rows training ignores; test metrics include them"
    )

    @model_validator(mode="after")
    def _some_class_counts(self) -> "ClassLoss":
        counted = [factor for index, factor in enumerate(self.weight or ()) if index != self.ignore_index]
        if self.weight and not any(counted):
            raise ValueError("weight and ignore_index leave no class to train on: give another class a factor above 0")
        return self


class CrossEntropy(ClassLoss):
    """Cross-entropy of the softmax of the network's output."""

    kind: Literal["cross_entropy"] = Field(description="the loss")
    label_smoothing: float = Field(
        default=0.0, ge=0, le=1, description="fraction of the target that is spread over all classes"
    )


class NLL(ClassLoss):
    """Negative log-likelihood of log-probabilities."""

    kind: Literal["nll"] = Field(description="the loss")


class BCE(AnyLoss):
    """Binary cross-entropy of probabilities: one unit for two classes, else one per class against the rest."""

    kind: Literal["bce"] = Field(description="the loss")
    weight: Factors | None = Field(default=None, description="factor of each output unit")


class BCEWithLogits(AnyLoss):
    """Binary cross-entropy of the sigmoid of the network's output: one unit for two classes, else one per class."""

    kind: Literal["bce_with_logits"] = Field(description="the loss")
    weight: Factors | None = Field(default=None, description="factor of each output unit")
    pos_weight: Factors | None = Field(default=None, description="factor of the positive rows of each output unit")


class MSE(AnyLoss):
    """Mean squared error between probabilities and one-hot targets (0 or 1)."""

    kind: Literal["mse"] = Field(description="the loss")


Loss = Annotated[CrossEntropy | NLL | BCE | BCEWithLogits | MSE, Field(discriminator="kind")]
