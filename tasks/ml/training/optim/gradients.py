"""Networks laid out for training: all weights in a few flat tensors, with explicit forward and backward passes.

The gradient of a perceptron is written out, for one network or for M at once; that of any other network comes from
autograd. Both start from the gradient of the loss with respect to the logits (`losses.logit_gradient`). Logits and
hidden values have the rows of a batch as columns, `(U, B)`: the product weights x rows takes half the time of
rows x weights. Rows may be unscaled pixels; the first layer's product then divides them by `divisor` at no cost.
"""

from collections.abc import Sequence
from functools import cache
from typing import Protocol

import torch
from torch import Tensor, nn

from hallmark.tasks.ml.training.optim.optimizers import Number


class DifferentiableNetwork(Protocol):
    """One network, or M networks, whose weights and gradients are stored in flat tensors."""

    weights: list[Tensor]
    """Each `(M, n)`; M is 1 for one network."""
    gradients: list[Tensor]
    """Shaped like `weights`."""
    needs_autograd: bool
    """Whether it uses autograd, so that inference mode is not possible."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits from rows, `(B, F)` or `(M, B, F)`: `(U, B)` for one network, `(M, U, B)` for M."""
        ...

    def predict(self, x: Tensor) -> Tensor:
        """Compute logits like `forward`, but keep nothing for `backward`."""
        ...

    def backward(self, logit_gradient: Tensor) -> None:
        """Write `gradients`, from the gradient of the loss with respect to the logits of the last `forward`."""
        ...

    def sgd_step(self, logit_gradient: Tensor, rate: Number, decay: Number) -> None:
        """Set the weights to `decay * weights - rate * gradient`, which is faster without writing `gradients`."""
        ...


