from collections.abc import Callable

import pytest
import torch
from torch import nn

from hallmark.tasks.ml.training.optim import gradients

PERCEPTRONS: dict[str, Callable[[], list[nn.Module]]] = {
    "linear": lambda: [nn.Linear(4, 3)],
    "one hidden layer": lambda: [nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)],
}
OTHERS: dict[str, Callable[[], list[nn.Module]]] = {
    "two linear layers": lambda: [nn.Linear(4, 5), nn.Linear(5, 3)],
    "one layer without bias": lambda: [nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)],
    "no bias": lambda: [nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 3, bias=False)],
    "ReLU last": lambda: [nn.Linear(4, 3), nn.ReLU()],
    "ReLU first": lambda: [nn.ReLU(), nn.Linear(4, 3)],
    "two ReLU": lambda: [nn.Linear(4, 5), nn.ReLU(), nn.ReLU(), nn.Linear(5, 3)],
}


def build(kind: str) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(PERCEPTRONS | OTHERS)[kind]())


@pytest.mark.parametrize("kind", PERCEPTRONS | OTHERS)
def test_a_single_network_predicts_and_differentiates_as_torch_does(kind: str) -> None:
    network, reference = build(kind), build(kind)
    x = torch.randn(7, 4)
    logits = reference(x / 2)
    upstream = torch.randn(7, 3)
    logits.backward(upstream)

    laid_out = gradients.single(network, 2.0)
    assert isinstance(laid_out, gradients.Perceptron) == (kind in PERCEPTRONS)
    torch.testing.assert_close(laid_out.predict(x), logits.detach().t())
    torch.testing.assert_close(laid_out.forward(x), logits.detach().t())
    laid_out.backward(upstream.t())
    expected = torch.cat([parameter.grad.flatten() for parameter in reference.parameters()])
    torch.testing.assert_close(laid_out.gradients[0][0], expected)


@pytest.mark.parametrize("kind", OTHERS)
def test_only_perceptrons_can_be_stacked(kind: str) -> None:
    with pytest.raises(TypeError, match="only linear layers with a bias and ReLU between them can be stacked"):
        gradients.StackedPerceptrons([build(kind), build(kind)])
