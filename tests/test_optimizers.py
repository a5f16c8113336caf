import math
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from torch import nn

from flows import options
from tasks.ml import optimizers, outputs, training
from tasks.ml.config import Training
from tasks.ml.data import open_split
from tasks.ml.errors import DivergedError
from tasks.ml.history import curves
from tasks.ml.models import logits
from tests.conftest import fit, load, prepare

UPDATES = 5


def rates(tokens: list[str], epochs: int) -> list[float]:
    """The learning rate at the start of every epoch."""
    training = options.experiment("iris", tokens).training
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], training.lr)
    schedule = optimizers.schedule(optimizer, training, UPDATES)
    assert schedule is not None
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        for _ in range(UPDATES if training.schedule.kind == "one_cycle" else 1):
            optimizer.step()
            schedule.step()
    return found


def tokens(kind: str, epochs: int, *more: str) -> list[str]:
    return [f"--training.epochs={epochs}", "--training.lr=1", f"--training.schedule.kind={kind}", *more]


def test_cosine_is_half_a_cosine_from_lr_to_0() -> None:
    expected = [(1 + math.cos(math.pi * epoch / 8)) / 2 for epoch in range(9)]
    assert rates(tokens("cosine", 8), 9) == pytest.approx(expected, abs=1e-9)


def test_step_multiplies_every_so_many_epochs() -> None:
    found = rates(tokens("step", 7, "--training.schedule.every=3", "--training.schedule.factor=0.5"), 7)
    assert found == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_one_cycle_rises_to_lr_and_falls_to_nearly_nothing() -> None:
    found = rates(tokens("one_cycle", 10, "--training.schedule.warmup=0.3"), 10)
    assert found[0] == pytest.approx(1 / 25)
    assert found[3] == pytest.approx(1, abs=0.01)
    assert found[-1] < 0.1
    assert all(later > earlier for earlier, later in pairwise(found[:4]))
    assert all(later < earlier for earlier, later in pairwise(found[3:]))


def test_constant_needs_no_schedule() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    assert optimizers.schedule(optimizer, Training(), UPDATES) is None


@pytest.mark.parametrize("kind", ["cosine", "step", "one_cycle"])
def test_a_schedule_is_followed_in_training_and_its_rates_are_logged(kind: str, tmp_path: Path) -> None:
    experiment = options.experiment("iris", [*tokens(kind, 12), "--training.batch_size=18"])
    done = fit(experiment, prepare(experiment.data, tmp_path), tmp_path)
    logged = curves(done.history)["train/lr"][1]
    assert logged == pytest.approx(rates([*tokens(kind, 12)], 12))


@pytest.mark.parametrize(
    ("options_of", "expected"),
    [
        (["--training.optimizer=sgd"], torch.optim.SGD),
        (["--training.optimizer=adam"], torch.optim.Adam),
        (["--training.optimizer=adamw", "--training.weight_decay=0.3"], torch.optim.AdamW),
        (["--training.optimizer=sgd", "--training.momentum=0.9", "--training.nesterov=true"], torch.optim.SGD),
    ],
)
def test_optimizers_are_torchs_with_the_options_given(
    options_of: list[str], expected: type[torch.optim.Optimizer]
) -> None:
    training = options.experiment("iris", options_of).training
    optimizer = optimizers.build(nn.Linear(2, 1), training)
    assert type(optimizer) is expected
    group = optimizer.param_groups[0]
    for name in ("lr", "weight_decay", "momentum", "nesterov"):
        if name in group:
            assert group[name] == getattr(training, name)


def test_the_penalty_is_half_the_squared_weights_without_biases() -> None:
    network = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    for parameter in network.parameters():
        nn.init.constant_(parameter, 3.0)
    penalty = optimizers.penalty(network, 0.5)
    assert isinstance(penalty, torch.Tensor)
    assert penalty.item() == pytest.approx(0.25 * (9 + 9 + 9))
    assert optimizers.penalty(network, 0.0) == 0.0


@pytest.mark.parametrize(("preset", "c"), [("iris_softmax", 1e10), ("iris_softmax_l2", 1.0)])
def test_lbfgs_finds_what_scikit_learn_finds(preset: str, c: float, tmp_path: Path) -> None:
    experiment = options.experiment(preset, [])
    dataset = prepare(experiment.data, tmp_path)
    done = fit(experiment, dataset, tmp_path)
    assert done.stopped == "converged"
    classifier, rows = load(done, dataset, experiment), open_split(dataset, "test")
    scaled = classifier.scaling(torch.tensor(rows.x)).numpy().astype(np.float64)
    reference = LogisticRegression(C=c, tol=1e-10, max_iter=100_000).fit(scaled, rows.y)
    found = outputs.probabilities(logits(classifier, rows.x), experiment.model, experiment.training.loss)
    np.testing.assert_allclose(found, reference.predict_proba(scaled), atol=2e-3)
    if c == 1.0:
        # Unpenalised, the weights of a class that can be told apart entirely grow without end.
        np.testing.assert_allclose(load_file(done.weights)["network.0.weight"], reference.coef_, atol=2e-3)


