"""One update of the weights: from a batch to logits, gradients and new weights."""

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from hallmark.tasks.ml.config.experiment import Training
from hallmark.tasks.ml.config.models import Model
from hallmark.tasks.ml.models import class_probabilities
from hallmark.tasks.ml.training.optim import gradients, losses, optimizers
from hallmark.tasks.ml.training.optim.optimizers import Number

GRADIENT_TOLERANCE = 1e-4
"""lbfgs has converged if no derivative of the mean loss exceeds this: scikit-learn's default. It stops only when a step
in float32 no longer lowers the loss."""
_HISTORY = 100
"""Number of past updates that lbfgs keeps: models this small converge in fewer."""


class UpdateStep(Protocol):
    """One or more networks, and the rule that updates their weights."""

    weights: list[Tensor]
    """Weights of M networks, each `(M, n)`."""
    ended: str
    """Reason why further updates would change nothing; empty while they still change the weights."""
    needs_autograd: bool
    """Whether it uses autograd, so that inference mode, which saves a third of a small update, is not possible."""

    def predict(self, x: Tensor) -> Tensor:
        """Compute logits of rows, `(U, B)` or `(M, U, B)`."""
        ...

    def prepare_targets(self, target: Tensor, units: int) -> Tensor:
        """Convert `losses.targets` of rows to what `step` takes, with the rows as the last dimension."""
        ...

    def step(self, x: Tensor, targets: Tensor, factors: tuple[Number, ...]) -> Tensor:
        """Update the weights once and return the logits before the update.

        Args:
            x: the rows of a batch.
            targets: `prepare_targets` of these rows.
            factors: `optimizers.update_factors` of this update.
        """
        ...

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """Return the state besides the weights for a checkpoint: tensors, and JSON values."""
        ...

    def restore(self, tensors: dict[str, Tensor], rest: Any) -> None:  # noqa: ANN401 - JSON values
        """Restore a `state`."""
        ...


class GradientStep:
    """Update one network, or several at once, by sgd, adam or adamw."""

    ended = ""

    def __init__(self, network: gradients.DifferentiableNetwork, optimizer: optimizers.Optimizer, model: Model) -> None:
        """Join networks with the optimizer that uses their gradients."""
        self.weights = network.weights
        self.predict = network.predict
        self.needs_autograd = network.needs_autograd
        self._network = network
        self._optimizer = optimizer
        self._loss = optimizer.training.loss
        self._model = model
        self._logit_gradient = losses.logit_gradient(self._loss, model)
        self._is_plain_sgd = optimizer.is_plain
        self._rate_and_decay: tuple[Number, Number] = 1.0, 1.0
        self._computed_for: tuple[float, float] | None = None

    def prepare_targets(self, target: Tensor, units: int) -> Tensor:
        """Convert targets by `losses.gradient_targets`."""
        return losses.gradient_targets(self._loss, self._model, target, units)

    def step(self, x: Tensor, targets: Tensor, factors: tuple[Number, ...]) -> Tensor:
        """Update the weights once and return the logits before the update."""
        logits = self._network.forward(x)
        gradient, scale = self._logit_gradient(logits, targets)
        if self._is_plain_sgd:
            self._network.sgd_step(gradient, *self._sgd_factors(factors[0], scale))
        else:
            self._network.backward(gradient if scale == 1 else gradient.mul_(scale))
            self._optimizer.step(factors)
        return logits

    def _sgd_factors(self, factor: Number, scale: float) -> tuple[Number, Number]:
        """Return the factors of plain sgd: of the gradient, and of the weights before the update."""
        if (factor, scale) != self._computed_for:
            rate = self._optimizer.lr * factor
            self._rate_and_decay = rate * scale, 1 - rate * self._optimizer.decay if self._optimizer.decays else 1.0
            # On a GPU the factor is a tensor whose content changes between replays of a graph.
            self._computed_for = (factor, scale) if isinstance(factor, float) else None
        return self._rate_and_decay

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """Return the optimizer's tensors."""
        named = self._optimizer.state.items()
        return {f"{name}.{index}": tensor for name, tensors in named for index, tensor in enumerate(tensors)}, None

    def restore(self, tensors: dict[str, Tensor], rest: Any) -> None:  # noqa: ANN401, ARG002 - JSON values
        """Restore a `state`."""
        for name, tensor in self.state()[0].items():
            tensor.copy_(tensors[name])


