"""Losses against their formulas in NumPy, value and gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from hallmark.tasks.ml.config.losses import BCE, MSE, NLL, BCEWithLogits, CrossEntropy, Loss
from hallmark.tasks.ml.config.models import Linear, Model
from hallmark.tasks.ml.models import class_probabilities
from hallmark.tasks.ml.training.optim import losses

Floats = NDArray[np.float64]

LOGITS = np.array(
    [
        [-1.3361, -0.1120, 0.9913, -0.1192, 0.3797],
        [1.7727, -1.7945, 0.4141, 0.1564, 0.9800],
        [0.1120, 0.1938, 0.4124, 1.8057, 1.5692],
    ]
)
TARGETS = np.array([2, 4, 4])
WEIGHT = (0.5, 1.0, 2.0, 1.5, 3.0)
ROWS = np.arange(3)
BINARY = np.array([[-1.3], [0.4], [2.2]])
LABELS = np.array([0, 1, 0])


def softmax(z: Floats) -> Floats:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-z))


def one_hot(y: NDArray[np.int64], classes: int) -> Floats:
    return np.eye(classes)[y]


def cross_entropy(z: Floats, y: NDArray[np.int64], loss: CrossEntropy) -> Floats:
    """Compute each row's loss from smoothed targets and weighted log-probabilities."""
    w, e, c = np.array(loss.weight or np.ones(z.shape[1])), loss.label_smoothing, z.shape[1]
    target = (1 - e) * one_hot(y, c) + e / c
    rows = -(target * w * np.log(softmax(z))).sum(axis=1)
    return rows * (y != loss.ignore_index)


def nll(log_p: Floats, y: NDArray[np.int64], loss: NLL) -> Floats:
    w = np.array(loss.weight or np.ones(log_p.shape[1]))
    return -w[y] * log_p[np.arange(len(y)), y] * (y != loss.ignore_index)


def bce(p: Floats, y: NDArray[np.int64], loss: BCE) -> Floats:
    t = y[:, None] if p.shape[1] == 1 else one_hot(y, p.shape[1])
    return -np.array(loss.weight or 1.0) * (t * np.log(p) + (1 - t) * np.log(1 - p))


def bce_with_logits(z: Floats, y: NDArray[np.int64], loss: BCEWithLogits) -> Floats:
    t = y[:, None] if z.shape[1] == 1 else one_hot(y, z.shape[1])
    positive = np.array(loss.pos_weight or 1.0)
    p = sigmoid(z)
    return -np.array(loss.weight or 1.0) * (positive * t * np.log(p) + (1 - t) * np.log(1 - p))


def mse(p: Floats, y: NDArray[np.int64], loss: MSE) -> Floats:  # noqa: ARG001 - one shape for all
    return (p - (y[:, None] if p.shape[1] == 1 else one_hot(y, p.shape[1]))) ** 2


def weight_of_rows(y: NDArray[np.int64], loss: Loss, classes: int) -> Floats:
    """Return each row's part of the divisor of torch's weighted mean."""
    if not isinstance(loss, CrossEntropy | NLL):
        return np.ones(1)
    w = np.array(loss.weight or np.ones(classes))
    return w[y] * (y != loss.ignore_index)


def reduced(rows: Floats, y: NDArray[np.int64], loss: Loss, classes: int) -> Floats:
    match loss.reduction:
        case "none":
            return rows
        case "sum":
            return np.array(rows.sum())
        case "mean":
            divisor = weight_of_rows(y, loss, classes).sum() if isinstance(loss, CrossEntropy | NLL) else rows.size
            return np.array(rows.sum() / divisor)