@pytest.mark.parametrize(("monitor", "metric"), [("validation", "val/loss"), ("test", "test/loss")])
def test_early_stopping_keeps_the_best_weights(
    monitor: Literal["validation", "test"], metric: str, tmp_path: Path
) -> None:
    experiment = options.experiment(
        "blobs", ["--training.lr=2", "--training.patience=7", f"--training.monitor={monitor}"]
    )
    dataset = prepare(experiment.data, tmp_path)
    done = fit(experiment, dataset, tmp_path)
    watched = curves(done.history)[metric][1]
    best = int(np.argmin(watched)) + 1
    assert (done.best_epoch, done.epochs) == (best, best + 7)
    assert done.stopped == f"no lower {monitor} loss in 7 epochs"
    rows = open_split(dataset, monitor)
    kept = logits(load(done, dataset, experiment), rows.x)
    assert nn.functional.cross_entropy(kept, torch.tensor(rows.y)).item() == pytest.approx(min(watched), rel=1e-5)
    assert min(watched) < watched[-1]


@pytest.mark.parametrize("patience", [0, 5])
def test_a_validation_loss_that_is_no_number_is_found(patience: int, tmp_path: Path) -> None:
    tokens = ["--training.optimizer=sgd", "--training.lr=1e15", "--training.epochs=1"]
    experiment = options.experiment("iris", [*tokens, f"--training.patience={patience}"])
    with pytest.raises(DivergedError, match=r"the val/loss is (nan|inf)"):
        fit(experiment, prepare(experiment.data, tmp_path), tmp_path / "fit")


def test_a_batch_that_counts_nothing_is_said_to_be_one(tmp_path: Path) -> None:
    experiment = options.experiment("iris", ["--training.loss.ignore_index=0", "--training.batch_size=1"])
    with pytest.raises(DivergedError, match=r"try a larger --training\.batch_size"):
        fit(experiment, prepare(experiment.data, tmp_path), tmp_path / "fit")


def test_unseeded_weights_are_drawn_anew_and_their_seed_is_recorded(tmp_path: Path) -> None:
    experiment = options.experiment("blobs_as_published", ["--training.epochs=2"])
    dataset = prepare(experiment.data, tmp_path)
    first, second = (fit(experiment, dataset, tmp_path / name) for name in ("one", "two"))
    assert first.weights_sha256 != second.weights_sha256
    seeded = experiment.training.model_copy(update={"initial_weights": "seeded", "seed": first.initial_seed})
    again = fit(experiment.model_copy(update={"training": seeded}), dataset, tmp_path / "three")
    assert again.weights_sha256 == first.weights_sha256


def test_without_shuffling_the_rows_come_in_their_order(tmp_path: Path) -> None:
    experiment = options.experiment("threshold_as_published", ["--training.epochs=1", "--training.lr=1e-30"])
    dataset = prepare(experiment.data, tmp_path)
    done = fit(experiment, dataset, tmp_path)
    # With weights that stand still, each step's loss is that of its two points.
    rows = open_split(dataset, "train")
    z = -0.0075 * rows.x[:, 0] + 0.5364
    losses = np.where(rows.y == 1, np.log1p(np.exp(-z)), np.log1p(np.exp(z))).reshape(20, 2).mean(axis=1)
    np.testing.assert_allclose(curves(done.history)["train/step_loss"][1], losses, atol=1e-3)


@pytest.mark.parametrize("monitor", ["validation", "test"])
def test_the_test_split_is_measured_every_epoch_only_where_it_is_watched(monitor: str, tmp_path: Path) -> None:
    experiment = options.experiment("iris", [f"--training.monitor={monitor}", "--training.epochs=3"])
    done = fit(experiment, prepare(experiment.data, tmp_path), tmp_path)
    assert ("test/accuracy" in curves(done.history)) == (monitor == "test")


@pytest.mark.parametrize(
    "of_loss",
    [
        (),
        ("--training.loss.weight=1,2,5",),
        ("--training.loss.ignore_index=1",),
        ("--training.loss.kind=bce_with_logits",),
    ],
)
def test_a_loss_is_logged_as_its_mean_over_rows_however_it_is_reduced_and_cut(
    of_loss: tuple[str, ...], tmp_path: Path
) -> None:
    still = ["--training.epochs=1", "--training.optimizer=sgd", "--training.lr=1e-30", *of_loss]
    ways = ([], ["--training.loss.reduction=sum"], ["--training.batch_size=17"])
    dataset = prepare(options.experiment("iris", []).data, tmp_path)
    found = [fit(options.experiment("iris", [*still, *way]), dataset, tmp_path).metrics for way in ways]
    for metric in ("train/loss", "val/loss"):
        assert [metrics[metric] for metrics in found] == pytest.approx([found[0][metric]] * 3, rel=1e-5)


def test_lbfgs_that_cannot_move_does_not_say_that_it_has_converged(tmp_path: Path) -> None:
    experiment = options.experiment("iris", ["--training.optimizer=lbfgs", "--training.lr=1e-10"])
    assert fit(experiment, prepare(experiment.data, tmp_path), tmp_path).stopped == "no step lowers the loss"


def test_a_convolutional_network_learns_digits_and_is_the_same_each_time(tmp_path: Path) -> None:
    experiment = options.experiment(
        "digits", ["--model.kind=cnn", "--model.channels=8,16", "--model.hidden=32", "--training.epochs=12"]
    )
    dataset = prepare(experiment.data, tmp_path)
    first, second = (fit(experiment, dataset, tmp_path / name) for name in ("one", "two"))
    assert first.metrics["val/accuracy"] > 0.9
    assert first.weights_sha256 == second.weights_sha256
    assert first.threads == torch.get_num_threads()


def test_linear_models_use_one_thread() -> None:
    torch.set_num_threads(2)
    with training.threads(options.experiment("iris", []).model) as count:
        assert count == torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
