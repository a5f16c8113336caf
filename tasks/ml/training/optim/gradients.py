"""Networks laid out for training: all weights in few flat tensors, and what takes a batch to their gradients.

A perceptron's gradient is written out, for one network or for M at once; any other network's comes of autograd. Both
are given the derivative of the loss by the logits (`losses.slope`). Logits and all that lies before them are kept with
the rows of a batch as columns, `(U, B)`: a product of weights and rows takes half the time of rows and weights. Rows
may be pixels as they are, and `unit` what they are still to be divided by: within a product that costs nothing.
"""

from collections.abc import Sequence
from functools import cache
from typing import Protocol

import torch
from torch import Tensor, nn

from hallmark.tasks.ml.training.optim.optimizers import Number


class Gradient(Protocol):
    """A network whose weights and their gradients lie in flat tensors."""

    weights: list[Tensor]
    """Each `(M, n)`; M is 1 for one network."""
    gradients: list[Tensor]
    """As `weights`."""
    needs_autograd: bool
    """Whether it takes part in autograd, which inference mode rules out."""

    def forward(self, x: Tensor) -> Tensor:
        """Rows, `(B, F)` or `(M, B, F)`, to logits: `(U, B)` of one network, `(M, U, B)` of M."""
        ...

    def predict(self, x: Tensor) -> Tensor:
        """As `forward`, but nothing is kept for `backward`."""
        ...

    def backward(self, slope: Tensor) -> None:
        """From the derivative by the logits of the last `forward`, shaped as they are, write `gradients`."""
        ...

    def descend(self, slope: Tensor, rate: Number, kept: Number) -> None:
        """Make of the weights `kept * weights - rate * gradient`: what is not written down costs less."""
        ...


