"""Send metrics to MLflow in batches while a training runs."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hallmark.tasks.common.errors import one_line
from hallmark.tasks.common.records import Run
from hallmark.tasks.ml.training.history import Log
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.tracking.client import connect, is_network_failure, tried_once
from hallmark.tasks.tracking.run_lifecycle import log_secondary_error

logger = logging.getLogger(__name__)

_BATCH = 1000
"""Maximum number of metrics that MLflow takes in one request."""
_FLUSH_SECONDS = 2.0
"""Minimum time between two requests."""
_FLUSH_SHARE = 0.02
"""Maximum share of the training time that is spent on sending points."""


@contextmanager
def metric_logs(runs: Sequence[Run]) -> Iterator[list[Log]]:
    """Yield a `metric_log` for each of several runs."""
    with ExitStack() as stack:
        yield [stack.enter_context(metric_log(run)) for run in runs]


@contextmanager
def metric_log(run: Run) -> Iterator[Log]:
    """Yield a `log(step, metrics, clock)` that sends points in batches.

    It sends every two seconds, or less often if sending is slow. Training goes on while MLflow does not answer, for
    example during a restart: the points are kept and sent later. At the end they are sent with the retries of MLflow's
    client.
    """
    points = _Points(connect(), run)
    try:
        yield points.log
    except BaseException as error:
        with log_secondary_error(error):
            points.flush()  # the points of a failed training matter too
        raise
    points.flush()


class _Points:
    """Points that were logged and not sent yet."""

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self.client, self.run = client, run
        self.waiting: list[Metric] = []
        self.tried, self.pause = time.monotonic(), _FLUSH_SECONDS
        self.is_unreachable = False

    def log(self, step: int, metrics: dict[str, float], clock: int) -> None:
        self.waiting.extend(Metric(name, value, clock, step) for name, value in metrics.items())
        is_full = len(self.waiting) >= _BATCH and not self.is_unreachable
        if is_full or time.monotonic() - self.tried > self.pause:
            self._try()

    @held()
    def flush(self) -> None:
        for start in range(0, len(self.waiting), _BATCH):
            self.client.log_batch(self.run.id, metrics=self.waiting[start : start + _BATCH])
        self.waiting.clear()

    def _try(self) -> None:
        started = time.monotonic()
        try:
            with tried_once():
                self.flush()
            self.is_unreachable = False
        except MlflowException as error:
            if not is_network_failure(error):
                raise
            if not self.is_unreachable:
                text = one_line(error)[:200]
                logger.warning(
                    "%s: MLflow does not answer; training goes on, and its points are sent later: %s",
                    self.run.name,
                    text,
                )
            self.is_unreachable = True
        self.tried = time.monotonic()
        self.pause = max(_FLUSH_SECONDS, (self.tried - started) / _FLUSH_SHARE)
