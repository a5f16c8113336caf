"""The history of a training: every metric of every epoch, and the loss of every update."""

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
from hallmark.tasks.common.files import read_regular, whole_file

MAX_STEP_POINTS = 1000
"""Maximum number of `train/step_loss` points that are logged, evenly thinned; the history file has all of them."""

JOURNAL = "journal"
"""Name of the file of a `TimestampLog` in the folder of an attempt."""

Log = Callable[[int, dict[str, float], int], None]
"""`log(step, metrics, timestamp)`: the step is the epoch, from 1; for `train/step_loss` the update, from 1. The
timestamp is in milliseconds since 1970."""


class TimestampLog:
    """The timestamp of every logged point, in a file that outlives the process.

    A timestamp is written here before its point is logged. A resumed training computes some points a second time and
    logs them with the timestamps of the first time; MLflow drops a point that it already has with the same timestamp.
    """

    def __init__(self, path: Path | None) -> None:
        """Read the timestamps that an earlier process wrote to `path`; with None they are kept in memory only."""
        self._known: dict[tuple[str, int], tuple[int, dict[str, float]]] = {}
        self._path = path
        self._unwritten: list[str] = []
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._read(path)

    def stamp(self, kind: str, step: int, metrics: dict[str, float]) -> tuple[int, dict[str, float]]:
        """Return the timestamp of a point, and its metrics with the `time/` values of the first time."""
        if (kind, step) not in self._known:
            times = {name: value for name, value in metrics.items() if name.startswith("time/")}
            self.add(kind, step, time.time_ns() // 1_000_000, times)
        timestamp, times = self._known[kind, step]
        return timestamp, metrics | times

    def add(self, kind: str, step: int, timestamp: int, times: dict[str, float]) -> None:
        """Add the timestamp and the `time/` metrics of a point, unless it already has them."""
        if (kind, step) not in self._known:
            self._known[kind, step] = timestamp, times
            text = json.dumps([kind, step, timestamp, times])
            self._unwritten.append(f"{text} {crc32(text.encode()):08x}\n")

    def flush(self) -> None:
        """Append new timestamps to the file, so that they survive if the process is killed."""
        if self._path and self._unwritten:
            with self._path.open("a") as file:
                file.writelines(self._unwritten)
        self._unwritten.clear()

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        try:
            whole, newline, torn = read_regular(path).rpartition(b"\n")
        except OSError as error:
            raise DamagedError(f"{path}: cannot be read: {error.strerror}") from error
        if torn:
            with path.open("r+b") as file:  # the process was killed while it wrote the last line
                file.truncate(len(whole) + len(newline))
        for line in whole.splitlines():
            text, _, checksum = line.rpartition(b" ")
            if checksum != b"%08x" % crc32(text):
                raise DamagedError(f"{path}: a line is damaged")
            kind, step, timestamp, times = json.loads(text)
            self._known[kind, step] = timestamp, times


def timestamp_of(folder: Path, kind: str, step: int, metrics: dict[str, float]) -> int:
    """Return the timestamp of one point, from the journal in `folder` if an earlier process has logged it."""
    timestamps = TimestampLog(folder / JOURNAL)
    timestamp, _ = timestamps.stamp(kind, step, metrics)
    timestamps.flush()
    return timestamp


class History:
    """The points of one network, each passed on to `log` when it is recorded."""

    def __init__(self, updates: int, log: Log, timestamps: TimestampLog | None = None, kind: str = "") -> None:
        """Start an empty history.

        Args:
            updates: number of updates in the whole training.
            log: called for every epoch, and for updates thinned to `MAX_STEP_POINTS`.
            timestamps: the timestamps of the points.
            kind: prefix that distinguishes this network's points from others' in `timestamps`.
        """
        self._stride = math.ceil(updates / MAX_STEP_POINTS)
        self._log = log
        self._timestamps = timestamps or TimestampLog(None)
        self._kind = kind
        self._losses: list[NDArray[np.float32]] = []
        self._epochs: list[tuple[int, int, dict[str, float]]] = []
        self._update_timestamps: list[tuple[int, int]] = []
        self.updates = 0
        """Number of updates recorded so far."""
        self.epochs = 0
        """Last recorded epoch."""
        self.last: dict[str, float] = {}
        """Metrics of the last recorded epoch."""

    def record_updates(self, losses: NDArray[np.float32]) -> None:
        """Record the losses of the next updates, `(n,)`, each measured before its update."""
        first = self.updates + 1
        self._losses.append(losses)
        self.updates += len(losses)
        thinned = range(-(-first // self._stride) * self._stride, self.updates + 1, self._stride)
        logged = self._log_points(
            "update", [(step, {"train/step_loss": float(losses[step - first])}) for step in thinned]
        )
        self._update_timestamps += [(step, timestamp) for step, timestamp, _ in logged]

    def record_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Record the metrics of an epoch."""
        logged = self._log_points("epoch", [(epoch, metrics)])
        self._epochs += logged
        self.epochs, self.last = epoch, logged[0][2]

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
        """Return all points for a checkpoint: the losses of all updates, and epochs and timestamps as JSON values."""
        losses = np.concatenate(self._losses) if self._losses else np.zeros(0, np.float32)
        return losses, {"epochs": self._epochs, "clocks": self._update_timestamps}

    def restore(self, losses: NDArray[np.float32], rest: Mapping[str, Any]) -> None:
        """Restore a `state`, and log its points again; MLflow drops those that it has."""
        for step, timestamp in rest["clocks"]:
            self._timestamps.add(f"{self._kind}update", step, timestamp, {})
        for epoch, timestamp, metrics in rest["epochs"]:
            times = {name: value for name, value in metrics.items() if name.startswith("time/")}
            self._timestamps.add(f"{self._kind}epoch", epoch, timestamp, times)
        self.record_updates(losses)
        for epoch, _, metrics in rest["epochs"]:
            self.record_epoch(epoch, metrics)

    def _log_points(
        self, kind: str, points: list[tuple[int, dict[str, float]]]
    ) -> list[tuple[int, int, dict[str, float]]]:
        """Write the timestamps of points to the file, then log the points."""
        stamped = [(step, *self._timestamps.stamp(self._kind + kind, step, metrics)) for step, metrics in points]
        self._timestamps.flush()
        for step, timestamp, metrics in stamped:
            self._log(step, metrics, timestamp)
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
