"""Losses: torch's own, from the experiment's words."""

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from hallmark.tasks.ml.config.losses import BCE, MSE, NLL, BCEWithLogits, CrossEntropy, Loss
from hallmark.tasks.ml.config.models import Model
from hallmark.tasks.ml.models import class_probabilities

_NO_CLASS = -100
"""torch's own default for an ignored class: none bears this index."""


def build(loss: Loss, reduction: str | None = None) -> nn.Module:
    """Build torch's module for `loss`, on the CPU.

    Called with what the network ends in, `(N, U) float32`, and `targets` of the rows' classes, it returns what
    `reduction`, or else `loss.reduction`, says: one number, or one a row (`none`; one a unit for losses on several
    units).
    """
    how = reduction or loss.reduction
    match loss:
        case CrossEntropy():
            return nn.CrossEntropyLoss(
                weight=_factors(loss.weight),
                ignore_index=_ignored(loss),
                label_smoothing=loss.label_smoothing,
                reduction=how,
            )
        case NLL():
            return nn.NLLLoss(weight=_factors(loss.weight), ignore_index=_ignored(loss), reduction=how)
        case BCE():
            return nn.BCELoss(weight=_factors(loss.weight), reduction=how)
        case BCEWithLogits():
            factors, positive = _factors(loss.weight), _factors(loss.pos_weight)
            return nn.BCEWithLogitsLoss(weight=factors, pos_weight=positive, reduction=how)
        case MSE():
            return nn.MSELoss(reduction=how)


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
    return (y[:, None] if units == 1 else functional.one_hot(y, units)).to(torch.get_default_dtype())


def rows(loss: Loss, model: Model, logits: Tensor, target: Tensor) -> Tensor:
    """The loss of each row, summed over its units, of M networks at once: their rows lie as columns.

    Torch's mean of a batch is the sum of these, divided by the sum of its rows' `masses`.

    Args:
        loss: which.
        model: says what the logits become before.
        logits: `(M, U, R)`.
        target: `targets` of the rows, `(M, R)` or `(M, R, U)`, or with 1 for M where all networks see the same.

    Returns:
        `(M, R) float32`.
    """
    given = class_probabilities.activate(logits, model)
    target = target.expand(len(logits), *target.shape[1:])
    if not target.is_floating_point():
        return _value(loss, "none", given, target)
    each = _value(loss, "none", given.mT, target)
    if isinstance(loss, BCE):
        each = each.masked_fill(logits.mT.isnan(), torch.nan)
    return each.sum(-1)


def masses(loss: Loss, target: Tensor) -> Tensor:
    """What each row adds to that by which torch's mean divides: its factor, or its units.

    `targets`, `(..., R)` class indices or `(..., R, U)`, to `(..., R) float32`.
    """
    if target.is_floating_point():
        return torch.full(target.shape[:-1], float(target.shape[-1]), device=target.device)
    ones = torch.ones(target.shape, device=target.device)
    if isinstance(loss, CrossEntropy | NLL):
        if loss.weight is not None:
            ones = _on(loss.weight, target.device)[target]
        if loss.ignore_index is not None:
            ones = ones * (target != loss.ignore_index)
    return ones


def mean(loss: Loss, model: Model, logits: Tensor, target: Tensor) -> float:
    """Torch's mean of the loss over rows, whatever `loss.reduction` says."""
    return (rows(loss, model, logits.mT[None], target[None]).sum() / masses(loss, target).sum()).item()


def wanted(loss: Loss, model: Model, target: Tensor, units: int) -> Tensor:
    """What `slope` takes, from `targets` of the rows: `(N,)` or `(N, U)` to `(..., N)`, the rows last.

    For plain cross-entropy on logits the shares that are wanted, `(U, N) float32`; else the targets themselves.
    """
    if is_plain(loss, model):
        shares = torch.zeros((*target.shape[:-1], units, target.shape[-1]), device=target.device)
        return shares.scatter_(-2, target[..., None, :], 1.0)
    return target if target.dim() == 1 else target.mT


def slope(loss: Loss, model: Model) -> Callable[[Tensor, Tensor], tuple[Tensor, float]]:
    """The derivative of a batch's loss by the logits, for one network or for several on the same rows or their own.

    Returns:
        A function of logits, `(U, B)`, or `(M, U, B)` of M networks, each with a loss of its own, and of what is
        `wanted`, of one batch that all share, or `(M, ..., B)` of each network's own. It gives what is shaped as the
        logits, and a number by which that is still to be multiplied: whoever uses it multiplies anyway.
    """
    if not is_plain(loss, model):
        return partial(_by_autograd, loss, model)
    return _mean_of_softmax if loss.reduction == "mean" else _sum_of_softmax


def _sum_of_softmax(logits: Tensor, wanted: Tensor) -> tuple[Tensor, float]:
    # Bishop, Pattern Recognition and Machine Learning, 4.109: autograd takes five times as long for it.
    return logits.softmax(-2).sub_(wanted), 1.0


def _mean_of_softmax(logits: Tensor, wanted: Tensor) -> tuple[Tensor, float]:
    return logits.softmax(-2).sub_(wanted), 1 / logits.shape[-1]


def is_plain(loss: Loss, model: Model) -> bool:
    """Whether it is cross-entropy of logits and nothing more."""
    if not isinstance(loss, CrossEntropy) or loss.weight or loss.label_smoothing or loss.ignore_index is not None:
        return False
    return model.output == "logits"


def _by_autograd(loss: Loss, model: Model, logits: Tensor, wanted: Tensor) -> tuple[Tensor, float]:
    several = logits.view(-1, *logits.shape[-2:])
    rows = several.mT.flatten(0, 1)
    target = wanted if wanted.is_floating_point() else wanted[..., None, :]
    target = target.expand(len(several), *target.shape[-2:]).mT.flatten(0, 1)
    if not wanted.is_floating_point():
        target = target[:, 0]
    how = loss.reduction if len(several) == 1 else "sum"
    with torch.inference_mode(mode=False), torch.enable_grad():
        # Copied: what was made in inference mode takes no part in autograd.
        rows, target = rows.clone().requires_grad_(), target.clone()
        value = _value(loss, how, class_probabilities.activate(rows, model), target)
        found = torch.autograd.grad(value, rows)[0].view_as(several.mT).mT
    if how != loss.reduction:
        found = found / masses(loss, target).view(len(several), 1, -1).sum(2, keepdim=True)
    return found.view_as(logits), 1.0


def _value(loss: Loss, reduction: str, given: Tensor, target: Tensor) -> Tensor:
    if isinstance(loss, BCE):
        # Torch raises an error of its own where a network has diverged; others beside it may not have.
        given = given.masked_fill(given.isnan(), 0.5)
    found: Tensor = _criterion(loss, reduction, given.device)(given, target)
    return found


@cache
def _criterion(loss: Loss, reduction: str, device: torch.device) -> nn.Module:
    return build(loss, reduction).to(device)


@cache
def _on(factors: tuple[float, ...], device: torch.device) -> Tensor:
    # Once: to bring them to a GPU waits for it.
    return torch.tensor(factors, device=device)


def _factors(factors: tuple[float, ...] | None) -> Tensor | None:
    return None if factors is None else torch.tensor(factors)


def _ignored(loss: CrossEntropy | NLL) -> int:
    return _NO_CLASS if loss.ignore_index is None else loss.ignore_index
