"""Sweeps beside the same members trained one after the other with the same engine, in turn; ends in one JSON line.

Members that train as one: MNIST in batches of 32 in one order, 8 learning rates by 4 weight decays. An epoch of all 32
beside 32 times an epoch of one: of each weight decay a member is trained alone, and of these the mean is taken. With it
goes the largest difference of their losses, relatively, in any epoch. Then members in the pool of processes, through
the task runner of the sweep's flow with everything that is logged, beside `training.fit` of each: small convolutional
networks on digits, each so long that the workers' start, some seconds, weighs little.
`python -m tests.bench.bench_sweep [ROUNDS]`; a round takes half a minute, and the pool, which has one, three.
"""

import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from prefect import flow
from prefect.testing.utilities import prefect_test_harness

from flows import sweep as sweeps
from tasks import attempts, tracking
from tasks.ml import training
from tasks.ml.config import CNN, MLP, Experiment, Linear, Model
from tasks.ml.config_data import Digits
from tasks.ml.history import curves
from tasks.ml.records import Attempt, Dataset, Fit
from tests.bench import rows
from tests.conftest import fit, prepare

ROUNDS = 3
EPOCHS = 3
LEARNING_RATES = [float(f"{rate:.3g}") for rate in np.geomspace(1e-4, 1e-2, 8)]
WEIGHT_DECAYS = [1e-5, 1e-4, 1e-3, 1e-2]
POOLED = 8
POOLED_EPOCHS = 120
"""Of the networks in the pool: each takes some fifteen seconds, and two workers start in six."""
POOL_ROUNDS = 1
"""One round takes three minutes, and is of eight trainings."""
STACKED: dict[str, Model] = {"softmax": Linear(kind="linear"), "mlp": MLP(kind="mlp", hidden=(32,))}
TARGETS = {"softmax": 6.0, "mlp": 3.0, "pool": 1.6}
"""How many times as long the members must take one after the other, at least."""
APART = 1e-5
"""Losses of a member may differ by so much, relatively, from those of its own training."""


def stack(model: Model) -> list[Experiment]:
    """Members that differ in learning rate and weight decay."""
    base = rows.preset("mnist", epochs=EPOCHS, batch_size=32, optimizer="sgd").model_copy(update={"model": model})
    pairs = [{"lr": lr, "weight_decay": decay} for lr in LEARNING_RATES for decay in WEIGHT_DECAYS]
    return [base.model_copy(update={"training": base.training.model_copy(update=pair)}) for pair in pairs]


def together(members: list[Experiment], dataset: Dataset, folder: Path) -> list[Fit]:
    folders = [folder / str(index) for index in range(len(members))]
    trainings, logs = [member.training for member in members], [lambda *_: None for _ in members]
    found = training.fit_together(dataset, members[0].data, members[0].model, trainings, folders, logs)
    return [one for one in found if isinstance(one, Fit)]


def stacked(model: Model, dataset: Dataset, folder: Path) -> tuple[float, float, float]:
    """Seconds an epoch of all together and one after the other, and how far their losses are apart."""
    members = stack(model)
    both = together(members, dataset, folder)
    chosen = range(0, len(members), len(members) // len(WEIGHT_DECAYS) + 1)
    alone = {index: fit(members[index], dataset, folder / "alone" / str(index)) for index in chosen}
    apart = max(difference(both[index], one) for index, one in alone.items())
    return rows.epoch_seconds(both[0]), len(members) * statistics.mean(map(rows.epoch_seconds, alone.values())), apart


def difference(one: Fit, other: Fit) -> float:
    """Of training and validation loss, relatively, in any epoch."""
    both = [curves(fitted.history) for fitted in (one, other)]
    pairs = [np.array([read[name][1] for read in both]) for name in ("train/loss", "val/loss")]
    return max(float(abs(a / b - 1).max()) for a, b in pairs)


def pooled() -> list[Experiment]:
    """Networks that cannot be stacked, each step so small that it takes one thread."""
    base = Experiment(
        name="pooled",
        data=Digits(kind="digits"),
        model=CNN(kind="cnn", channels=(16, 32), hidden=(64,)),
        training=rows.preset("digits", epochs=POOLED_EPOCHS, batch_size=8).training,
    )
    seeded = [base.training.model_copy(update={"seed": seed}) for seed in range(POOLED)]
    return [base.model_copy(update={"training": one}) for one in seeded]


@flow(task_runner=sweeps.sweep.task_runner)
def in_pool(members: list[Experiment], dataset: Dataset, folder: Path) -> float:
    """Seconds from the first member's start to the last one's end."""
    attempt = Attempt(uuid.uuid4().hex, members[0].name, {}, folder)
    with ExitStack() as opened:
        runs = []
        for index, member in enumerate(members):
            opening = tracking.open_run(member, dataset, attempts.of_member(attempt, index), str(index), {})
            runs.append(opened.enter_context(opening))
        started = time.perf_counter()
        found = sweeps._train(members, ["training.seed"], dataset, runs, folder)
        assert {member.way for member in found} == {"process pool"}
        return time.perf_counter() - started


def one_by_one(members: list[Experiment], dataset: Dataset, folder: Path) -> float:
    started = time.perf_counter()
    for member in members:
        assert fit(member, dataset, folder).threads == 1
    return time.perf_counter() - started


def pool(folder: Path) -> tuple[float, float]:
    """Seconds in the pool, and one after the other."""
    members = pooled()
    dataset = prepare(members[0].data, folder)
    return in_pool(members, dataset, folder / uuid.uuid4().hex), one_by_one(members, dataset, folder / "alone")


def show(number: int, what: str, ours: float, theirs: float) -> None:
    print(f"{number:5}  {what:<8}{ours:10.3f}{theirs:12.3f}{theirs / ours:8.2f}", flush=True)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    dataset = rows.mnist(rows.preset("mnist")).dataset
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in TARGETS}
    apart = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "HALLMARK_HOME": name}
        print("seconds\nround  what      together  one by one   ratio", flush=True)
        for number in range(1, rounds + 1):
            for what, model in STACKED.items():
                ours, theirs, far = stacked(model, dataset, folder)
                times[what].append((ours, theirs))
                apart = max(apart, far) if what == "softmax" else apart
                show(number, what, ours, theirs)
        # Not before: a server that starts takes a processor of its own.
        with prefect_test_harness(server_startup_timeout=120):
            for number in range(1, POOL_ROUNDS + 1):
                times["pool"].append(pool(folder))
                show(number, "pool", *times["pool"][-1])
    ratios = {what: statistics.median(theirs / ours for ours, theirs in taken) for what, taken in times.items()}
    result = {
        "benchmark": "members of a sweep, one after the other over together",
        "rounds": rounds,
        "seconds": {
            what: [round(statistics.median(side), 3) for side in zip(*taken, strict=True)]
            for what, taken in times.items()
        },
        "ratios": {what: round(ratio, 2) for what, ratio in ratios.items()},
        "targets": TARGETS,
        "softmax_losses_apart": {"found": apart, "target": APART},
        "reached": all(ratios[what] >= target for what, target in TARGETS.items()) and apart <= APART,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
