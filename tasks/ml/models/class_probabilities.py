"""From a network's logits to what the loss is given, to labels and to probabilities."""

import torch
from torch import Tensor

from hallmark.tasks.ml.config.losses import Loss
from hallmark.tasks.ml.config.models import Model


def activate(logits: Tensor, model: Model) -> Tensor:
    """What the network ends in, and the loss is given: `(N, U)` to `(N, U)`, or `(M, U, R)` to the same."""
    match model.output:
        case "logits":
            return logits
        case "sigmoid":
            return logits.sigmoid()
        case "softmax":
            return logits.softmax(1)
        case "log_softmax":
            return logits.log_softmax(1)


def labels(logits: Tensor) -> Tensor:
    """The class index that the logits point to: `(N, U)` to `(N,) int64`, or `(M, U, R)` to `(M, R)`.

    Of several largest the first, as `argmax` has it. Logits must be finite.
    """
    units = logits.shape[1]
    if units == 1:
        return (logits[:, 0] > 0).long()
    # `argmax` and `max` walk columns one number at a time; this takes a sixth of their time. The largest become 1 and
    # all others 0; and of the largest the first ranks highest.
    ranks = torch.arange(units, 0, -1.0, device=logits.device).view(units, *(1,) * (logits.dim() - 2))
    is_largest = (logits - logits.amax(1, keepdim=True)).sign_().add_(1)
    return units - is_largest.mul_(ranks).amax(1).long()


def probabilities(logits: Tensor, model: Model, loss: Loss) -> Tensor:
    """The probability of each class: `(N, U)` to `(N, C)`, rows summing to one.

    Softmax over what a cross-entropy sees. One sigmoid gives `[sigmoid(-z), sigmoid(z)]`; independent sigmoids are
    divided by their sum, written as a softmax of logarithms, which holds where all of them underflow.
    """
    if loss.kind in ("cross_entropy", "nll"):
        return activate(logits, model).softmax(1)
    if model.output == "softmax":
        return logits.softmax(1)
    if logits.shape[1] == 1:
        return torch.cat([-logits, logits], dim=1).sigmoid()
    # The logarithm of a sigmoid, written out: onnxruntime's own sigmoid is cut off at -18, which a share would show.
    return (logits.clamp(max=0) - (-logits.abs()).exp().log1p()).softmax(1)