def numerical_gradient(function: Callable[[Floats], Floats], at: Floats) -> Floats:
    """Compute the gradient of the sum of `function` by central differences."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[index] = 1e-6
        gradient[index] = (function(at + step).sum() - function(at - step).sum()) / 2e-6
    return gradient


FORMULAS: dict[str, Callable[..., Floats]] = {
    "cross_entropy": cross_entropy,
    "nll": nll,
    "bce": bce,
    "bce_with_logits": bce_with_logits,
    "mse": mse,
}
CASES: list[tuple[dict[str, Any], Floats, NDArray[np.int64]]] = [
    ({"kind": "cross_entropy"}, LOGITS, TARGETS),
    ({"kind": "cross_entropy", "weight": WEIGHT}, LOGITS, TARGETS),
    ({"kind": "cross_entropy", "ignore_index": 2}, LOGITS, TARGETS),
    ({"kind": "cross_entropy", "weight": WEIGHT, "ignore_index": 2}, LOGITS, TARGETS),
    ({"kind": "cross_entropy", "label_smoothing": 0.1}, LOGITS, TARGETS),
    ({"kind": "cross_entropy", "label_smoothing": 0.1, "weight": WEIGHT}, LOGITS, TARGETS),
    ({"kind": "nll"}, np.log(softmax(LOGITS)), TARGETS),
    ({"kind": "nll", "weight": WEIGHT, "ignore_index": 2}, np.log(softmax(LOGITS)), TARGETS),
    ({"kind": "bce"}, sigmoid(LOGITS), TARGETS),
    ({"kind": "bce", "weight": WEIGHT}, sigmoid(LOGITS), TARGETS),
    ({"kind": "bce"}, sigmoid(BINARY), LABELS),
    ({"kind": "bce", "weight": (2.0,)}, sigmoid(BINARY), LABELS),
    ({"kind": "bce_with_logits"}, LOGITS, TARGETS),
    ({"kind": "bce_with_logits", "weight": WEIGHT, "pos_weight": WEIGHT[::-1]}, LOGITS, TARGETS),
    ({"kind": "bce_with_logits"}, BINARY, LABELS),
    ({"kind": "bce_with_logits", "pos_weight": (4.0,)}, BINARY, LABELS),
    ({"kind": "mse"}, softmax(LOGITS), TARGETS),
    ({"kind": "mse"}, sigmoid(BINARY), LABELS),
]


def read(given: dict[str, Any]) -> Loss:
    found: Loss = TypeAdapter(Loss).validate_python(given)
    return found


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(("given", "output", "y"), CASES)
def test_value_and_gradient_equal_the_formulas(
    given: dict[str, Any], output: Floats, y: NDArray[np.int64], reduction: str
) -> None:
    loss = read(given | {"reduction": reduction})
    units = output.shape[1]

    def formula(at: Floats) -> Floats:
        return reduced(FORMULAS[loss.kind](at, y, loss), y, loss, units)

    at = torch.tensor(output, requires_grad=True)
    target = losses.targets(loss, torch.tensor(y), units)
    value = losses.build(loss).double()(at, target.double() if target.is_floating_point() else target)
    value.sum().backward()
    np.testing.assert_allclose(value.detach().numpy(), formula(output), rtol=1e-6)
    np.testing.assert_allclose(at.grad, numerical_gradient(formula, output), rtol=1e-4, atol=1e-7)


def test_the_smoothed_weighted_mean_divides_by_the_weights_of_the_targets() -> None:
    loss = CrossEntropy(kind="cross_entropy", weight=WEIGHT, label_smoothing=0.2)
    value = losses.build(loss).double()(torch.tensor(LOGITS), torch.tensor(TARGETS)).item()
    assert value == pytest.approx(cross_entropy(LOGITS, TARGETS, loss).sum() / (2.0 + 3.0 + 3.0), rel=1e-6)


def test_cross_entropy_of_known_logits_has_the_known_values() -> None:
    loss = losses.build(CrossEntropy(kind="cross_entropy", reduction="none"))
    rows = loss(torch.tensor(LOGITS), torch.tensor(TARGETS))
    assert rows.tolist() == pytest.approx([0.8334, 1.4536, 1.1207], abs=5e-5)


@pytest.mark.parametrize("kind", ["cross_entropy", "nll", "bce"])
def test_weights_that_are_all_0_are_refused(kind: str) -> None:
    with pytest.raises(ValidationError, match="every factor is 0"):
        read({"kind": kind, "weight": (0.0, 0.0)})


@pytest.mark.parametrize("kind", ["cross_entropy", "nll"])
def test_weights_that_leave_no_class_are_refused(kind: str) -> None:
    with pytest.raises(ValidationError, match="leave no class to train on"):
        read({"kind": kind, "weight": (0.0, 0.0, 1.0), "ignore_index": 2})


@pytest.mark.parametrize(
    "options",
    [{}, {"weight": WEIGHT}, {"ignore_index": 2}, {"weight": WEIGHT, "ignore_index": 2, "label_smoothing": 0.1}],
)
def test_a_sum_divided_by_the_row_weights_is_the_mean_of_torch(options: dict[str, Any]) -> None:
    z, y = torch.tensor(LOGITS), torch.tensor(TARGETS)
    total, mean = (read({"kind": "cross_entropy", "reduction": name} | options) for name in ("sum", "mean"))
    linear = Linear(kind="linear")
    expected = losses.build(mean).double()(z, y).item()
    assert losses.mean_loss(total, linear, z.float(), y) == pytest.approx(expected, rel=1e-6)
    divided = losses.build(total).double()(z, y).item() / losses.row_weights(total, y).sum().item()
    assert divided == pytest.approx(expected, rel=1e-6)


GRADIENT_CASES: list[tuple[dict[str, Any], str]] = [
    ({"kind": "cross_entropy"}, "logits"),
    ({"kind": "cross_entropy", "reduction": "sum"}, "logits"),
    ({"kind": "cross_entropy"}, "sigmoid"),
    ({"kind": "cross_entropy", "weight": WEIGHT, "label_smoothing": 0.1}, "logits"),
    ({"kind": "cross_entropy", "ignore_index": 1}, "logits"),
    ({"kind": "nll", "weight": WEIGHT}, "log_softmax"),
    ({"kind": "bce", "reduction": "sum"}, "sigmoid"),
    ({"kind": "bce_with_logits", "pos_weight": WEIGHT}, "logits"),
    ({"kind": "mse"}, "softmax"),
]


def gradient_of(loss: Loss, model: Model, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    derivative, share = losses.logit_gradient(loss, model)(logits, wanted)
    return derivative * share


@pytest.mark.parametrize(("given", "output"), GRADIENT_CASES)
def test_the_gradient_equals_that_of_backward(given: dict[str, Any], output: str) -> None:
    loss, model = read(given), Linear.model_validate({"kind": "linear", "output": output})
    z = torch.tensor(LOGITS, dtype=torch.float32).requires_grad_()
    target = losses.targets(loss, torch.tensor(TARGETS), z.shape[1])
    losses.build(loss)(class_probabilities.activate(z, model), target).backward()
    assert z.grad is not None
    found = gradient_of(loss, model, z.detach().t(), losses.gradient_targets(loss, model, target, z.shape[1]))
    # Bit for bit, except for plain cross-entropy, whose gradient is written out.
    tolerance = 1e-6 if losses.is_plain_cross_entropy(loss, model) else 0
    torch.testing.assert_close(found.t(), z.grad, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize(("given", "output"), GRADIENT_CASES)
def test_the_gradients_of_stacked_networks_equal_those_of_each_network(given: dict[str, Any], output: str) -> None:
    loss, model = read(given), Linear.model_validate({"kind": "linear", "output": output})
    z = torch.tensor(LOGITS, dtype=torch.float32)
    several, y = torch.stack([z, 2 * z, -z]), torch.tensor(TARGETS)
    orders = [y, y.flip(0), y.roll(1)]
    targets = [losses.targets(loss, own, z.shape[1]) for own in orders]
    own = [losses.gradient_targets(loss, model, target, z.shape[1]) for target in targets]
    expected = [gradient_of(loss, model, one.t(), wanted) for one, wanted in zip(several, own, strict=True)]
    found = gradient_of(loss, model, several.mT, torch.stack(own))
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-6, atol=1e-8)
    shared = gradient_of(loss, model, several.mT, own[0])
    torch.testing.assert_close(shared[1], gradient_of(loss, model, several[1].t(), own[0]), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("retired", "modern"),
    [
        ({"size_average": True}, "mean"),
        ({"size_average": False}, "sum"),
        ({"size_average": "false"}, "sum"),
        ({"reduce": True}, "mean"),
        ({"reduce": False}, "none"),
        ({"size_average": False, "reduce": True}, "sum"),
        ({"size_average": True, "reduce": False}, "none"),
    ],
)
@pytest.mark.parametrize("kind", FORMULAS)
def test_retired_options_are_refused_with_todays_spelling(kind: str, retired: dict[str, Any], modern: str) -> None:
    with pytest.raises(ValidationError, match=f"retired: use reduction '{modern}'"):
        read({"kind": kind} | retired)


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "bce", "pos_weight": (1.0,)},
        {"kind": "mse", "weight": (1.0,)},
        {"kind": "nll", "label_smoothing": 0.1},
        {"kind": "bce_with_logits", "ignore_index": 1},
    ],
)
def test_options_that_torch_does_not_have_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        read(given)
