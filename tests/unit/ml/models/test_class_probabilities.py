import numpy as np
import pytest
import torch

from hallmark.flows.experiments import options
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.config.models import output_units
from hallmark.tasks.ml.models import class_probabilities

LOGITS = torch.tensor([[-1.0, 0.5, 2.0], [3.0, -2.0, 0.0]])


def iris_with(*tokens: str) -> Experiment:
    return options.experiment("iris", list(tokens))


def probabilities(logits: torch.Tensor, *tokens: str) -> np.ndarray:
    experiment = iris_with(*tokens)
    return class_probabilities.probabilities(logits, experiment.model, experiment.training.loss).numpy()


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def test_probabilities_are_softmax_over_what_the_loss_sees() -> None:
    z = LOGITS.numpy()
    np.testing.assert_allclose(probabilities(LOGITS), softmax(z), rtol=1e-6)
    np.testing.assert_allclose(probabilities(LOGITS, "--model.output=sigmoid"), softmax(sigmoid(z)), rtol=1e-6)
    nll = ("--model.output=log_softmax", "--training.loss.kind=nll")
    np.testing.assert_allclose(probabilities(LOGITS, *nll), softmax(z), rtol=1e-6)
    mse = ("--model.output=softmax", "--training.loss.kind=mse")
    np.testing.assert_allclose(probabilities(LOGITS, *mse), softmax(z), rtol=1e-6)


@pytest.mark.parametrize(
    "tokens",
    [
        ("--training.loss.kind=bce_with_logits",),
        ("--training.loss.kind=bce", "--model.output=sigmoid"),
        ("--training.loss.kind=mse", "--model.output=sigmoid"),
    ],
)
def test_sigmoids_are_two_sided_for_one_unit_and_normalised_for_more(tokens: tuple[str, ...]) -> None:
    one, each = LOGITS[:, :1], sigmoid(LOGITS.numpy())
    found = probabilities(one, *tokens)
    np.testing.assert_allclose(found, np.hstack([sigmoid(-one.numpy()), sigmoid(one.numpy())]), rtol=1e-6)
    np.testing.assert_allclose(probabilities(LOGITS, *tokens), each / each.sum(axis=1, keepdims=True), rtol=1e-5)
    # The shares are known even where every sigmoid underflows.
    underflowed = probabilities(LOGITS - 200, *tokens)
    np.testing.assert_allclose(underflowed, softmax(LOGITS.numpy()), rtol=1e-4)


def test_labels_are_those_of_the_largest_probability() -> None:
    assert class_probabilities.labels(LOGITS).tolist() == [2, 0]
    assert class_probabilities.labels(LOGITS[:, :1]).tolist() == [0, 1]


@pytest.mark.parametrize("networks", [1, 3])
def test_the_first_of_several_largest_logits_is_the_label(networks: int) -> None:
    logits = torch.from_numpy(np.random.default_rng(0).integers(-2, 3, (networks, 6, 500))).float() * 1e-38
    assert (logits.sort(1).values.diff(dim=1)[:, -1] == 0).any()
    assert torch.equal(class_probabilities.labels(logits), logits.argmax(1))
    assert torch.equal(class_probabilities.labels(logits[0].mT), logits[0].argmax(0))


def test_logits_that_differ_only_in_the_last_bit_are_distinguished() -> None:
    one = torch.tensor([1e-38, 1.0, 1e30])
    logits = torch.stack([one, one.nextafter(torch.tensor(torch.inf)), one], dim=-1)
    assert class_probabilities.labels(logits).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("tokens", "two", "three"),
    [
        ((), 2, 3),
        (("--training.loss.kind=bce_with_logits",), 1, 3),
        (("--training.loss.kind=mse", "--model.output=sigmoid"), 1, 3),
        (("--training.loss.kind=mse", "--model.output=softmax"), 2, 3),
    ],
)
def test_number_of_output_units_depends_on_loss_and_classes(tokens: tuple[str, ...], two: int, three: int) -> None:
    experiment = iris_with(*tokens)
    found = [output_units(experiment.model, experiment.training.loss, classes) for classes in (2, 3)]
    assert found == [two, three]