class Perceptron:
    """One network of linear layers with a bias, and ReLU between them."""

    needs_autograd = False

    def __init__(self, network: nn.Sequential, divisor: float = 1.0) -> None:
        """Move the network's parameters into one flat tensor, which the network goes on using."""
        flat = _flatten(network)
        self.weights, self.gradients = [flat], [torch.empty_like(flat)]
        parameters = list(network.parameters())
        self._input_scales = [1 / divisor, *[1.0] * (len(parameters) // 2 - 1)]
        self._layers = _weight_bias_pairs([parameter.detach() for parameter in parameters])
        self._layer_gradients = _weight_bias_pairs(_views(self.gradients[0][0], parameters))
        self._inputs: list[Tensor] = []
        """Input of each layer in the last `forward`, `(B, ...)`."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute `(U, B)` logits from `(B, F)` rows."""
        z, self._inputs = x.t(), [x]
        for index, ((weight, bias), scale) in enumerate(zip(self._layers, self._input_scales, strict=True)):
            if index:
                self._inputs.append(z.relu_().t())
            z = torch.addmm(bias, weight, z, alpha=scale)
        return z

    def predict(self, x: Tensor) -> Tensor:
        """Compute `(U, B)` logits from `(B, F)` rows, and keep nothing."""
        logits, self._inputs = self.forward(x), []
        return logits

    def backward(self, logit_gradient: Tensor) -> None:
        """Write the gradients of the last `forward`'s weights."""
        outputs = self._output_gradients(logit_gradient)
        layers = zip(self._layer_gradients, outputs, self._inputs, self._input_scales, strict=True)
        for (by_weight, by_bias), by_output, inputs, scale in layers:
            torch.addmm(by_weight, by_output, inputs, beta=0, alpha=scale, out=by_weight)
            torch.sum(by_output, 1, keepdim=True, out=by_bias)

    def sgd_step(self, logit_gradient: Tensor, rate: Number, decay: Number) -> None:
        """Set the weights to `decay * weights - rate * (gradient of the last forward)`."""
        outputs = self._output_gradients(logit_gradient)
        ones = _ones(logit_gradient.shape[-1], logit_gradient.dtype, logit_gradient.device)
        _decay(self.weights, decay)
        for (weight, bias), by_output, inputs, scale in zip(
            self._layers, outputs, self._inputs, self._input_scales, strict=True
        ):
            scaled, factor = _descent(by_output, rate)
            weight.addmm_(scaled, inputs, alpha=factor * scale)
            bias.addmm_(scaled, ones, alpha=factor)

    def _output_gradients(self, logit_gradient: Tensor) -> list[Tensor]:
        """Return the gradient of the loss with respect to each layer's output, first layer first."""
        outputs = [logit_gradient]
        for index in range(len(self._layers) - 1, 0, -1):
            weight, activated = self._layers[index][0], self._inputs[index].t()
            outputs.insert(0, _relu_backward(torch.mm(weight.t(), outputs[0]), activated))
        return outputs


class StackedPerceptrons:
    """M perceptrons of the same shape, each with its own weights, trained together by batched products."""

    needs_autograd = False

    def __init__(self, networks: Sequence[nn.Sequential], divisor: float = 1.0) -> None:
        """Move the networks' parameters into one tensor per layer, which the networks go on using.

        Raises:
            TypeError: a network is not a perceptron: linear layers with a bias, and ReLU between them.
        """
        if not all(map(_is_perceptron, networks)):
            raise TypeError(
                "only linear layers with a bias and ReLU between them can be stacked: set `stackable` of their kind"
            )
        same = list(zip(*(network.parameters() for network in networks), strict=True))
        stacked = [torch.stack([parameter.detach() for parameter in parameters]) for parameters in same]
        for parameters, tensor in zip(same, stacked, strict=True):
            for parameter, part in zip(parameters, tensor, strict=True):
                parameter.data = part
        gradients = [torch.empty_like(tensor) for tensor in stacked]
        self.weights, self.gradients = ([tensor.flatten(1) for tensor in tensors] for tensors in (stacked, gradients))
        self._layers, self._layer_gradients = _weight_bias_pairs(stacked), _weight_bias_pairs(gradients)
        # Creating a view takes a microsecond, and every update needs these.
        self._flat = [(weight.flatten(0, 1), bias.flatten(0, 1)) for weight, bias in self._layers]
        self._input_scales = [1 / divisor, *[1.0] * (len(self._layers) - 1)]
        self._inputs: list[Tensor] = []
        """Input of each layer in the last `forward`, `(..., B)`."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute `(M, U, B)` logits from rows: `(B, F)` shared by all networks, or `(M, B, F)`."""
        z, self._inputs = x.mT, []
        for (weight, bias), (flat, column), scale in zip(self._layers, self._flat, self._input_scales, strict=True):
            if self._inputs:
                z.relu_()
            self._inputs.append(z)
            if z.dim() == 2:
                z = torch.addmm(column, flat, z, alpha=scale).view(len(weight), -1, z.shape[1])
            else:
                z = torch.baddbmm(bias, weight, z, alpha=scale)
        return z

    def predict(self, x: Tensor) -> Tensor:
        """Compute `(M, U, B)` logits from `(B, F)` or `(M, B, F)` rows, and keep nothing."""
        logits, self._inputs = self.forward(x), []
        return logits

    def backward(self, logit_gradient: Tensor) -> None:
        """Write the gradients of the last `forward`'s weights."""
        outputs = self._output_gradients(logit_gradient)
        layers = zip(self._layer_gradients, outputs, self._inputs, self._input_scales, strict=True)
        for (by_weight, by_bias), by_output, inputs, scale in layers:
            if inputs.dim() == 2:
                flat = by_weight.view(-1, len(inputs))
                torch.addmm(flat, by_output.flatten(0, 1), inputs.t(), beta=0, alpha=scale, out=flat)
            else:
                torch.baddbmm(by_weight, by_output, inputs.mT, beta=0, alpha=scale, out=by_weight)
            torch.sum(by_output, 2, keepdim=True, out=by_bias)

    def sgd_step(self, logit_gradient: Tensor, rate: Number, decay: Number) -> None:
        """Set the weights to `decay * weights - rate * (gradients of the last forward)`."""
        outputs = self._output_gradients(logit_gradient)
        ones = _ones(logit_gradient.shape[-1], logit_gradient.dtype, logit_gradient.device)
        _decay(self.weights, decay)
        layers = zip(self._layers, self._flat, outputs, self._inputs, self._input_scales, strict=True)
        for (weight, _), (flat, column), by_output, inputs, scale in layers:
            scaled, factor = _descent(by_output, rate)
            rows = scaled.flatten(0, 1)
            if inputs.dim() == 2:
                flat.addmm_(rows, inputs.t(), alpha=factor * scale)
            else:
                weight.baddbmm_(scaled, inputs.mT, alpha=factor * scale)
            column.addmm_(rows, ones, alpha=factor)

    def _output_gradients(self, logit_gradient: Tensor) -> list[Tensor]:
        """Return the gradient of the loss with respect to each layer's output, first layer first."""
        outputs = [logit_gradient]
        for (weight, _), activated in zip(self._layers[:0:-1], self._inputs[:0:-1], strict=True):
            outputs.append(_relu_backward(torch.bmm(weight.mT, outputs[-1]), activated))
        return outputs[::-1]


class AutogradNetwork:
    """One network of any layers, with gradients from autograd."""

    needs_autograd = True

    def __init__(self, network: nn.Module, divisor: float = 1.0) -> None:
        """Move the network's parameters into one flat tensor, which the network goes on using."""
        self._divisor = divisor
        flat = _flatten(network)
        self.weights, self.gradients = [flat], [torch.empty_like(flat)]
        self._network = network
        self._parameters = list(network.parameters())
        self._parameter_gradients = _views(self.gradients[0][0], self._parameters)
        self._logits = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        """Compute `(U, B)` logits from `(B, F)` rows."""
        with torch.enable_grad():
            self._logits = self._network(x / self._divisor)
        return self._logits.detach().t()

    def predict(self, x: Tensor) -> Tensor:
        """Compute `(U, B)` logits from `(B, F)` rows, and keep nothing."""
        logits: Tensor = self._network(x / self._divisor)
        return logits.t()

    def backward(self, logit_gradient: Tensor) -> None:
        """Write the gradient of the last `forward`'s weights."""
        computed = torch.autograd.grad(self._logits, self._parameters, grad_outputs=logit_gradient.t())
        torch._foreach_copy_(self._parameter_gradients, list(computed))

    def sgd_step(self, logit_gradient: Tensor, rate: Number, decay: Number) -> None:
        """Set the weights to `decay * weights - rate * (gradient of the last forward)`."""
        self.backward(logit_gradient)
        _decay(self.weights, decay)
        scaled, factor = _descent(self.gradients[0], rate)
        self.weights[0].add_(scaled, alpha=factor)


def single(network: nn.Sequential, divisor: float) -> DifferentiableNetwork:
    """Lay out one network whose input rows are still to be divided by `divisor`."""
    return Perceptron(network, divisor) if _is_perceptron(network) else AutogradNetwork(network, divisor)


def _is_perceptron(network: nn.Sequential) -> bool:
    """Return whether linear layers with a bias alternate with ReLU, beginning and ending with a linear layer."""
    layers = list(network)
    return (
        len(layers) % 2 == 1
        and all(isinstance(layer, nn.Linear) and layer.bias is not None for layer in layers[::2])
        and all(isinstance(layer, nn.ReLU) for layer in layers[1::2])
    )


def _weight_bias_pairs(tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return weight and bias of each layer, the bias as a column."""
    return [(weight, bias[..., None]) for weight, bias in zip(tensors[::2], tensors[1::2], strict=True)]


def _flatten(network: nn.Module) -> Tensor:
    """Make the network's parameters views of one tensor, `(1, n)`, and return it."""
    parameters = list(network.parameters())
    flat = torch.empty((1, sum(parameter.numel() for parameter in parameters)), device=parameters[0].device)
    for parameter, part in zip(parameters, _views(flat[0], parameters), strict=True):
        part.copy_(parameter.detach())
        parameter.data = part
    return flat


def _views(flat: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return views of a flat tensor with the shapes and memory layouts of the parameters."""
    parts = torch.split(flat, [parameter.numel() for parameter in parameters])
    pairs = zip(parts, parameters, strict=True)
    return [part.as_strided(like.shape, like.stride(), part.storage_offset()) for part, like in pairs]


def _decay(weights: list[Tensor], factor: Number) -> None:
    """Multiply the weights by a factor, unless it is 1."""
    if isinstance(factor, Tensor) or factor != 1:
        for weight in weights:
            weight.mul_(factor)


def _descent(gradient: Tensor, rate: Number) -> tuple[Tensor, float]:
    """Return a tensor and a number whose product is `-rate * gradient`."""
    if isinstance(rate, float):
        return gradient, -rate
    return gradient * rate.view(-1, *(1,) * (gradient.dim() - 1)), -1.0


@cache
def _ones(rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a column of ones: a product with it sums the rows of a batch in a third of the time of `sum`."""
    return torch.ones((rows, 1), dtype=dtype, device=device)


def _relu_backward(gradient: Tensor, activated: Tensor) -> Tensor:
    masked: Tensor = torch.ops.aten.threshold_backward(gradient, activated, 0)
    return masked
