"""What happened during training: every metric of every epoch, and the loss of every update."""

import math
from collections.abc import Callable
from pathlib import Path

from tasks.ml.files import whole_file

STEP_POINTS = 1000
"""At most so many `train/step_loss` points are logged, evenly thinned; the file has all of them."""

Log = Callable[[int, dict[str, float]], None]
"""`log(step, metrics)`: the step is the epoch, from 1; for `train/step_loss` the update, from 1."""


class History:
    """Collects points and passes them on to `log` as they come."""

    def __init__(self, updates: int, log: Log) -> None:
        """Expect so many `updates` in all; pass epochs and thinned updates on to `log`."""
        self._stride = math.ceil(updates / STEP_POINTS)
        self._log = log
        self._points: list[tuple[str, int, float]] = []
        self.updates = 0
        """So many have been recorded."""
        self.epochs = 0
        """The last epoch that has been recorded."""
        self.last: dict[str, float] = {}
        """Metrics of the last epoch."""

    def update(self, loss: float) -> None:
        """Record the loss of the next update, as seen before its step."""
        self.updates += 1
        self._points.append(("train/step_loss", self.updates, loss))
        if self.updates % self._stride == 0:
            self._log(self.updates, {"train/step_loss": loss})

    def epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Record the metrics of an epoch."""
        self.epochs, self.last = epoch, metrics
        self._points += [(name, epoch, value) for name, value in metrics.items()]
        self._log(epoch, metrics)

    def save(self, path: Path) -> Path:
        """Write all points as Parquet: `metric` string, `step` int64, `value` float64."""
        import pyarrow
        from pyarrow import parquet

        metrics, steps, values = zip(*self._points, strict=True)
        with whole_file(path) as temporary:
            parquet.write_table(pyarrow.table({"metric": metrics, "step": steps, "value": values}), temporary)
        return path


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
