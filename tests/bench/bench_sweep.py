"""Compare sweeps with the same members trained one after the other.

All sweeps run as usual: with the task runner of the flow, and with everything that is logged. First, stacked members:
MNIST in batches of 32 in one order, 8 learning rates by 4 weight decays, with so many epochs that the stack is split
across the processes. An epoch of all 32, in the slower process, is compared with 32 times an epoch of one member. That
is the mean over one member per weight decay, each trained alone. Their largest relative difference in loss in any
epoch is measured too, and the same ratio for whole trainings, from the start of the workers to the last weights. Then
members that train in the pool are compared with `trainer.fit` of each: small convolutional networks on digits, trained
for so long that the few seconds of starting the workers hardly count. The last line is JSON. `python -m
tests.bench.bench_sweep [ROUNDS]`. A round takes two minutes, and the single round of the pool takes three.
"""

import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prefect import flow
from prefect.testing.utilities import prefect_test_harness

from hallmark.flows import sweep as sweeps
from hallmark.flows.members import train_members
from hallmark.tasks.common.records import Attempt, Dataset, Fit
from hallmark.tasks.ml.config.data import Digits
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.config.models import CNN, MLP, Linear, Model
from hallmark.tasks.ml.training.history import curves
from hallmark.tasks.tracking import resume, run_lifecycle
from tests.bench import rows
from tests.conftest import fit, prepare

ROUNDS = 3
EPOCHS = {"softmax": 80, "mlp": 25}
"""Enough epochs of each to exceed `sweep_plan.SPLIT_THRESHOLD`."""
LEARNING_RATES = [float(f"{rate:.3g}") for rate in np.geomspace(1e-4, 1e-2, 8)]
WEIGHT_DECAYS = [1e-5, 1e-4, 1e-3, 1e-2]
POOLED = 8
POOLED_EPOCHS = 120
"""Epochs of the networks in the pool. Each takes about 15 seconds, and two workers start in 6."""
POOL_ROUNDS = 1
"""One round of eight trainings takes three minutes."""
STACKED: dict[str, Model] = {"softmax": Linear(kind="linear"), "mlp": MLP(kind="mlp", hidden=(32,))}
TARGETS = {"softmax": 6.0, "mlp": 3.0, "pool": 1.6}
"""Minimum time of the members one after the other, as a multiple of the time of the sweep."""
APART = 1e-5
"""Maximum relative difference between the losses of a member and those of the same member trained alone."""


def stack(what: str) -> list[Experiment]:
    """Return members that differ in learning rate and weight decay."""
    base = rows.preset("mnist", epochs=EPOCHS[what], batch_size=32, optimizer="sgd")
    base = base.model_copy(update={"name": what, "model": STACKED[what]})
    pairs = [{"lr": lr, "weight_decay": decay} for lr in LEARNING_RATES for decay in WEIGHT_DECAYS]
    return [base.model_copy(update={"training": base.training.model_copy(update=pair)}) for pair in pairs]


@dataclass(frozen=True)
class Stacked:
    """Seconds of an epoch and of the whole, together and one after the other, and the difference in losses."""

    epoch: tuple[float, float]
    whole: tuple[float, float]
    apart: float


