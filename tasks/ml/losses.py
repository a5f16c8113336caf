"""Losses: torch's own, from the experiment's words."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.ml.config import BCE, MSE, NLL, BCEWithLogits, CrossEntropy, Loss

_NO_CLASS = -100
"""torch's own default for an ignored class: none bears this index."""


def build(loss: Loss) -> nn.Module:
    """Build torch's module for `loss`, on the CPU.

    Called with what the network ends in, `(N, U) float32`, and `targets` of the rows' classes, it returns what
    `loss.reduction` says: one number, or one a row (`none`; one a unit for losses on several units).
    """
    match loss:
        case CrossEntropy():
            return nn.CrossEntropyLoss(
                weight=_factors(loss.weight),
                ignore_index=_ignored(loss),
                label_smoothing=loss.label_smoothing,
                reduction=loss.reduction,
            )
        case NLL():
            return nn.NLLLoss(weight=_factors(loss.weight), ignore_index=_ignored(loss), reduction=loss.reduction)
        case BCE():
            return nn.BCELoss(weight=_factors(loss.weight), reduction=loss.reduction)
        case BCEWithLogits():
            return nn.BCEWithLogitsLoss(
                weight=_factors(loss.weight), pos_weight=_factors(loss.pos_weight), reduction=loss.reduction
            )
        case MSE():
            return nn.MSELoss(reduction=loss.reduction)


def targets(loss: Loss, y: Tensor, units: int) -> Tensor:
    """What the loss compares with: class indices, or 0 and 1 for each output unit.

    Args:
        loss: which of the two it takes.
        y: `(N,) int64` class index.
        units: U, the network's outputs.

    Returns:
        `(N,) int64` for cross_entropy and nll, else `(N, U) float32`.
    """
    if isinstance(loss, CrossEntropy | NLL):
        return y
    return y[:, None].float() if units == 1 else functional.one_hot(y, units).float()


def mass(loss: Loss, target: Tensor) -> float:
    """What torch's mean over the rows of `targets` divides by: the factors of the rows that count, or all elements."""
    if not isinstance(loss, CrossEntropy | NLL) or (loss.weight is None and loss.ignore_index is None):
        return float(target.numel())
    counted = target[target != _ignored(loss)]
    return float(len(counted)) if loss.weight is None else torch.tensor(loss.weight)[counted.cpu()].sum().item()


def mean(loss: Loss, value: float, target: Tensor) -> float:
    """A batch's loss, as `loss.reduction` has it, as torch's mean over its rows."""
    return value / mass(loss, target) if loss.reduction == "sum" else value


def _factors(factors: tuple[float, ...] | None) -> Tensor | None:
    return None if factors is None else torch.tensor(factors)


def _ignored(loss: CrossEntropy | NLL) -> int:
    return _NO_CLASS if loss.ignore_index is None else loss.ignore_index
