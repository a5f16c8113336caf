"""Measure the cost of tracking and progress: 50 epochs of MNIST in a real MLflow run, with a progress bar on a
terminal.

The share is exact: the time inside the `log` that training calls, and in the last flush, divided by the time of the
fit. The target is under 5 %. The cost of the progress bar's thread, the journal and the checkpoints is visible only
against the same fit without any of them, which is trained alternately. The last line is JSON. `python -m
tests.bench.bench_tracking [ROUNDS]`.
"""

import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path

from hallmark.tasks.common.records import Attempt, Dataset, Fit
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import trainer
from hallmark.tasks.ml.training.history import Log
from hallmark.tasks.ml.training.loop import CheckpointPolicy
from hallmark.tasks.runtime import progress, settings
from hallmark.tasks.tracking import metric_log, run_lifecycle
from tests.bench import rows
from tests.conftest import fit

ROUNDS = 3
TARGET = 0.05


@dataclass
class Stopwatch:
    seconds: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


@contextmanager
def terminal() -> Iterator[None]:
    """Make stderr a terminal whose output is discarded."""
    ours, theirs = os.openpty()

    def read() -> None:
        with suppress(OSError):  # the other end is closed
            while os.read(ours, 65536):
                pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with open(theirs, "w") as screen, redirect_stderr(screen):  # noqa: PTH123 - a descriptor, not a path
        yield
    reader.join()
    os.close(ours)


@contextmanager
def last_flush_on(watch: Stopwatch, logging: AbstractContextManager[Log]) -> Iterator[Log]:
    """Yield the log, and measure on `watch` the time that closing it takes."""
    with ExitStack() as stack:
        yield stack.enter_context(logging)
        with watch.running():
            stack.close()


def timed(log: Log, show: Callable[[int, dict[str, float]], None], watch: Stopwatch) -> Log:
    """Return the log function that the task `fit` passes to training, timed on `watch`."""

    def report(step: int, metrics: dict[str, float], clock: int) -> None:
        with watch.running():
            log(step, metrics, clock)
            if "train/loss" in metrics:
                show(step, metrics)

    return report


def tracked(experiment: Experiment, dataset: Dataset, attempt: Attempt, watch: Stopwatch) -> Fit:
    """Train as the task `fit` does, and measure the time of reporting on `watch`."""
    parts = experiment.data, experiment.model, experiment.training
    with (
        run_lifecycle.open_run(experiment, dataset, attempt, "bench", {}) as run,
        progress.epochs(experiment.training.epochs) as show,
        last_flush_on(watch, metric_log.metric_log(run)) as log,
    ):
        policy = CheckpointPolicy(attempt.folder, seconds=settings.read().checkpoint_seconds)
        return trainer.fit(dataset, *parts, attempt.folder, timed(log, show, watch), policy)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    experiment = rows.preset("mnist")
    dataset = rows.mnist(experiment).dataset
    shares, slower = [], []
    print("seconds\nround  tracked    alone  reporting   share", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "TERM": "xterm-256color"}
        for number in range(1, rounds + 1):
            watch = Stopwatch()
            attempt = Attempt(f"bench-{number}", experiment.name, {}, folder / str(number))
            attempt.folder.mkdir()
            with terminal():
                ours = tracked(experiment, dataset, attempt, watch)
            alone = fit(experiment, dataset, folder)
            shares.append(watch.seconds / ours.seconds)
            slower.append(ours.seconds / alone.seconds)
            print(
                f"{number:5}{ours.seconds:9.2f}{alone.seconds:9.2f}{watch.seconds:11.3f}{shares[-1]:8.2%}", flush=True
            )
    result = {
        "benchmark": "tracking and progress, share of a 50-epoch mnist fit",
        "rounds": rounds,
        "share": round(statistics.median(shares), 4),
        "tracked_over_alone": round(statistics.median(slower), 3),
        "target": TARGET,
        "reached": statistics.median(shares) < TARGET,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