def stacked(what: str, dataset: Dataset, folder: Path) -> Stacked:
    members = stack(what)
    seconds, both = by_sweep(members, "stacked in the pool", dataset, folder / uuid.uuid4().hex)
    chosen = range(0, len(members), len(members) // len(WEIGHT_DECAYS) + 1)
    alone = {index: fit(members[index], dataset, folder / "alone" / str(index)) for index in chosen}
    count = len(members)
    return Stacked(
        (max(map(rows.epoch_seconds, both)), count * statistics.mean(map(rows.epoch_seconds, alone.values()))),
        (seconds, count * statistics.mean(one.seconds for one in alone.values())),
        max(difference(both[index], one) for index, one in alone.items()),
    )


def difference(one: Fit, other: Fit) -> float:
    """Return the largest relative difference in training and validation loss in any epoch."""
    both = [curves(fitted.history) for fitted in (one, other)]
    pairs = [np.array([read[name][1] for read in both]) for name in ("train/loss", "val/loss")]
    return max(float(abs(a / b - 1).max()) for a, b in pairs)


def pooled() -> list[Experiment]:
    """Return networks that cannot be stacked, with steps so small that they use one thread."""
    base = Experiment(
        name="pooled",
        data=Digits(kind="digits"),
        model=CNN(kind="cnn", channels=(16, 32), hidden=(64,)),
        training=rows.preset("digits", epochs=POOLED_EPOCHS, batch_size=8).training,
    )
    seeded = [base.training.model_copy(update={"seed": seed}) for seed in range(POOLED)]
    return [base.model_copy(update={"training": one}) for one in seeded]


@flow(task_runner=sweeps.sweep.task_runner)
def by_sweep(members: list[Experiment], way: str, dataset: Dataset, folder: Path) -> tuple[float, list[Fit]]:
    """Return the seconds from the first member's start to the last one's end, and the fit of each."""
    attempt = Attempt(uuid.uuid4().hex, members[0].name, {}, folder)
    with ExitStack() as opened:
        runs = []
        for index, member in enumerate(members):
            opening = run_lifecycle.open_run(member, dataset, resume.of_member(attempt, index), str(index), {})
            runs.append(opened.enter_context(opening))
        started = time.perf_counter()
        found = train_members(members, ["training.lr"], dataset, runs, folder)
        seconds = time.perf_counter() - started
    assert {member.way for member in found} == {way}
    return seconds, [member.fit for member in found if member.fit]


def one_by_one(members: list[Experiment], dataset: Dataset, folder: Path) -> float:
    started = time.perf_counter()
    for member in members:
        assert fit(member, dataset, folder).threads == 1
    return time.perf_counter() - started


def pool(folder: Path) -> tuple[float, float]:
    """Return the seconds in the pool, and one after the other."""
    members = pooled()
    dataset = prepare(members[0].data, folder)
    seconds, _ = by_sweep(members, "process pool", dataset, folder / uuid.uuid4().hex)
    return seconds, one_by_one(members, dataset, folder / "alone")


def show(number: int, what: str, ours: float, theirs: float) -> None:
    print(f"{number:5}  {what:<8}{ours:10.3f}{theirs:12.3f}{theirs / ours:8.2f}", flush=True)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    dataset = rows.mnist(rows.preset("mnist")).dataset
    found: dict[str, list[Stacked]] = {what: [] for what in STACKED}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in TARGETS}
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    # The server starts before anything is timed, because its start takes a processor.
    with tempfile.TemporaryDirectory() as name, prefect_test_harness(server_startup_timeout=120):
        folder = Path(name)
        os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "HALLMARK_HOME": name}
        print("seconds\nround  what      together  one by one   ratio", flush=True)
        for number in range(1, rounds + 1):
            for what in STACKED:
                found[what].append(stacked(what, dataset, folder))
                times[what].append(found[what][-1].epoch)
                show(number, what, *times[what][-1])
        for number in range(1, POOL_ROUNDS + 1):
            times["pool"].append(pool(folder))
            show(number, "pool", *times["pool"][-1])
    ratios = {what: statistics.median(theirs / ours for ours, theirs in taken) for what, taken in times.items()}
    apart = max(one.apart for one in found["softmax"])
    result = {
        "benchmark": "members of a sweep, one after the other over together",
        "rounds": rounds,
        "seconds": {
            what: [round(statistics.median(side), 3) for side in zip(*taken, strict=True)]
            for what, taken in times.items()
        },
        "ratios": {what: round(ratio, 2) for what, ratio in ratios.items()},
        "ratios_of_whole_trainings": {
            what: round(statistics.median(one.whole[1] / one.whole[0] for one in taken), 2)
            for what, taken in found.items()
        },
        "targets": TARGETS,
        "softmax_losses_apart": {"found": apart, "target": APART},
        "reached": all(ratios[what] >= target for what, target in TARGETS.items()) and apart <= APART,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
