import math
from typing import Literal, get_args

import pytest
import torch

from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.common.records import Dataset, Fit
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.config.models import CNN, MLP, Linear, Model, Network
from hallmark.tasks.ml.data import dataset_store
from hallmark.tasks.ml.models import networks
from tests.conftest import load


def test_initial_weights_are_those_of_torch_for_the_seed() -> None:
    torch.manual_seed(7)
    expected = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    network = networks.build(MLP(kind="mlp", hidden=(5,)), shape=(4,), logits=3, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    for name, weight in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], weight)


def test_networks_have_the_configured_layers() -> None:
    linear = networks.build(Linear(kind="linear"), shape=(8, 8), logits=10, seed=0)
    assert [type(layer).__name__ for layer in linear] == ["Linear"]
    mlp = networks.build(MLP(kind="mlp", hidden=(50, 40)), shape=(4,), logits=3, seed=0)
    assert [type(layer).__name__ for layer in mlp] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert [tuple(weight.shape) for weight in mlp.parameters() if weight.ndim == 2] == [(50, 4), (40, 50), (3, 40)]


def test_a_network_for_colour_images_separates_the_colour_planes() -> None:
    model = CNN(kind="cnn", channels=(4,), hidden=(5,))
    network = networks.build(model, shape=(6, 8, 3), logits=2, seed=0)
    images = torch.rand(7, 6, 8, 3)
    convolution, first, last = (network[index] for index in (1, 5, 7))
    planes = images.movedim(3, 1).contiguous()
    found = torch.relu(torch.max_pool2d(torch.conv2d(planes, convolution.weight, convolution.bias, padding="same"), 2))
    expected = last(torch.relu(first(found.flatten(1))))
    torch.testing.assert_close(network(images.flatten(1)), expected)


MODELS = {
    "linear": Linear(kind="linear"),
    "mlp": MLP(kind="mlp", hidden=(7, 5)),
    "cnn": CNN(kind="cnn", channels=(4, 6), hidden=(5,)),
    "cnn without padding": CNN(kind="cnn", channels=(4,), kernel=2, padding="valid", hidden=(5, 6)),
}


def test_every_model_kind_is_tested_here() -> None:
    assert {type(model) for model in MODELS.values()} == set(get_args(get_args(Model)[0]))


@pytest.mark.parametrize("shape", [(8, 8), (9, 8, 3)])
@pytest.mark.parametrize("name", MODELS)
def test_a_kind_states_the_cost_of_the_network_that_is_built(name: str, shape: tuple[int, ...]) -> None:
    model, outputs, products = MODELS[name], 0, 0
    network = networks.build(model, shape, logits=3, seed=0)

    def count(layer: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal outputs, products
        outputs += output[0].numel()
        assert isinstance(layer.weight, torch.Tensor)
        products += output[0].numel() * layer.weight[0].numel()

    for layer in network:
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            layer.register_forward_hook(count)
    network(torch.zeros(1, math.prod(shape)))
    assert model.multiplications(shape, 3) == products
    assert model.activation_count(shape, 3) == outputs
    assert model.parameter_count(shape, 3) == sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_a_stackable_kind_has_only_linear_layers_and_relu(name: str) -> None:
    network = networks.build(MODELS[name], (8, 8), logits=3, seed=0)
    layers = {type(layer).__name__ for layer in network}
    assert MODELS[name].stackable == (layers <= {"Linear", "ReLU"})


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(InputError, match=r"3 convolutions and poolings leave nothing of 7 x 9 pixels: give fewer$"):
        CNN(kind="cnn", channels=(2, 2, 2)).refuse_shape((7, 9, 3))
    CNN(kind="cnn", channels=(2, 2, 2)).refuse_shape((8, 9, 3))
    with pytest.raises(InputError, match=r"give fewer, or model.padding 'same'$"):
        CNN(kind="cnn", channels=(2,), padding="valid").refuse_shape((3, 3))


def test_a_model_kind_without_costs_cannot_be_built() -> None:
    class Incomplete(Network):
        kind: Literal["incomplete"]

    with pytest.raises(TypeError, match="abstract"):
        Incomplete(kind="incomplete")  # type: ignore[abstract]


def test_a_trained_classifier_is_loaded_unchanged_and_a_changed_file_is_refused(
    iris: tuple[Experiment, Dataset], fitted: Fit
) -> None:
    experiment, dataset = iris
    classifier = load(fitted, dataset, experiment)
    again = load(fitted, dataset, experiment)
    x = torch.tensor(dataset_store.open_split(dataset, "test").x)
    assert torch.equal(classifier(x), again(x))
    assert not classifier.training
    assert again is classifier
    networks._loaded.clear()
    fitted.weights.write_bytes(fitted.weights.read_bytes()[:-1] + b"!")
    with pytest.raises(DamagedError, match=r"weights\.safetensors"):
        load(fitted, dataset, experiment)
