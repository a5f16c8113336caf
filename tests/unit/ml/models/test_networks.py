from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.preprocessing import StandardScaler

from hallmark.tasks.common.errors import DamagedError
from hallmark.tasks.common.records import Dataset, Fit
from hallmark.tasks.ml.config.data import Digits, Iris, Split
from hallmark.tasks.ml.config.experiment import CNN, MLP, Experiment, Linear
from hallmark.tasks.ml.data import dataset_store
from hallmark.tasks.ml.models import networks
from tests.conftest import load, prepare


def test_a_network_starts_from_torchs_own_weights_for_its_seed() -> None:
    torch.manual_seed(7)
    expected = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    network = networks.build(MLP(kind="mlp", hidden=(5,)), shape=(4,), logits=3, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    for name, weight in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], weight)


def test_architectures() -> None:
    linear = networks.build(Linear(kind="linear"), shape=(8, 8), logits=10, seed=0)
    assert [type(layer).__name__ for layer in linear] == ["Linear"]
    mlp = networks.build(MLP(kind="mlp", hidden=(50, 40)), shape=(4,), logits=3, seed=0)
    assert [type(layer).__name__ for layer in mlp] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert [tuple(weight.shape) for weight in mlp.parameters() if weight.ndim == 2] == [(50, 4), (40, 50), (3, 40)]


def test_a_network_in_colour_sees_planes_of_one_colour() -> None:
    model = CNN(kind="cnn", channels=(4,), hidden=(5,))
    network = networks.build(model, shape=(6, 8, 3), logits=2, seed=0)
    images = torch.rand(7, 6, 8, 3)
    convolution, first, last = (network[index] for index in (1, 5, 7))
    planes = images.movedim(3, 1).contiguous()
    found = torch.relu(torch.max_pool2d(torch.conv2d(planes, convolution.weight, convolution.bias, padding="same"), 2))
    expected = last(torch.relu(first(found.flatten(1))))
    torch.testing.assert_close(network(images.flatten(1)), expected)


def test_a_networks_cost_is_what_its_layers_multiply() -> None:
    model = CNN(kind="cnn", channels=(4, 6), hidden=(5,))
    perceptron = (2 * 2 * 6) * 5 + 5 * 3
    for shape, planes in (((8, 8), 1), ((8, 8, 3), 3)):
        expected = 8 * 8 * 9 * planes * 4 + 4 * 4 * 9 * 4 * 6 + perceptron
        assert networks.products(model, shape, logits=3) == expected
    assert networks.products(MLP(kind="mlp", hidden=(5,)), (2, 2, 3), logits=3) == 12 * 5 + 5 * 3


def test_large_images_pass_a_few_at_a_time() -> None:
    assert networks.at_once(28 * 28) == networks.at_once(64 * 64 * 3) == 1000
    assert networks.at_once(256 * 256 * 3) == 85
    assert networks.at_once(10**9) == 1


@pytest.mark.parametrize("fitted_on", ["train", "all"])
@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_standard_scaling_is_scikit_learns_on_the_rows_it_names(
    tmp_path: Path, fitted_on: str, validation: float
) -> None:
    source = Iris.model_validate(
        {"kind": "iris", "split": Split(validation=validation), "scaling_fitted_on": fitted_on}
    )
    dataset = prepare(source, tmp_path)
    train = dataset_store.open_split(dataset, "train").x
    rows = load_iris().data if fitted_on == "all" else train
    scaled = networks.fit_scaling(dataset, source)(torch.tensor(train))
    np.testing.assert_allclose(scaled, StandardScaler().fit(rows).transform(train), atol=2e-6)


def test_pixels_are_scaled_by_range_and_constant_ones_survive_standard_scaling(tmp_path: Path) -> None:
    dataset = prepare(Digits(kind="digits"), tmp_path)
    images = torch.tensor(dataset_store.open_split(dataset, "train").x)
    by_range = networks.fit_scaling(dataset, Digits(kind="digits"))(images)
    assert torch.equal(by_range, images.flatten(1) / 16)
    standard = networks.fit_scaling(dataset, Digits(kind="digits", scaling="standard"))(images)
    np.testing.assert_allclose(standard, StandardScaler().fit_transform(images.flatten(1).numpy()), atol=5e-5)
    raw = networks.fit_scaling(dataset, Digits(kind="digits", scaling="none"))(images)
    assert torch.equal(raw, images.flatten(1).float())


def test_a_trained_classifier_is_loaded_as_it_was_and_a_changed_file_refused(
    iris: tuple[Experiment, Dataset], fitted: Fit
) -> None:
    experiment, dataset = iris
    classifier = load(fitted, dataset, experiment)
    again = load(fitted, dataset, experiment)
    x = torch.tensor(dataset_store.open_split(dataset, "test").x)
    assert torch.equal(classifier(x), again(x))
    assert not classifier.training
    fitted.weights.write_bytes(fitted.weights.read_bytes()[:-1] + b"!")
    with pytest.raises(DamagedError, match=r"weights\.safetensors"):
        load(fitted, dataset, experiment)
