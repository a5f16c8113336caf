"""What one update is: from a batch to logits, gradient and new weights."""

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from hallmark.tasks.ml.config.experiment import Training
from hallmark.tasks.ml.config.models import Model
from hallmark.tasks.ml.models import class_probabilities
from hallmark.tasks.ml.training.optim import gradients, losses, optimizers
from hallmark.tasks.ml.training.optim.optimizers import Number

GRADIENT_TOLERANCE = 1e-4
"""lbfgs has converged where no derivative of the loss per row exceeds this, scikit-learn's default; it goes on while
float32 still finds a lower loss."""
_HISTORY = 100
"""Updates that lbfgs remembers: scikit-learn's models this small are fitted in fewer."""


class Learner(Protocol):
    """Networks, and what updates them."""

    weights: list[Tensor]
    """Each `(M, n)`: of M networks."""
    ended: str
    """Why no further update changes anything, if so."""
    needs_autograd: bool
    """Whether torch's inference mode, which saves a third of a small step, is out of the question."""

    def predict(self, x: Tensor) -> Tensor:
        """Rows to logits, `(U, B)` or `(M, U, B)`."""
        ...

    def wanted(self, target: Tensor, units: int) -> Tensor:
        """What `step` takes, from `losses.targets` of rows: the rows last."""
        ...

    def step(self, x: Tensor, wanted: Tensor, numbers: tuple[Number, ...]) -> Tensor:
        """Update once, from rows and what is `wanted` of them. Returns the logits as they were before."""
        ...

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """What is remembered beside the weights, for a checkpoint: tensors, and what JSON can hold."""
        ...

    def restore(self, tensors: dict[str, Tensor], rest: Any) -> None:  # noqa: ANN401 - what JSON held
        """Take up what `state` gave."""
        ...


class ByGradient:
    """One network, or several in one, updated along a gradient."""

    ended = ""

    def __init__(self, gradient: gradients.Gradient, optimizer: optimizers.Optimizer, model: Model) -> None:
        """Join a network's gradient with the rule that uses it."""
        self.weights = gradient.weights
        self.predict = gradient.predict
        self.needs_autograd = gradient.needs_autograd
        self._gradient = gradient
        self._optimizer = optimizer
        self._loss = optimizer.training.loss
        self._model = model
        self._slope = losses.slope(self._loss, model)
        self._descends = optimizer.is_plain
        self._known: tuple[Number, Number] = 1.0, 1.0
        self._known_for: tuple[float, float] | None = None

    def wanted(self, target: Tensor, units: int) -> Tensor:
        """See `losses.wanted`."""
        return losses.wanted(self._loss, self._model, target, units)

    def step(self, x: Tensor, wanted: Tensor, numbers: tuple[Number, ...]) -> Tensor:
        """Update once. Returns the logits as they were before."""
        logits = self._gradient.forward(x)
        slope, share = self._slope(logits, wanted)
        if self._descends:
            self._gradient.descend(slope, *self._numbers(numbers[0], share))
        else:
            self._gradient.backward(slope if share == 1 else slope.mul_(share))
            self._optimizer.step(numbers)
        return logits

    def _numbers(self, factor: Number, share: float) -> tuple[Number, Number]:
        """By what the gradient is multiplied in a plain step, and the weights before."""
        if (factor, share) != self._known_for:
            rate = self._optimizer.lr * factor
            self._known = rate * share, 1 - rate * self._optimizer.decay if self._optimizer.decays else 1.0
            # On a GPU the factor is a tensor, whose content changes within a graph.
            self._known_for = (factor, share) if isinstance(factor, float) else None
        return self._known

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """What the optimizer remembers."""
        named = self._optimizer.state.items()
        return {f"{name}.{index}": tensor for name, tensors in named for index, tensor in enumerate(tensors)}, None

    def restore(self, tensors: dict[str, Tensor], rest: Any) -> None:  # noqa: ANN401, ARG002 - what JSON held
        """Take up what `state` gave."""
        for name, tensor in self.state()[0].items():
            tensor.copy_(tensors[name])


class ByLineSearch:
    """One network, updated by torch's own lbfgs: one iteration a step, with a strong Wolfe line search."""

    def __init__(self, network: nn.Module, model: Model, training: Training) -> None:
        """Minimise the loss, and `training.l2 / 2 * (sum of squared weights, biases apart)` with it."""
        layout = gradients.AnyNetwork(network)
        self.weights, self.predict = layout.weights, layout.predict
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

    def wanted(self, target: Tensor, units: int) -> Tensor:  # noqa: ARG002 - a learner's shape
        """The targets, the rows last."""
        return target.mT if target.dim() > 1 else target

    def step(self, x: Tensor, wanted: Tensor, numbers: tuple[Number, ...]) -> Tensor:  # noqa: ARG002 - a learner's shape
        """Iterate once, evaluating loss and gradient as often as the line search needs."""
        target = wanted.mT if wanted.dim() > 1 else wanted
        first: list[tuple[Tensor, float]] = []

        @torch.enable_grad()
        def closure() -> Tensor:
            logits = self._network(x)
            loss = self._criterion(class_probabilities.activate(logits, self._model), target)
            objective: Tensor = loss + penalty(self._network, self._training.l2)
            self._optimizer.zero_grad()
            objective.backward()  # type: ignore[no-untyped-call]
            if not first:
                slope = max(cast(Tensor, parameter.grad).abs().max().item() for parameter in self._parameters)
                first.append((logits.detach(), slope))
            return objective

        before = self.weights[0].clone()
        self._optimizer.step(closure)  # type: ignore[no-untyped-call]
        logits, slope = first[0]
        if torch.equal(before, self.weights[0]):
            if self._training.loss.reduction == "sum":
                slope /= losses.masses(self._training.loss, target).sum().item()
            self.ended = "converged" if slope <= GRADIENT_TOLERANCE else "no step lowers the loss"
        return logits.t()

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """Everything that lbfgs remembers."""
        tensors: dict[str, Tensor] = {}
        rest: dict[str, Any] = {"ended": self.ended, "numbers": {}, "lists": {}}
        for name, value in self._optimizer.state[self._parameters[0]].items():
            match value:
                case Tensor():
                    tensors[name] = value
                case list() if name != "al":  # what an iteration writes down for itself
                    rest["lists"][name] = len(value)
                    tensors |= {f"{name}.{index}": item for index, item in enumerate(value)}
                case int() | float():
                    rest["numbers"][name] = value
        return tensors, rest

    def restore(self, tensors: dict[str, Tensor], rest: Any) -> None:  # noqa: ANN401 - what JSON held
        """Take up what `state` gave."""
        self.ended = rest["ended"]
        lists = {name: [tensors[f"{name}.{index}"] for index in range(count)] for name, count in rest["lists"].items()}
        single = {name: tensor for name, tensor in tensors.items() if "." not in name}
        self._optimizer.state[self._parameters[0]].update(single | lists | rest["numbers"])


def penalty(network: nn.Module, l2: float) -> Tensor | float:
    """`l2 / 2 * (sum of squared weights)`, biases apart, as scikit-learn's LogisticRegression has it."""
    if not l2:
        return 0.0
    squares = [parameter.square().sum() for name, parameter in network.named_parameters() if name.endswith("weight")]
    return torch.stack(squares).sum() * (l2 / 2)
