import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.optim import lr_scheduler

from hallmark.flows.experiments import options
from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.ml.config.experiment import Training
from hallmark.tasks.ml.data.dataset_store import open_split
from hallmark.tasks.ml.models import class_probabilities
from hallmark.tasks.ml.models.networks import logits
from hallmark.tasks.ml.training import trainer
from hallmark.tasks.ml.training.history import curves
from hallmark.tasks.ml.training.optim import lr_schedules, optimizers, update_step
from tests.conftest import fit, load, prepare

UPDATES = 5


def rates(tokens: list[str], epochs: int) -> list[float]:
    """Return the learning rate at the start of every epoch."""
    training = options.experiment("iris", tokens).training
    schedule = training.schedule, training.epochs, UPDATES
    return [training.lr * lr_schedules.factor(*schedule, epoch, 0) for epoch in range(1, epochs + 1)]


def tokens(kind: str, epochs: int, *more: str) -> list[str]:
    return [f"--training.epochs={epochs}", "--training.lr=1", f"--training.schedule.kind={kind}", *more]


def test_cosine_is_half_a_cosine_from_lr_to_0() -> None:
    expected = [(1 + math.cos(math.pi * epoch / 8)) / 2 for epoch in range(9)]
    assert rates(tokens("cosine", 8), 9) == pytest.approx(expected, abs=1e-9)


def test_step_multiplies_the_rate_at_regular_intervals() -> None:
    found = rates(tokens("step", 7, "--training.schedule.every=3", "--training.schedule.factor=0.5"), 7)
    assert found == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_one_cycle_rises_to_lr_and_falls_to_almost_0() -> None:
    found = rates(tokens("one_cycle", 10, "--training.schedule.warmup=0.3"), 10)
    assert found[0] == pytest.approx(1 / 25)
    assert found[3] == pytest.approx(1, abs=0.01)
    assert found[-1] < 0.1
    assert all(later > earlier for earlier, later in pairwise(found[:4]))
    assert all(later < earlier for earlier, later in pairwise(found[3:]))


def test_constant_does_not_change_the_rate() -> None:
    assert {lr_schedules.factor(Training().schedule, 3, UPDATES, epoch, 2) for epoch in (1, 2, 3)} == {1.0}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (tokens("cosine", 7), lambda steps: lr_scheduler.CosineAnnealingLR(steps, T_max=7)),
        (tokens("step", 7, "--training.schedule.every=2"), lambda steps: lr_scheduler.StepLR(steps, 2, 0.1)),
        (
            tokens("one_cycle", 7, "--training.schedule.warmup=0.2"),
            lambda steps: lr_scheduler.OneCycleLR(steps, 1, total_steps=7 * UPDATES + 1, pct_start=0.2),
        ),
    ],
)
def test_schedules_equal_those_of_torch(given: list[str], expected: Callable[..., lr_scheduler.LRScheduler]) -> None:
    training = options.experiment("iris", given).training
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], training.lr, momentum=0.5)
    scheduler = expected(optimizer)
    for epoch in range(1, 8):
        for update in range(UPDATES):
            found = training.lr * lr_schedules.factor(training.schedule, 7, UPDATES, epoch, update)
            assert found == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
            if training.schedule.kind == "one_cycle":
                optimizer.step()
                scheduler.step()
        if training.schedule.kind != "one_cycle":
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize("kind", ["cosine", "step", "one_cycle"])
def test_a_schedule_is_followed_in_training_and_its_rates_are_logged(kind: str, tmp_path: Path) -> None:
    experiment = options.experiment("iris", [*tokens(kind, 12), "--training.batch_size=18"])
    done = fit(experiment, prepare(experiment.data, tmp_path), tmp_path)
    logged = curves(done.history)["train/lr"][1]
    assert logged == pytest.approx(rates([*tokens(kind, 12)], 12))


