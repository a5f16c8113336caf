"""Networks laid out for training: all weights in few flat tensors, and what takes a batch to their gradients.

A perceptron's gradient is written out, for one network or for M at once; any other network's comes of autograd. Both
are given the derivative of the loss by the logits (`losses.slope`) and call the very kernels that `backward` would.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


class Gradient(Protocol):
    """A network whose weights and their gradients lie in flat tensors."""

    weights: list[Tensor]
    """Each `(M, n)`; M is 1 for one network."""
    gradients: list[Tensor]
    """As `weights`."""

    def forward(self, x: Tensor) -> Tensor:
        """Rows, `(B, F)` or `(M, B, F)`, to logits: `(B, U)` of one network, `(M, B, U)` of M."""
        ...

    def predict(self, x: Tensor) -> Tensor:
        """As `forward`, but nothing is kept for `backward`."""
        ...

    def backward(self, slope: Tensor) -> None:
        """From the derivative by the logits of the last `forward`, write `gradients`."""
        ...


class Perceptron:
    """One network of linear layers with ReLU between them."""

    def __init__(self, network: nn.Sequential) -> None:
        """Move the network's parameters into one flat tensor; it computes with what is trained here."""
        flat = _flatten(network)
        self.weights, self.gradients = [flat], [torch.empty_like(flat)]
        parameters = list(network.parameters())
        self._layers = _pairs([parameter.detach() for parameter in parameters])
        self._slopes = _pairs(_cut(self.gradients[0][0], parameters))
        self._seen: list[Tensor] = []

    def predict(self, x: Tensor) -> Tensor:
        """`(B, F)` to `(B, U)`."""
        logits, self._seen = self.forward(x), []
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """`(B, F)` to `(B, U)`."""
        self._seen = [x]
        for weight, bias in self._layers[:-1]:
            self._seen.append(torch.addmm(bias, self._seen[-1], weight.t()).relu_())
        weight, bias = self._layers[-1]
        return torch.addmm(bias, self._seen[-1], weight.t())

    def backward(self, slope: Tensor) -> None:
        """Write the gradient of the last `forward`'s weights."""
        for index in reversed(range(len(self._layers))):
            by_weight, by_bias = self._slopes[index]
            torch.mm(slope.t(), self._seen[index], out=by_weight)
            torch.sum(slope, 0, out=by_bias)
            if index:
                slope = _through_relu(slope.mm(self._layers[index][0]), self._seen[index])


class Perceptrons:
    """M networks of equal shape, linear layers with ReLU between them, each computing with its own weights."""

    def __init__(self, networks: Sequence[nn.Sequential]) -> None:
        """Move the networks' parameters into one tensor a layer; they compute with what is trained here."""
        same = list(zip(*(network.parameters() for network in networks), strict=True))
        stacked = [torch.stack([parameter.detach() for parameter in parameters]) for parameters in same]
        for parameters, tensor in zip(same, stacked, strict=True):
            for parameter, part in zip(parameters, tensor, strict=True):
                parameter.data = part
        slopes = [torch.empty_like(tensor) for tensor in stacked]
        self.weights, self.gradients = ([tensor.flatten(1) for tensor in tensors] for tensors in (stacked, slopes))
        self._layers, self._slopes = _pairs(stacked), _pairs(slopes)
        self._seen: list[Tensor] = []

    def predict(self, x: Tensor) -> Tensor:
        """`(B, F)` that all share, or `(M, B, F)`, to `(M, B, U)`."""
        logits, self._seen = self.forward(x), []
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """`(B, F)` that all share, or `(M, B, F)`, to `(M, B, U)`."""
        self._seen = [x]
        for weight, bias in self._layers[:-1]:
            self._seen.append(_affine(self._seen[-1], weight, bias).relu_())
        return _affine(self._seen[-1], *self._layers[-1])

    def backward(self, slope: Tensor) -> None:
        """Write the gradients of the last `forward`'s weights."""
        for index in reversed(range(len(self._layers))):
            by_weight, by_bias = self._slopes[index]
            _outer(slope, self._seen[index], by_weight)
            torch.sum(slope, 1, out=by_bias)
            if index:
                slope = _through_relu(slope.bmm(self._layers[index][0]), self._seen[index])


class AnyNetwork:
    """One network of any layers, its gradient by autograd."""

    def __init__(self, network: nn.Module) -> None:
        """Move the network's parameters into one flat tensor; it computes with what is trained here."""
        flat = _flatten(network)
        self.weights, self.gradients = [flat], [torch.empty_like(flat)]
        self._network = network
        self._parameters = list(network.parameters())
        self._slopes = _cut(self.gradients[0][0], self._parameters)
        self._logits = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, F)` to `(B, U)`."""
        with torch.enable_grad():
            self._logits = self._network(x)
        return self._logits.detach()

    def predict(self, x: Tensor) -> Tensor:
        """`(B, F)` to `(B, U)`."""
        with torch.no_grad():
            logits: Tensor = self._network(x)
        return logits

    def backward(self, slope: Tensor) -> None:
        """Write the gradient of the last `forward`'s weights."""
        found = torch.autograd.grad(self._logits, self._parameters, grad_outputs=slope)
        torch._foreach_copy_(self._slopes, list(found))


def of(network: nn.Sequential) -> Perceptron | AnyNetwork:
    """Lay out one network."""
    plain = all(isinstance(layer, nn.Linear | nn.ReLU) for layer in network)
    return Perceptron(network) if plain else AnyNetwork(network)


def _pairs(tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each layer."""
    return list(zip(tensors[::2], tensors[1::2], strict=True))


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


def _through_relu(slope: Tensor, activated: Tensor) -> Tensor:
    found: Tensor = torch.ops.aten.threshold_backward(slope, activated, 0)
    return found


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`(B, F)` or `(M, B, F)` to `(M, B, U)`. What all networks share takes one matrix product for all."""
    if x.dim() == 3:
        return torch.baddbmm(bias[:, None], x, weight.mT)
    networks, units, features = weight.shape
    z = torch.addmm(bias.flatten(), x, weight.view(networks * units, features).t())
    return z.view(len(x), networks, units).transpose(0, 1)


def _outer(slope: Tensor, x: Tensor, out: Tensor) -> None:
    """The gradient by the weight, `(M, U, F)`, from `(M, B, U)` and `(B, F)` or `(M, B, F)`."""
    if x.dim() == 3:
        torch.bmm(slope.mT, x, out=out)
    else:
        torch.mm(slope.transpose(0, 1).reshape(len(x), -1).t(), x, out=out.view(-1, x.shape[1]))
