"""The optimizers sgd, adam and adamw, for one network or for several with different hyperparameters.

Torch's own optimizers take one learning rate for a whole tensor; several networks in one tensor need one each. For one
network these are torch's formulas in torch's order, bit for bit. (lbfgs is torch's own, see `update_step`.)
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hallmark.tasks.ml.config.experiment import Training

Number = float | Tensor
"""One number for all networks, or `(M, 1)`: one for each."""

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Hyperparameters of adam and adamw: torch's defaults (Kingma and Ba, 2015)."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """An optimizer and its state."""

    training: Training
    """Names the optimizer; its hyperparameters are those below."""
    lr: Number
    momentum: Number
    decay: Number
    weights: list[Tensor]
    """Weights of M networks, each `(M, n)`. Updated in place."""
    gradients: list[Tensor]
    """Shaped like `weights`. Overwritten by `step`."""
    state: dict[str, list[Tensor]] = field(default_factory=dict)
    """Velocities or moments, each shaped like `weights`."""

    @property
    def is_plain(self) -> bool:
        """Whether this is sgd without momentum, which can update the weights without storing the gradient."""
        return self.training.optimizer == "sgd" and not _is_on(self.momentum)

    @property
    def decays(self) -> bool:
        """Whether there is weight decay."""
        return _is_on(self.decay)

    def step(self, factors: tuple[Number, ...]) -> None:
        """Update the weights once, with the `update_factors` of this update."""
        match self.training.optimizer:
            case "sgd":
                self._sgd(*factors)
            case "adam" | "adamw":
                self._adam(*factors)

    def _sgd(self, factor: Number) -> None:
        rate = self.lr * factor
        for index, (weight, gradient) in enumerate(zip(self.weights, self.gradients, strict=True)):
            if self.decays:
                _add(gradient, weight, self.decay)
            if _is_on(self.momentum):
                velocity = self.state["velocity"][index]
                velocity.mul_(self.momentum).add_(gradient)
                if self.training.nesterov:
                    _add(gradient, velocity, self.momentum)
                else:
                    gradient = velocity
            _add(weight, gradient, -rate)

    def _adam(self, factor: Number, correction1: Number, correction2: Number) -> None:
        rate = self.lr * factor
        moments = zip(self.state["mean"], self.state["square"], strict=True)
        for weight, gradient, (mean, square) in zip(self.weights, self.gradients, moments, strict=True):
            if self.decays:
                if self.training.optimizer == "adamw":
                    weight.mul_(1 - rate * self.decay)
                else:
                    _add(gradient, weight, self.decay)
            mean.lerp_(gradient, 1 - BETA1)
            square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
            spread = (square.sqrt() / correction2).add_(EPSILON)
            if isinstance(size := rate / correction1, float):
                weight.addcdiv_(mean, spread, value=-size)
            else:
                weight.sub_(mean.div(spread).mul_(size))


def build(
    training: Training, lr: Number, momentum: Number, decay: Number, weights: list[Tensor], gradients: list[Tensor]
) -> Optimizer:
    """Build the optimizer that `training` names, with its state set to zero."""
    names = {"sgd": ("velocity",) if _is_on(momentum) else (), "lbfgs": ()}.get(training.optimizer, ("mean", "square"))
    state = {name: [torch.zeros_like(weight) for weight in weights] for name in names}
    return Optimizer(training, lr, momentum, decay, weights, gradients, state)


def update_factors(training: Training, factor: float, updates: int) -> tuple[float, ...]:
    """Return the factors that `Optimizer.step` takes: of the learning rate and, for adam, the bias corrections.

    Args:
        training: names the optimizer.
        factor: factor of the learning rate; see `lr_schedules.factor`.
        updates: number of updates before this one.
    """
    if training.optimizer in ("adam", "adamw"):
        return factor, 1 - BETA1 ** (updates + 1), math.sqrt(1 - BETA2 ** (updates + 1))
    return (factor,)


def _is_on(number: Number) -> bool:
    return isinstance(number, Tensor) or number != 0


def _add(to: Tensor, what: Tensor, by: Number) -> None:
    """Compute `to += by * what` in place."""
    if isinstance(by, Tensor):
        to.addcmul_(what, by)
    else:
        to.add_(what, alpha=by)
