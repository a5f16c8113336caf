"""Losses: torch's own, from the experiment's words."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.ml import outputs
from tasks.ml.config import BCE, MSE, NLL, BCEWithLogits, CrossEntropy, Loss, Model

_ATEN = torch.ops.aten

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
    return y[:, None].float() if units == 1 else functional.one_hot(y, units).float()


def rows(loss: Loss, model: Model, logits: Tensor, target: Tensor) -> Tensor:
    """The loss of each row, summed over its units: `(N, U)` and the rows' `targets` to `(N,)`.

    Torch's mean of a batch is the sum of these, divided by the sum of its rows' `masses`.
    """
    each: Tensor = _criterion(loss, "none", logits.device)(outputs.activate(logits, model), target)
    return each if each.dim() == 1 else each.sum(1)


def masses(loss: Loss, target: Tensor) -> Tensor:
    """What each row adds to that by which torch's mean divides: `(N,) float32`; its factor, or its units."""
    if target.is_floating_point():
        return torch.full((len(target),), float(target.shape[1]), device=target.device)
    ones = torch.ones(len(target), device=target.device)
    if isinstance(loss, CrossEntropy | NLL):
        if loss.weight is not None:
            ones = torch.tensor(loss.weight, device=target.device)[target]
        if loss.ignore_index is not None:
            ones = ones * (target != loss.ignore_index)
    return ones


def mean(loss: Loss, model: Model, logits: Tensor, target: Tensor) -> float:
    """Torch's mean of the loss over rows, whatever `loss.reduction` says."""
    return (rows(loss, model, logits, target).sum() / masses(loss, target).sum()).item()


def slope(loss: Loss, model: Model, logits: Tensor, target: Tensor) -> Tensor:
    """The derivative of a batch's loss by the logits, for one network or for several on the same rows or their own.

    Args:
        loss: what is minimised, as `loss.reduction` says.
        model: what the network ends in.
        logits: `(B, U)`, or `(M, B, U)` of M networks, each with a loss of its own.
        target: `targets` of the rows, `(B,)` or `(B, U)`; those of M networks follow each other, `(M * B, ...)`.

    Returns:
        As `logits`. For one network bit for bit what torch's `backward` brings to the logits.
    """
    flat = logits.reshape(-1, logits.shape[-1])
    if is_plain(loss) and model.output == "logits":
        # What backward calls, without the graph around it, which costs as much again as the step.
        log_shares = flat.log_softmax(1)
        mean, count = loss.reduction == "mean", _count(logits.shape[-2], logits.device)
        by_share = _ATEN.nll_loss_backward(_one(logits.device), log_shares, target, None, 2 - mean, _NO_CLASS, count)
        found: Tensor = _ATEN._log_softmax_backward_data(by_share, log_shares, 1, log_shares.dtype)
    elif logits.dim() == 2:
        found = _by_autograd(_criterion(loss, loss.reduction, logits.device), model, flat, target)
    else:
        found = _by_autograd(_criterion(loss, "sum", logits.device), model, flat, target)
        if loss.reduction == "mean":
            mass = masses(loss, target).view(len(logits), -1).sum(1)
            found = (found.view_as(logits) / mass[:, None, None]).flatten(0, 1)
    return found.view_as(logits)


def is_plain(loss: Loss) -> bool:
    """Whether it is cross-entropy and nothing more."""
    return isinstance(loss, CrossEntropy) and not (loss.weight or loss.label_smoothing) and loss.ignore_index is None


def _by_autograd(criterion: nn.Module, model: Model, logits: Tensor, target: Tensor) -> Tensor:
    with torch.enable_grad():
        logits = logits.detach().requires_grad_()
        value = criterion(outputs.activate(logits, model), target)
    return torch.autograd.grad(value, logits)[0]


@cache
def _criterion(loss: Loss, reduction: str, device: torch.device) -> nn.Module:
    return build(loss, reduction).to(device)


@cache
def _one(device: torch.device) -> Tensor:
    return torch.ones((), device=device)


@cache
def _count(rows: int, device: torch.device) -> Tensor:
    return torch.tensor(float(rows), device=device)


def _factors(factors: tuple[float, ...] | None) -> Tensor | None:
    return None if factors is None else torch.tensor(factors)


def _ignored(loss: CrossEntropy | NLL) -> int:
    return _NO_CLASS if loss.ignore_index is None else loss.ignore_index
