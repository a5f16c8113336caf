"""Losses of an experiment: torch's modules, and their values and gradients for several networks at once."""

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from hallmark.tasks.ml.config.losses import BCE, MSE, NLL, BCEWithLogits, CrossEntropy, Loss
from hallmark.tasks.ml.config.models import Model
from hallmark.tasks.ml.models import class_probabilities

_NO_CLASS = -100
"""torch's default index of an ignored class, which no class has."""


def build(loss: Loss, reduction: str | None = None) -> nn.Module:
    """Build torch's module for `loss`, on the CPU.

    The module takes activated logits, `(N, U) float32`, and `targets` of the rows' classes. It returns one number, or
    with reduction 'none' one number per row (per unit, for losses on several units). `reduction` overrides
    `loss.reduction`.
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
    """Return the targets of the loss: class indices, or 0 and 1 for each output unit.

    Args:
        loss: determines which of the two.
        y: `(N,) int64` class index.
        units: number of the network's outputs, U.

    Returns:
        `(N,) int64` for cross_entropy and nll, else `(N, U) float32`.
    """
    if isinstance(loss, CrossEntropy | NLL):
        return y
    return (y[:, None] if units == 1 else functional.one_hot(y, units)).to(torch.get_default_dtype())


def row_losses(loss: Loss, model: Model, logits: Tensor, target: Tensor) -> Tensor:
    """Return the loss of each row, summed over its units, for M networks at once.

    Torch's mean over a batch is the sum of these, divided by the sum of the `row_weights`.

    Args:
        loss: the loss.
        model: determines the activation before the loss.
        logits: `(M, U, R)`.
        target: `targets` of the rows, `(M, R)` or `(M, R, U)`; M may be 1 if all networks see the same rows.

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


def row_weights(loss: Loss, target: Tensor) -> Tensor:
    """Return each row's share of the divisor of torch's mean: the weight of its class, or its number of units.

    From `targets`, `(..., R)` class indices or `(..., R, U)`, to `(..., R) float32`.
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


def mean_loss(loss: Loss, model: Model, logits: Tensor, target: Tensor) -> float:
    """Return torch's mean of the loss over rows, independent of `loss.reduction`."""
    return (row_losses(loss, model, logits.mT[None], target[None]).sum() / row_weights(loss, target).sum()).item()


def gradient_targets(loss: Loss, model: Model, target: Tensor, units: int) -> Tensor:
    """Convert `targets` of rows, `(N,)` or `(N, U)`, to what `logit_gradient` takes, `(..., N)`: the rows last.

    One-hot probabilities, `(U, N) float32`, for plain cross-entropy on logits; else the targets themselves.
    """
    if is_plain_cross_entropy(loss, model):
        one_hot = torch.zeros((*target.shape[:-1], units, target.shape[-1]), device=target.device)
        return one_hot.scatter_(-2, target[..., None, :], 1.0)
    return target if target.dim() == 1 else target.mT


def logit_gradient(loss: Loss, model: Model) -> Callable[[Tensor, Tensor], tuple[Tensor, float]]:
    """Return a function that computes the gradient of a batch's loss with respect to the logits.

    Returns:
        A function of logits, `(U, B)`, or `(M, U, B)` for M networks with a loss each, and of the `gradient_targets` of
        one batch that all networks share, or `(M, ..., B)` of each network's own batch. It returns a tensor shaped like
        the logits, and a number: the gradient is their product. The caller multiplies by a rate anyway.
    """
    if not is_plain_cross_entropy(loss, model):
        return partial(_by_autograd, loss, model)
    return _mean_of_softmax if loss.reduction == "mean" else _sum_of_softmax


def _sum_of_softmax(logits: Tensor, targets: Tensor) -> tuple[Tensor, float]:
    # Bishop, Pattern Recognition and Machine Learning, 4.109: autograd takes five times as long.
    return logits.softmax(-2).sub_(targets), 1.0


def _mean_of_softmax(logits: Tensor, targets: Tensor) -> tuple[Tensor, float]:
    return logits.softmax(-2).sub_(targets), 1 / logits.shape[-1]


def is_plain_cross_entropy(loss: Loss, model: Model) -> bool:
    """Return whether the loss is cross-entropy on logits, without class weights, smoothing or an ignored class."""
    if not isinstance(loss, CrossEntropy) or loss.weight or loss.label_smoothing or loss.ignore_index is not None:
        return False
    return model.output == "logits"


def _by_autograd(loss: Loss, model: Model, logits: Tensor, targets: Tensor) -> tuple[Tensor, float]:
    several = logits.view(-1, *logits.shape[-2:])
    rows = several.mT.flatten(0, 1)
    target = targets if targets.is_floating_point() else targets[..., None, :]
    target = target.expand(len(several), *target.shape[-2:]).mT.flatten(0, 1)
    if not targets.is_floating_point():
        target = target[:, 0]
    how = loss.reduction if len(several) == 1 else "sum"
    with torch.inference_mode(mode=False), torch.enable_grad():
        # Copied: tensors made in inference mode cannot be used by autograd.
        rows, target = rows.clone().requires_grad_(), target.clone()
        value = _value(loss, how, class_probabilities.activate(rows, model), target)
        gradient = torch.autograd.grad(value, rows)[0].view_as(several.mT).mT
    if how != loss.reduction:
        gradient = gradient / row_weights(loss, target).view(len(several), 1, -1).sum(2, keepdim=True)
    return gradient.view_as(logits), 1.0


def _value(loss: Loss, reduction: str, activated: Tensor, target: Tensor) -> Tensor:
    if isinstance(loss, BCE):
        # torch raises an error if one network has diverged; the others in the stack may not have.
        activated = activated.masked_fill(activated.isnan(), 0.5)
    value: Tensor = _criterion(loss, reduction, activated.device)(activated, target)
    return value


@cache
def _criterion(loss: Loss, reduction: str, device: torch.device) -> nn.Module:
    return build(loss, reduction).to(device)


@cache
def _on(factors: tuple[float, ...], device: torch.device) -> Tensor:
    # Cached: copying to a GPU waits for it.
    return torch.tensor(factors, device=device)


def _factors(factors: tuple[float, ...] | None) -> Tensor | None:
    return None if factors is None else torch.tensor(factors)


def _ignored(loss: CrossEntropy | NLL) -> int:
    return _NO_CLASS if loss.ignore_index is None else loss.ignore_index