RULES: list[tuple[dict[str, Any], type[torch.optim.Optimizer]]] = [
    ({"optimizer": "sgd"}, torch.optim.SGD),
    ({"optimizer": "sgd", "weight_decay": 0.1}, torch.optim.SGD),
    ({"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1}, torch.optim.SGD),
    ({"optimizer": "sgd", "momentum": 0.9, "nesterov": True}, torch.optim.SGD),
    ({"optimizer": "adam"}, torch.optim.Adam),
    ({"optimizer": "adam", "weight_decay": 0.1}, torch.optim.Adam),
    ({"optimizer": "adamw", "weight_decay": 0.3}, torch.optim.AdamW),
]


def apply_steps(training: Training, rule: optimizers.Optimizer, gradients: list[list[torch.Tensor]]) -> None:
    for update, step in enumerate(gradients):
        for own, gradient in zip(rule.gradients, step, strict=True):
            own.copy_(gradient)
        rule.step(optimizers.update_factors(training, 0.5 if update > 3 else 1.0, update))


def torch_steps(
    torch_class: type[torch.optim.Optimizer], training: Training, weights: torch.Tensor, gradients: list[torch.Tensor]
) -> torch.Tensor:
    """Return the weights after the same steps by torch's own optimizer."""
    parameter = nn.Parameter(weights.clone())
    extra = {"momentum": training.momentum, "nesterov": training.nesterov} if torch_class is torch.optim.SGD else {}
    reference = torch_class([parameter], lr=training.lr, weight_decay=training.weight_decay, **extra)  # type: ignore[call-arg]
    for update, gradient in enumerate(gradients):
        reference.param_groups[0]["lr"] = training.lr * (0.5 if update > 3 else 1.0)
        parameter.grad = gradient.clone()
        reference.step()
    return parameter.detach()


@pytest.mark.parametrize(("given", "torch_class"), RULES)
def test_optimizers_equal_those_of_torch_bit_for_bit(
    given: dict[str, Any], torch_class: type[torch.optim.Optimizer]
) -> None:
    training = Training(lr=0.05, **given)
    weights = torch.randn((1, 40), generator=torch.Generator().manual_seed(0))
    gradients = [[torch.randn((1, 40), generator=torch.Generator().manual_seed(seed))] for seed in range(1, 9)]
    own = [weights.clone()]
    rule = optimizers.build(
        training, training.lr, training.momentum, training.weight_decay, own, [torch.zeros_like(weights)]
    )
    apply_steps(training, rule, gradients)
    expected = torch_steps(torch_class, training, weights, [gradient for (gradient,) in gradients])
    assert own[0].tolist() == expected.tolist()


@pytest.mark.parametrize(("given", "torch_class"), RULES)
def test_stacked_networks_with_their_own_hyperparameters_train_like_each_alone_in_torch(
    given: dict[str, Any], torch_class: type[torch.optim.Optimizer]
) -> None:
    momentum, decay = given.get("momentum", 0), given.get("weight_decay", 0)
    trainings = [
        Training(**given | {"momentum": momentum / scale, "weight_decay": decay * scale}, lr=scale / 50)
        for scale in (1, 2, 3)
    ]
    weights = torch.randn((3, 40), generator=torch.Generator().manual_seed(0))
    gradients = [[torch.randn((3, 40), generator=torch.Generator().manual_seed(seed))] for seed in range(1, 9)]
    lr, momenta, decays = (
        torch.tensor([getattr(one, name) for one in trainings])[:, None] for name in ("lr", "momentum", "weight_decay")
    )
    together = [weights.clone()]
    rule = optimizers.build(
        trainings[0], lr, momenta if momentum else 0.0, decays, together, [torch.zeros_like(weights)]
    )
    apply_steps(trainings[0], rule, gradients)
    for index, one in enumerate(trainings):
        expected = torch_steps(torch_class, one, weights[index], [gradient[index] for (gradient,) in gradients])
        torch.testing.assert_close(together[0][index], expected, rtol=1e-5, atol=1e-6)


def test_the_penalty_is_half_the_squared_weights_without_biases() -> None:
    network = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    for parameter in network.parameters():
        nn.init.constant_(parameter, 3.0)
    penalty = update_step.penalty(network, 0.5)
    assert isinstance(penalty, torch.Tensor)
    assert penalty.item() == pytest.approx(0.25 * (9 + 9 + 9))
    assert update_step.penalty(network, 0.0) == 0.0


@pytest.mark.parametrize(("preset", "c"), [("iris_softmax", 1e10), ("iris_softmax_l2", 1.0)])
def test_lbfgs_agrees_with_scikit_learn(preset: str, c: float, tmp_path: Path) -> None:
    experiment = options.experiment(preset, [])
    dataset = prepare(experiment.data, tmp_path)
    done = fit(experiment, dataset, tmp_path)
    assert done.stopped == "converged"
    classifier, rows = load(done, dataset, experiment), open_split(dataset, "test")
    scaled = classifier.scaling(torch.tensor(rows.x)).numpy().astype(np.float64)
    reference = LogisticRegression(C=c, tol=1e-10, max_iter=100_000).fit(scaled, rows.y)
    found = class_probabilities.probabilities(logits(classifier, rows.x), experiment.model, experiment.training.loss)
    np.testing.assert_allclose(found, reference.predict_proba(scaled), atol=2e-3)
    if c == 1.0:
        # Without a penalty, the weights of a perfectly separable class grow without bound.
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
    monitored = curves(done.history)[metric][1]
    best = int(np.argmin(monitored)) + 1
    assert (done.best_epoch, done.epochs) == (best, best + 7)
    assert done.stopped == f"no lower {monitor} loss in 7 epochs"
    rows = open_split(dataset, monitor)
    kept = logits(load(done, dataset, experiment), rows.x)
    assert nn.functional.cross_entropy(kept, torch.tensor(rows.y)).item() == pytest.approx(min(monitored), rel=1e-5)
    assert min(monitored) < monitored[-1]


@pytest.mark.parametrize("patience", [0, 5])
def test_a_validation_loss_that_is_not_finite_is_detected(patience: int, tmp_path: Path) -> None:
    tokens = ["--training.optimizer=sgd", "--training.lr=1e15", "--training.epochs=1"]
    experiment = options.experiment("iris", [*tokens, f"--training.patience={patience}"])
    with pytest.raises(DivergedError, match=r"the val/loss is (nan|inf)"):
        fit(experiment, prepare(experiment.data, tmp_path), tmp_path / "fit")


def test_a_batch_in_which_all_rows_are_ignored_is_reported_with_a_remedy(tmp_path: Path) -> None:
    experiment = options.experiment("iris", ["--training.loss.ignore_index=0", "--training.batch_size=1"])
    with pytest.raises(DivergedError, match=r"try a larger --training\.batch_size"):
        fit(experiment, prepare(experiment.data, tmp_path), tmp_path / "fit")


def test_unseeded_weights_differ_each_time_and_their_seed_is_recorded(tmp_path: Path) -> None:
    experiment = options.experiment("blobs_as_published", ["--training.epochs=2"])
    dataset = prepare(experiment.data, tmp_path)
    first, second = (fit(experiment, dataset, tmp_path / name) for name in ("one", "two"))
    assert first.weights_sha256 != second.weights_sha256
    seeded = experiment.training.model_copy(update={"initial_weights": "seeded", "seed": first.initial_seed})
    again = fit(experiment.model_copy(update={"training": seeded}), dataset, tmp_path / "three")
    assert again.weights_sha256 == first.weights_sha256


def test_without_shuffling_the_rows_keep_their_order(tmp_path: Path) -> None:
    experiment = options.experiment("threshold_as_published", ["--training.epochs=1", "--training.lr=1e-30"])
    dataset = prepare(experiment.data, tmp_path)
    done = fit(experiment, dataset, tmp_path)
    # The weights do not change, so each step's loss is that of its two points.
    rows = open_split(dataset, "train")
    z = -0.0075 * rows.x[:, 0] + 0.5364
    losses = np.where(rows.y == 1, np.log1p(np.exp(-z)), np.log1p(np.exp(z))).reshape(20, 2).mean(axis=1)
    np.testing.assert_allclose(curves(done.history)["train/step_loss"][1], losses, atol=1e-3)


@pytest.mark.parametrize("monitor", ["validation", "test"])
def test_the_test_split_is_measured_every_epoch_only_if_it_is_monitored(monitor: str, tmp_path: Path) -> None:
    experiment = options.experiment("iris", [f"--training.monitor={monitor}", "--training.epochs=3"])
    done = fit(experiment, prepare(experiment.data, tmp_path), tmp_path)
    assert ("test/accuracy" in curves(done.history)) == (monitor == "test")


@pytest.mark.parametrize(
    "loss_options",
    [
        (),
        ("--training.loss.weight=1,2,5",),
        ("--training.loss.ignore_index=1",),
        ("--training.loss.kind=bce_with_logits",),
    ],
)
def test_the_logged_loss_is_the_mean_over_rows_for_every_reduction_and_batch_size(
    loss_options: tuple[str, ...], tmp_path: Path
) -> None:
    base_options = ["--training.epochs=1", "--training.optimizer=sgd", "--training.lr=1e-30", *loss_options]
    ways = ([], ["--training.loss.reduction=sum"], ["--training.batch_size=17"])
    dataset = prepare(options.experiment("iris", []).data, tmp_path)
    found = [fit(options.experiment("iris", [*base_options, *way]), dataset, tmp_path).metrics for way in ways]
    for metric in ("train/loss", "val/loss"):
        assert [metrics[metric] for metrics in found] == pytest.approx([found[0][metric]] * 3, rel=1e-5)


def test_lbfgs_that_cannot_move_is_not_reported_as_converged(tmp_path: Path) -> None:
    experiment = options.experiment("iris", ["--training.optimizer=lbfgs", "--training.lr=1e-10"])
    assert fit(experiment, prepare(experiment.data, tmp_path), tmp_path).stopped == "no step lowers the loss"


def test_a_convolutional_network_learns_digits_and_its_training_is_repeatable(tmp_path: Path) -> None:
    experiment = options.experiment(
        "digits", ["--model.kind=cnn", "--model.channels=8,16", "--model.hidden=32", "--training.epochs=12"]
    )
    dataset = prepare(experiment.data, tmp_path)
    first, second = (fit(experiment, dataset, tmp_path / name) for name in ("one", "two"))
    assert first.metrics["val/accuracy"] > 0.9
    assert first.weights_sha256 == second.weights_sha256
    size = experiment.model, dataset, experiment.training
    assert first.threads == trainer.threads(1, *size)


def test_small_models_use_one_thread_and_larger_ones_use_all(
    set_threads: Callable[[int], None], tmp_path: Path
) -> None:
    set_threads(2)
    small, large = (options.experiment("iris", [f"--model.hidden={width}"]) for width in (50, 5000))
    dataset = prepare(small.data, tmp_path)
    assert trainer.threads(1, small.model, dataset, small.training) == 1
    assert trainer.threads(1, large.model, dataset, large.training) == 2
    assert trainer.threads(100, small.model, dataset, small.training) == 2
