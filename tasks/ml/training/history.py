"""What happened during training: every metric of every epoch, and the loss of every update."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.errors import DamagedError
from hallmark.tasks.common.files import whole_file

STEP_POINTS = 1000
"""At most so many `train/step_loss` points are logged, evenly thinned; the file has all of them."""

Log = Callable[[int, dict[str, float], int], None]
"""`log(step, metrics, clock)`: the step is the epoch, from 1; for `train/step_loss` the update, from 1. The clock is in
milliseconds since 1970."""


class Journal:
    """The clock of every point that was logged, in a file that outlives the process.

    A point is written here before it is logged. Training that is resumed computes some points a second time; they get
    the clock of the first time, and MLflow, which drops a point that it has with the same clock, keeps one of them.
    """

    def __init__(self, path: Path | None) -> None:
        """Read what an earlier process wrote to `path`, if anything; with None nothing outlives this one."""
        self._known: dict[tuple[str, int], tuple[int, dict[str, float]]] = {}
        self._path = path
        self._unwritten: list[str] = []
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._read(path)

    def stamp(self, kind: str, step: int, metrics: dict[str, float]) -> tuple[int, dict[str, float]]:
        """The clock of a point, and its metrics: those of `time/` are as they were the first time."""
        if (kind, step) not in self._known:
            times = {name: value for name, value in metrics.items() if name.startswith("time/")}
            self.recall(kind, step, time.time_ns() // 1_000_000, times)
        clock, times = self._known[kind, step]
        return clock, metrics | times

    def recall(self, kind: str, step: int, clock: int, times: dict[str, float]) -> None:
        """Take a clock, and what is measured in seconds, from elsewhere, unless the point has one."""
        if (kind, step) not in self._known:
            self._known[kind, step] = clock, times
            text = json.dumps([kind, step, clock, times])
            self._unwritten.append(f"{text} {crc32(text.encode()):08x}\n")

    def flush(self) -> None:
        """Hand what was stamped to the system: a process that is killed from here on loses none of it."""
        if self._path and self._unwritten:
            with self._path.open("a") as file:
                file.writelines(self._unwritten)
        self._unwritten.clear()

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        whole, newline, torn = path.read_bytes().rpartition(b"\n")
        if torn:
            with path.open("r+b") as file:  # a kill cut the last line in two
                file.truncate(len(whole) + len(newline))
        for line in whole.splitlines():
            text, _, checksum = line.rpartition(b" ")
            if checksum != b"%08x" % crc32(text):
                raise DamagedError(f"{path}: a line is damaged: add --fresh to begin anew")
            kind, step, clock, times = json.loads(text)
            self._known[kind, step] = clock, times


class History:
    """Collects the points of one network and passes them on to `log` as they come."""

    def __init__(self, updates: int, log: Log, journal: Journal | None = None, kind: str = "") -> None:
        """Expect so many `updates` in all; pass epochs and thinned updates on to `log`.

        Args:
            updates: in the whole training.
            log: what is told.
            journal: gives each point its clock.
            kind: tells this network's points from others' in the journal.
        """
        self._stride = math.ceil(updates / STEP_POINTS)
        self._log = log
        self._journal = journal or Journal(None)
        self._kind = kind
        self._losses: list[NDArray[np.float32]] = []
        self._epochs: list[tuple[int, int, dict[str, float]]] = []
        self._clocks: list[tuple[int, int]] = []
        self.updates = 0
        """So many have been recorded."""
        self.epochs = 0
        """The last epoch that has been recorded."""
        self.last: dict[str, float] = {}
        """Metrics of the last epoch."""

    def update(self, losses: NDArray[np.float32]) -> None:
        """Record the losses of the next updates, `(n,)`, each as seen before its step."""
        first = self.updates + 1
        self._losses.append(losses)
        self.updates += len(losses)
        thinned = range(-(-first // self._stride) * self._stride, self.updates + 1, self._stride)
        told = self._tell("update", [(step, {"train/step_loss": float(losses[step - first])}) for step in thinned])
        self._clocks += [(step, clock) for step, clock, _ in told]

    def epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Record the metrics of an epoch."""
        told = self._tell("epoch", [(epoch, metrics)])
        self._epochs += told
        self.epochs, self.last = epoch, told[0][2]

    def save(self, path: Path) -> Path:
        """Write all points as Parquet: `metric` string, `step` int64, `value` float64."""
        import pyarrow
        from pyarrow import parquet

        losses = np.concatenate(self._losses) if self._losses else np.zeros(0, np.float32)
        points = [(name, epoch, value) for epoch, _, metrics in self._epochs for name, value in metrics.items()]
        metrics, steps, values = zip(*points, strict=True) if points else ((), (), ())
        table = {
            "metric": ["train/step_loss"] * len(losses) + list(metrics),
            "step": np.concatenate([np.arange(1, len(losses) + 1), np.array(steps, dtype=np.int64)]),
            "value": np.concatenate([losses.astype(np.float64), np.array(values, dtype=np.float64)]),
        }
        with whole_file(path) as temporary:
            parquet.write_table(pyarrow.table(table), temporary)
        return path

    def state(self) -> tuple[NDArray[np.float32], object]:
        """All points with their clocks, for a checkpoint: the losses of all updates, and what JSON can hold."""
        losses = np.concatenate(self._losses) if self._losses else np.zeros(0, np.float32)
        return losses, {"epochs": self._epochs, "clocks": self._clocks}

    def restore(self, losses: NDArray[np.float32], rest: Mapping[str, Any]) -> None:
        """Take up what `state` gave, and tell all of it again: who has a point drops it."""
        for step, clock in rest["clocks"]:
            self._journal.recall(f"{self._kind}update", step, clock, {})
        for epoch, clock, metrics in rest["epochs"]:
            times = {name: value for name, value in metrics.items() if name.startswith("time/")}
            self._journal.recall(f"{self._kind}epoch", epoch, clock, times)
        self.update(losses)
        for epoch, _, metrics in rest["epochs"]:
            self.epoch(epoch, metrics)

    def _tell(self, kind: str, points: list[tuple[int, dict[str, float]]]) -> list[tuple[int, int, dict[str, float]]]:
        """Stamp points, write their clocks down, and only then log them."""
        stamped = [(step, *self._journal.stamp(self._kind + kind, step, metrics)) for step, metrics in points]
        self._journal.flush()
        for step, clock, metrics in stamped:
            self._log(step, metrics, clock)
        return stamped


def curves(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Read a history file back as `{metric: (steps, values)}`."""
    from pyarrow import parquet

    read: dict[str, tuple[list[int], list[float]]] = {}
    table = parquet.read_table(path).to_pydict()
    for metric, step, value in zip(table["metric"], table["step"], table["value"], strict=True):
        steps, values = read.setdefault(metric, ([], []))
        steps.append(step)
        values.append(value)
    return read
