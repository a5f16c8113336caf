import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hallmark.flows.experiments import presets
from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.common.records import Dataset, Fit
from hallmark.tasks.ml.config.data import Digits, Split
from hallmark.tasks.ml.config.experiment import Experiment, Training
from hallmark.tasks.ml.config.models import MLP, Linear
from hallmark.tasks.ml.data import dataset_store
from hallmark.tasks.ml.models import networks, preprocessing
from hallmark.tasks.ml.training import batches, trainer
from hallmark.tasks.ml.training.history import History, curves
from hallmark.tasks.ml.training.optim import optimizers
from tests.conftest import fit, load, prepare

Points = list[tuple[int, dict[str, float]]]


def logged(experiment: Experiment, dataset: Dataset, folder: Path) -> tuple[Fit, Points]:
    points: Points = []
    done = trainer.fit(
        dataset,
        experiment.data,
        experiment.model,
        experiment.training,
        folder,
        lambda step, metrics, _: points.append((step, metrics)),
    )
    return done, points


def plain_loop(experiment: Experiment, dataset: Dataset, optimizer: type[torch.optim.Optimizer]) -> torch.nn.Module:
    """Train with the plain loop of the tutorials, in the row order that Hallmark documents."""
    scaling = preprocessing.fit_scaling(dataset, experiment.data)
    rows = dataset_store.open_split(dataset, "train")
    x, y = scaling(torch.tensor(rows.x)), torch.tensor(rows.y)
    config = experiment.training
    network = networks.build(experiment.model, dataset.shape, len(dataset.classes), config.seed)
    steps = optimizer(network.parameters(), lr=config.lr)  # type: ignore[call-arg]
    for epoch in range(1, config.epochs + 1):
        size = len(y) if config.batch_size == "full" else config.batch_size
        order = range(len(y)) if config.batch_size == "full" else batches.order(config.seed, epoch, len(y)).tolist()
        for start in range(0, len(y), size):
            batch = list(order[start : start + size])
            steps.zero_grad()
            torch.nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            steps.step()
    return network


@pytest.mark.parametrize(
    ("model", "config", "optimizer"),
    [
        (MLP(kind="mlp", hidden=(50, 50)), Training(device="cpu", epochs=20), torch.optim.Adam),
        (
            Linear(kind="linear"),
            Training(device="cpu", epochs=5, optimizer="sgd", lr=0.1, batch_size=7),
            torch.optim.SGD,
        ),
        (
            MLP(kind="mlp", hidden=(50, 9)),
            Training(device="cpu", epochs=5, optimizer="sgd", lr=0.1, batch_size=7),
            torch.optim.SGD,
        ),
        (MLP(kind="mlp", hidden=(9,)), Training(device="cpu", epochs=5, batch_size=32, seed=3), torch.optim.Adam),
    ],
)
def test_the_weights_are_those_of_a_plain_loop(
    iris: tuple[Experiment, Dataset],
    tmp_path: Path,
    model: MLP | Linear,
    config: Training,
    optimizer: type[torch.optim.Optimizer],
    set_threads: Callable[[int], None],
) -> None:
    experiment = iris[0].model_copy(update={"model": model, "training": config})
    weights = load_file(fit(experiment, iris[1], tmp_path).weights)
    set_threads(1)
    expected = plain_loop(experiment, iris[1], optimizer).state_dict()
    for name, weight in expected.items():
        torch.testing.assert_close(weights[f"network.{name}"], weight, rtol=2e-5, atol=1e-6)