class LBFGSStep:
    """Update one network by torch's own lbfgs: one iteration per update, with a strong Wolfe line search."""

    def __init__(self, network: nn.Module, model: Model, training: Training) -> None:
        """Minimise the loss plus `training.l2 / 2 * (sum of squared weights, without biases)`."""
        laid_out = gradients.AutogradNetwork(network)
        self.weights, self.predict = laid_out.weights, laid_out.predict
        self.ended, self.needs_autograd = "", True
        self._network, self._model, self._training = network, model, training
        self._parameters = list(network.parameters())
        self._optimizer = torch.optim.LBFGS(
            self._parameters,
            training.lr,
            max_iter=1,
            tolerance_grad=0,
            tolerance_change=0,
            history_size=_HISTORY,
            line_search_fn="strong_wolfe",
        )
        self._criterion = losses.build(training.loss).to(self.weights[0].device)

    def prepare_targets(self, target: Tensor, units: int) -> Tensor:  # noqa: ARG002 - signature of the protocol
        """Return the targets with the rows as the last dimension."""
        return target.mT if target.dim() > 1 else target

    def step(self, x: Tensor, targets: Tensor, factors: tuple[Number, ...]) -> Tensor:  # noqa: ARG002 - as above
        """Run one iteration, which evaluates loss and gradient as often as the line search needs."""
        target = targets.mT if targets.dim() > 1 else targets
        first: list[tuple[Tensor, float]] = []

        @torch.enable_grad()
        def closure() -> Tensor:
            logits = self._network(x)
            loss = self._criterion(class_probabilities.activate(logits, self._model), target)
            objective: Tensor = loss + penalty(self._network, self._training.l2)
            self._optimizer.zero_grad()
            objective.backward()  # type: ignore[no-untyped-call]
            if not first:
                largest = max(cast(Tensor, parameter.grad).abs().max().item() for parameter in self._parameters)
                first.append((logits.detach(), largest))
            return objective

        before = self.weights[0].clone()
        self._optimizer.step(closure)  # type: ignore[no-untyped-call]
        logits, largest = first[0]
        if torch.equal(before, self.weights[0]):
            if self._training.loss.reduction == "sum":
                largest /= losses.row_weights(self._training.loss, target).sum().item()
            self.ended = "converged" if largest <= GRADIENT_TOLERANCE else "no step lowers the loss"
        return logits.t()

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """Return the state of torch's lbfgs."""
        tensors: dict[str, Tensor] = {}
        rest: dict[str, Any] = {"ended": self.ended, "numbers": {}, "lists": {}}
        for name, value in self._optimizer.state[self._parameters[0]].items():
            match value:
                case Tensor():
                    tensors[name] = value
                case list() if name != "al":  # scratch values of one iteration
                    rest["lists"][name] = len(value)
                    tensors |= {f"{name}.{index}": item for index, item in enumerate(value)}
                case int() | float():
                    rest["numbers"][name] = value
        return tensors, rest

    def restore(self, tensors: dict[str, Tensor], rest: Any) -> None:  # noqa: ANN401 - JSON values
        """Restore a `state`."""
        self.ended = rest["ended"]
        lists = {name: [tensors[f"{name}.{index}"] for index in range(count)] for name, count in rest["lists"].items()}
        single = {name: tensor for name, tensor in tensors.items() if "." not in name}
        self._optimizer.state[self._parameters[0]].update(single | lists | rest["numbers"])


def penalty(network: nn.Module, l2: float) -> Tensor | float:
    """Return `l2 / 2 * (sum of squared weights)` without biases, as in scikit-learn's LogisticRegression."""
    if not l2:
        return 0.0
    squares = [parameter.square().sum() for name, parameter in network.named_parameters() if name.endswith("weight")]
    return torch.stack(squares).sum() * (l2 / 2)
