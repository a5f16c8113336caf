"""Sweeps beside the same members trained one after the other with the same engine, in turn; ends in one JSON line.

All take the sweep's own way: its task runner, with everything that is logged. Members that train as one: MNIST in
batches of 32 in one order, 8 learning rates by 4 weight decays, for so many epochs that the stack is cut into a share
for each process. An epoch of all 32, the slower share's, beside 32 times an epoch of one: of each weight decay a member
is trained alone, and of these the mean is taken. With it go the largest difference of their losses, relatively, in any
epoch, and the same ratio of whole trainings, from the start of the workers to the last weights. Then members that each
train in the pool, beside `training.fit` of each: small convolutional networks on digits, each so long that the workers'
start, some seconds, weighs little.
`python -m tests.bench.bench_sweep [ROUNDS]`; a round takes two minutes, and the pool, which has one, three.
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
"""As many as `sweep_plan.SPLIT_THRESHOLD` asks of each."""
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


def stack(what: str) -> list[Experiment]:
    """Members that differ in learning rate and weight decay."""
    base = rows.preset("mnist", epochs=EPOCHS[what], batch_size=32, optimizer="sgd")
    base = base.model_copy(update={"name": what, "model": STACKED[what]})
    pairs = [{"lr": lr, "weight_decay": decay} for lr in LEARNING_RATES for decay in WEIGHT_DECAYS]
    return [base.model_copy(update={"training": base.training.model_copy(update=pair)}) for pair in pairs]


@dataclass(frozen=True)
class Stacked:
    """Seconds of an epoch and of the whole, together and one after the other, and how far their losses are apart."""

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
def by_sweep(members: list[Experiment], way: str, dataset: Dataset, folder: Path) -> tuple[float, list[Fit]]:
    """Seconds from the first member's start to the last one's end, and what came of each."""
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
    """Seconds in the pool, and one after the other."""
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
    # Not beside the server's start, which takes a processor of its own.
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