def test_seeds_and_options_change_the_weights(iris: tuple[Experiment, Dataset], tmp_path: Path) -> None:
    experiment, dataset = iris
    digests = set()
    changes: list[dict[str, object]] = [{}, {"seed": 1}, {"lr": 0.02}, {"weight_decay": 0.1}, {"batch_size": 30}]
    changes += [{"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0.9}]
    for change in changes:
        config = experiment.training.model_copy(update={"epochs": 3, **change})
        digests.add(fit(experiment.model_copy(update={"training": config}), dataset, tmp_path).weights_sha256)
    assert len(digests) == len(changes)


def test_the_order_is_a_pure_function_of_seed_and_epoch() -> None:
    assert torch.equal(batches.order(1, 2, 100), batches.order(1, 2, 100))
    assert sorted(batches.order(1, 2, 100).tolist()) == list(range(100))
    others = [batches.order(1, 3, 100), batches.order(2, 2, 100), batches.order(2, 1, 100)]
    assert not any(torch.equal(batches.order(1, 2, 100), other) for other in others)


def test_metrics_are_means_over_the_epoch_measured_before_each_update(
    iris: tuple[Experiment, Dataset], tmp_path: Path
) -> None:
    experiment, dataset = iris
    config = Training(device="cpu", epochs=3, batch_size=40, optimizer="sgd", lr=0.1)
    done, points = logged(experiment.model_copy(update={"training": config}), dataset, tmp_path)
    epochs = [(step, metrics) for step, metrics in points if "train/loss" in metrics]
    losses = [metrics["train/step_loss"] for _, metrics in points if "train/step_loss" in metrics]
    assert [step for step, _ in epochs] == [1, 2, 3]
    assert set(epochs[0][1]) == {"train/loss", "train/accuracy", "time/epoch_seconds", "val/loss", "val/accuracy"}
    # Batches of 40, 40 and 10 rows: each row counts once.
    expected = [(40 * a + 40 * b + 10 * c) / 90 for a, b, c in (losses[:3], losses[3:6], losses[6:])]
    assert [metrics["train/loss"] for _, metrics in epochs] == pytest.approx(expected)
    assert done.metrics == epochs[-1][1]


def test_validation_is_measured_after_the_epoch(iris: tuple[Experiment, Dataset], fitted: Fit) -> None:
    experiment, dataset = iris
    rows = dataset_store.open_split(dataset, "validation")
    with torch.no_grad():
        logits = load(fitted, dataset, experiment).logits(torch.tensor(rows.x))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(rows.y)).item()
    assert fitted.metrics["val/loss"] == pytest.approx(loss, rel=1e-6)


def test_without_a_validation_split_no_validation_metric_is_logged(tmp_path: Path) -> None:
    experiment = presets.get("iris_as_published")
    _, points = logged(experiment, prepare(experiment.data, tmp_path), tmp_path)
    assert not [name for _, metrics in points for name in metrics if name.startswith("val")]


def test_the_history_file_has_every_update_and_the_log_at_most_a_thousand(tmp_path: Path) -> None:
    experiment = Experiment(
        name="d",
        data=Digits(kind="digits", split=Split(test=0.2, validation=0.2)),
        model=Linear(kind="linear"),
        training=Training(device="cpu", epochs=3, batch_size=2),
    )
    done, points = logged(experiment, prepare(experiment.data, tmp_path), tmp_path)
    updates = 3 * math.ceil(1078 / 2)
    thinned = [step for step, metrics in points if "train/step_loss" in metrics]
    assert 800 <= len(thinned) <= 1000
    assert len({later - earlier for earlier, later in pairwise(thinned)}) == 1
    read = curves(done.history)
    assert read["train/step_loss"][0] == list(range(1, updates + 1))
    assert read["train/loss"][0] == read["val/accuracy"][0] == [1, 2, 3]


@pytest.mark.parametrize(
    ("updates", "spacing"), [(1, 1), (999, 1), (1000, 1), (1001, 2), (2000, 2), (2001, 3), (2500, 3)]
)
def test_a_history_logs_evenly_spaced_updates_and_its_file_has_every_one(
    updates: int, spacing: int, tmp_path: Path
) -> None:
    points: Points = []
    history = History(updates, lambda step, metrics, _: points.append((step, metrics)))
    losses = np.arange(1, updates + 1, dtype=np.float32)  # the loss of an update is its number
    for start in range(0, updates, 77):
        history.record_updates(losses[start : start + 77])
    assert points == [(step, {"train/step_loss": step}) for step in range(spacing, updates + 1, spacing)]
    every = list(range(1, updates + 1))
    assert curves(history.save(tmp_path / "history.parquet")) == {"train/step_loss": (every, every)}


def test_a_loss_that_is_not_finite_stops_training_at_once_and_writes_nothing(
    iris: tuple[Experiment, Dataset], tmp_path: Path
) -> None:
    experiment = iris[0].model_copy(
        update={"training": Training(device="cpu", epochs=50, optimizer="sgd", lr=1e30, batch_size=10)}
    )
    points: Points = []
    with pytest.raises(DivergedError, match=r"is (nan|inf) at epoch 1, step \d+, learning rate 1e\+30"):
        trainer.fit(
            iris[1],
            experiment.data,
            experiment.model,
            experiment.training,
            tmp_path / "fit",
            lambda step, metrics, _: points.append((step, metrics)),
        )
    assert not (tmp_path / "fit").exists()
    assert all(math.isfinite(value) for _, metrics in points for value in metrics.values())


def test_a_weight_that_the_last_update_made_infinite_is_detected(
    iris: tuple[Experiment, Dataset], tmp_path: Path
) -> None:
    source = iris[0].data.model_copy(update={"split": Split(validation=0), "scaling": "none"})
    config = Training(device="cpu", epochs=1, optimizer="sgd", lr=3e38, weight_decay=1e10)
    experiment = iris[0].model_copy(update={"data": source, "training": config})
    with pytest.raises(DivergedError, match=r"the largest weight is (inf|nan) at epoch 1, step 1"):
        fit(experiment, prepare(source, tmp_path), tmp_path / "fit")


def test_training_restores_the_number_of_threads(
    iris: tuple[Experiment, Dataset], set_threads: Callable[[int], None], tmp_path: Path
) -> None:
    set_threads(2)
    fit(iris[0], iris[1], tmp_path)
    assert torch.get_num_threads() == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine")
def test_cuda_learns_what_the_cpu_learns(iris: tuple[Experiment, Dataset], tmp_path: Path) -> None:
    config = iris[0].training.model_copy(update={"device": "cuda"})
    on_gpu = fit(iris[0].model_copy(update={"training": config}), iris[1], tmp_path / "gpu")
    on_cpu = fit(iris[0], iris[1], tmp_path / "cpu")
    assert on_gpu.device == "cuda"
    assert on_gpu.metrics["train/loss"] == pytest.approx(on_cpu.metrics["train/loss"], rel=1e-2)


def test_tf32_is_off_unless_requested(
    iris: tuple[Experiment, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []
    real = optimizers.build

    def build(*given: object) -> optimizers.Optimizer:
        seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(optimizers, "build", build)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    for is_requested in (False, True):
        training = iris[0].training.model_copy(update={"epochs": 1, "tf32": is_requested})
        fit(iris[0].model_copy(update={"training": training}), iris[1], tmp_path)
    assert seen == [(False, False), (True, True)]
    assert before == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
