"""From logits to activated outputs, labels and class probabilities."""

import torch
from torch import Tensor

from hallmark.tasks.ml.config.losses import Loss
from hallmark.tasks.ml.config.models import Model


def activate(logits: Tensor, model: Model) -> Tensor:
    """Apply the function `model.output`, as the loss expects: `(N, U)` to `(N, U)`, or `(M, U, R)` to `(M, U, R)`."""
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
    """Return the predicted class indices: `(N, U)` to `(N,) int64`, or `(M, U, R)` to `(M, R)`.

    If several logits are largest, the first one counts, as in `argmax`. Logits must be finite.
    """
    units = logits.shape[1]
    if units == 1:
        return (logits[:, 0] > 0).long()
    # Six times as fast as `argmax` and `max`, which read columns one number at a time. The largest logits become 1, all
    # others 0, and ranks select the first of the largest.
    ranks = torch.arange(units, 0, -1.0, device=logits.device).view(units, *(1,) * (logits.dim() - 2))
    is_largest = (logits - logits.amax(1, keepdim=True)).sign_().add_(1)
    return units - is_largest.mul_(ranks).amax(1).long()


def probabilities(logits: Tensor, model: Model, loss: Loss) -> Tensor:
    """Return the probability of each class: `(N, U)` to `(N, C)`, rows summing to one.

    Losses of the cross-entropy family: softmax of the activated outputs. One sigmoid: `[sigmoid(-z), sigmoid(z)]`.
    Several sigmoids: divided by their sum, computed as a softmax of their logarithms so that it holds when all of them
    underflow.
    """
    if loss.kind in ("cross_entropy", "nll"):
        return activate(logits, model).softmax(1)
    if model.output == "softmax":
        return logits.softmax(1)
    if logits.shape[1] == 1:
        return torch.cat([-logits, logits], dim=1).sigmoid()
    # The logarithm of a sigmoid, written out: onnxruntime's sigmoid is clipped at -18, which would change the result.
    return (logits.clamp(max=0) - (-logits.abs()).exp().log1p()).softmax(1)
