"""The losses: part of an experiment's training."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hallmark.tasks.ml.config.fields import Factors, Part

RETIRED = ("size_average", "reduce")
"""Options of torch's losses before 1.0."""


class AnyLoss(Part):
    """What every loss has."""

    reduction: Literal["none", "mean", "sum"] = Field(
        default="mean", description="a batch's loss from its rows'; training needs mean or sum"
    )

    @model_validator(mode="before")
    @classmethod
    def _is_spelt_as_today(cls, given: Any) -> Any:  # noqa: ANN401 - whatever was given
        if isinstance(given, dict) and (old := [name for name in RETIRED if name in given]):
            on = {name: str(given.get(name, True)).lower() not in ("false", "0") for name in RETIRED}
            modern = ("mean" if on["size_average"] else "sum") if on["reduce"] else "none"
            raise ValueError(f"{' and '.join(old)} is retired: write reduction '{modern}'")
        return given


class ClassLoss(AnyLoss):
    """What losses on class indices have."""

    weight: Factors | None = Field(default=None, description="factor of each class")
    ignore_index: int | None = Field(
        default=None, ge=0, description="class whose rows count nothing in training; they do in test metrics"
    )

    @model_validator(mode="after")
    def _leaves_a_class(self) -> "ClassLoss":
        counted = [factor for index, factor in enumerate(self.weight or ()) if index != self.ignore_index]
        if self.weight and not any(counted):
            raise ValueError("weight and ignore_index leave no class that counts")
        return self


class CrossEntropy(ClassLoss):
    """Cross-entropy of softmax over the network's output."""

    kind: Literal["cross_entropy"] = Field(description="the loss")
    label_smoothing: float = Field(default=0.0, ge=0, le=1, description="share of the target spread over all classes")


class NLL(ClassLoss):
    """Negative log-likelihood of log-probabilities."""

    kind: Literal["nll"] = Field(description="the loss")


class BCE(AnyLoss):
    """Binary cross-entropy of probabilities: one unit for two classes, else a unit a class against the rest."""

    kind: Literal["bce"] = Field(description="the loss")
    weight: Factors | None = Field(default=None, description="factor of each output unit")


class BCEWithLogits(AnyLoss):
    """Binary cross-entropy of sigmoid over the network's output: one unit for two classes, else a unit a class."""

    kind: Literal["bce_with_logits"] = Field(description="the loss")
    weight: Factors | None = Field(default=None, description="factor of each output unit")
    pos_weight: Factors | None = Field(default=None, description="factor of each output unit's positive rows")


class MSE(AnyLoss):
    """Mean squared error between probabilities and 0 or 1."""

    kind: Literal["mse"] = Field(description="the loss")


Loss = Annotated[CrossEntropy | NLL | BCE | BCEWithLogits | MSE, Field(discriminator="kind")]