class Perceptron:
    """One network of linear layers with ReLU between them."""

    needs_autograd = False

    def __init__(self, network: nn.Sequential, unit: float = 1.0) -> None:
        """Move the network's parameters into one flat tensor; it computes with what is trained here."""
        flat = _flatten(network)
        self.weights, self.gradients = [flat], [torch.empty_like(flat)]
        parameters = list(network.parameters())
        self._shares = [1 / unit, *[1.0] * (len(parameters) // 2 - 1)]
        self._layers = _pairs([parameter.detach() for parameter in parameters])
        self._slopes = _pairs(_cut(self.gradients[0][0], parameters))
        self._seen: list[Tensor] = []
        """What each layer was given by the last `forward`, `(B, ...)`."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, F)` to `(U, B)`."""
        z, self._seen = x.t(), [x]
        for index, ((weight, bias), share) in enumerate(zip(self._layers, self._shares, strict=True)):
            if index:
                self._seen.append(z.relu_().t())
            z = torch.addmm(bias, weight, z, alpha=share)
        return z

    def predict(self, x: Tensor) -> Tensor:
        """`(B, F)` to `(U, B)`."""
        logits, self._seen = self.forward(x), []
        return logits

    def backward(self, slope: Tensor) -> None:
        """Write the gradient of the last `forward`'s weights."""
        layers = zip(self._slopes, self._by_layer(slope), self._seen, self._shares, strict=True)
        for (by_weight, by_bias), own, seen, share in layers:
            torch.addmm(by_weight, own, seen, beta=0, alpha=share, out=by_weight)
            torch.sum(own, 1, keepdim=True, out=by_bias)

    def descend(self, slope: Tensor, rate: Number, kept: Number) -> None:
        """Make of the weights `kept * weights - rate * (gradient of the last forward)`."""
        slopes, ones = self._by_layer(slope), _ones(slope.shape[-1], slope.dtype, slope.device)
        _shrink(self.weights, kept)
        for (weight, bias), own, seen, share in zip(self._layers, slopes, self._seen, self._shares, strict=True):
            scaled, factor = _scaled(own, rate)
            weight.addmm_(scaled, seen, alpha=factor * share)
            bias.addmm_(scaled, ones, alpha=factor)

    def _by_layer(self, slope: Tensor) -> list[Tensor]:
        """The derivative by what each layer gives, first to last."""
        found = [slope]
        for index in range(len(self._layers) - 1, 0, -1):
            weight, seen = self._layers[index][0], self._seen[index].t()
            found.insert(0, _through_relu(torch.mm(weight.t(), found[0]), seen))
        return found


class Perceptrons:
    """M networks of equal shape, linear layers with ReLU between them, each computing with its own weights."""

    needs_autograd = False

    def __init__(self, networks: Sequence[nn.Sequential], unit: float = 1.0) -> None:
        """Move the networks' parameters into one tensor a layer; they compute with what is trained here."""
        same = list(zip(*(network.parameters() for network in networks), strict=True))
        stacked = [torch.stack([parameter.detach() for parameter in parameters]) for parameters in same]
        for parameters, tensor in zip(same, stacked, strict=True):
            for parameter, part in zip(parameters, tensor, strict=True):
                parameter.data = part
        slopes = [torch.empty_like(tensor) for tensor in stacked]
        self.weights, self.gradients = ([tensor.flatten(1) for tensor in tensors] for tensors in (stacked, slopes))
        self._layers, self._slopes = _pairs(stacked), _pairs(slopes)
        # A view takes a microsecond, and a step needs these again and again.
        self._flat = [(weight.flatten(0, 1), bias.flatten(0, 1)) for weight, bias in self._layers]
        self._shares = [1 / unit, *[1.0] * (len(self._layers) - 1)]
        self._seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """`(B, F)` that all share, or `(M, B, F)`, to `(M, U, B)`."""
        z, self._seen = x.mT, []
        for (weight, bias), (flat, column), share in zip(self._layers, self._flat, self._shares, strict=True):
            if self._seen:
                z.relu_()
            self._seen.append(z)
            if z.dim() == 2:
                z = torch.addmm(column, flat, z, alpha=share).view(len(weight), -1, z.shape[1])
            else:
                z = torch.baddbmm(bias, weight, z, alpha=share)
        return z

    def predict(self, x: Tensor) -> Tensor:
        """`(B, F)` that all share, or `(M, B, F)`, to `(M, U, B)`."""
        logits, self._seen = self.forward(x), []
        return logits

    def backward(self, slope: Tensor) -> None:
        """Write the gradients of the last `forward`'s weights."""
        layers = zip(self._slopes, self._by_layer(slope), self._seen, self._shares, strict=True)
        for (by_weight, by_bias), own, seen, share in layers:
            if seen.dim() == 2:
                flat = by_weight.view(-1, len(seen))
                torch.addmm(flat, own.flatten(0, 1), seen.t(), beta=0, alpha=share, out=flat)
            else:
                torch.baddbmm(by_weight, own, seen.mT, beta=0, alpha=share, out=by_weight)
            torch.sum(own, 2, keepdim=True, out=by_bias)

    def descend(self, slope: Tensor, rate: Number, kept: Number) -> None:
        """Make of the weights `kept * weights - rate * (gradients of the last forward)`."""
        slopes, ones = self._by_layer(slope), _ones(slope.shape[-1], slope.dtype, slope.device)
        _shrink(self.weights, kept)
        layers = zip(self._layers, self._flat, slopes, self._seen, self._shares, strict=True)
        for (weight, _), (flat, column), own, seen, share in layers:
            scaled, factor = _scaled(own, rate)
            rows = scaled.flatten(0, 1)
            if seen.dim() == 2:
                flat.addmm_(rows, seen.t(), alpha=factor * share)
            else:
                weight.baddbmm_(scaled, seen.mT, alpha=factor * share)
            column.addmm_(rows, ones, alpha=factor)

    def _by_layer(self, slope: Tensor) -> list[Tensor]:
        """The derivative by what each layer gives, first to last."""
        found = [slope]
        for (weight, _), seen in zip(self._layers[:0:-1], self._seen[:0:-1], strict=True):
            found.append(_through_relu(torch.bmm(weight.mT, found[-1]), seen))
        return found[::-1]


class AnyNetwork:
    """One network of any layers, its gradient by autograd."""

    needs_autograd = True

    def __init__(self, network: nn.Module, unit: float = 1.0) -> None:
        """Move the network's parameters into one flat tensor; it computes with what is trained here."""
        self._unit = unit
        flat = _flatten(network)
        self.weights, self.gradients = [flat], [torch.empty_like(flat)]
        self._network = network
        self._parameters = list(network.parameters())
        self._slopes = _cut(self.gradients[0][0], self._parameters)
        self._logits = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, F)` to `(U, B)`."""
        with torch.enable_grad():
            self._logits = self._network(x / self._unit)
        return self._logits.detach().t()

    def predict(self, x: Tensor) -> Tensor:
        """`(B, F)` to `(U, B)`."""
        logits: Tensor = self._network(x / self._unit)
        return logits.t()

    def backward(self, slope: Tensor) -> None:
        """Write the gradient of the last `forward`'s weights."""
        found = torch.autograd.grad(self._logits, self._parameters, grad_outputs=slope.t())
        torch._foreach_copy_(self._slopes, list(found))

    def descend(self, slope: Tensor, rate: Number, kept: Number) -> None:
        """Make of the weights `kept * weights - rate * (gradient of the last forward)`."""
        self.backward(slope)
        _shrink(self.weights, kept)
        scaled, factor = _scaled(self.gradients[0], rate)
        self.weights[0].add_(scaled, alpha=factor)


def of(network: nn.Sequential, unit: float) -> Perceptron | AnyNetwork:
    """Lay out one network, whose rows are still to be divided by `unit`."""
    plain = all(isinstance(layer, nn.Linear | nn.ReLU) for layer in network)
    return Perceptron(network, unit) if plain else AnyNetwork(network, unit)


def _pairs(tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each layer, the bias as a column."""
    return [(weight, bias[..., None]) for weight, bias in zip(tensors[::2], tensors[1::2], strict=True)]


def _flatten(network: nn.Module) -> Tensor:
    """Let the network's parameters be parts of one tensor, `(1, n)`, which is returned."""
    parameters = list(network.parameters())
    flat = torch.empty((1, sum(parameter.numel() for parameter in parameters)), device=parameters[0].device)
    for parameter, part in zip(parameters, _cut(flat[0], parameters), strict=True):
        part.copy_(parameter.detach())
        parameter.data = part
    return flat


def _cut(flat: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Views of a flat tensor, shaped and laid out in memory as the parameters are."""
    parts = torch.split(flat, [parameter.numel() for parameter in parameters])
    pairs = zip(parts, parameters, strict=True)
    return [part.as_strided(like.shape, like.stride(), part.storage_offset()) for part, like in pairs]


def _shrink(weights: list[Tensor], kept: Number) -> None:
    if isinstance(kept, Tensor) or kept != 1:
        for weight in weights:
            weight.mul_(kept)


def _scaled(slope: Tensor, rate: Number) -> tuple[Tensor, float]:
    """What, and by which number, is added in a step against the slope."""
    return (slope, -rate) if isinstance(rate, float) else (slope * rate.view(-1, *(1,) * (slope.dim() - 1)), -1.0)


@cache
def _ones(rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A column that adds up the rows of a batch, at a third of what `sum` and `add_` take."""
    return torch.ones((rows, 1), dtype=dtype, device=device)


def _through_relu(slope: Tensor, activated: Tensor) -> Tensor:
    found: Tensor = torch.ops.aten.threshold_backward(slope, activated, 0)
    return found
