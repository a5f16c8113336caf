"""From rows to predictions by a shipped file, and how those compare with what the model was trained on.

This module imports neither torch nor Prefect nor MLflow.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from typing import cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import Scored
from hallmark.tasks.ml.artifact import certificate, runtimes
from hallmark.tasks.ml.predict import input_rows, output_files
from hallmark.tasks.ml.predict.input_rows import Batch
from hallmark.tasks.ml.predict.output_files import Form
from hallmark.tasks.ml.predict.predictions import Heading, Predictions

Show = Callable[[int, int | None], None]
"""Is told how many rows have passed, and of how many, if that is known."""
Progress = Callable[[], AbstractContextManager[Show]]


class Scorer:
    """A shipped file, and a count of what it said."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Args:
            path: of a file that bears a certificate.

        Raises:
            InputError: it is no ONNX file, keeps weights outside itself, is not sealed, or cannot be run.
            DamagedError: its seal is broken.
        """
        self.certificate, content = certificate.read(path)
        self.path = path
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.outside = 0
        """Rows so far of which a value lies outside the range of the training rows."""
        self.counts = np.zeros(len(self.certificate.classes), np.int64)
        """Rows so far of each class, `(C,)`."""
        self._run = runtimes.runner(_open(content, path))

    @property
    def rows(self) -> int:
        """So many were scored."""
        return int(self.counts.sum())

    def score(self, batch: Batch) -> Predictions:
        """Predict a batch of rows.

        Raises:
            InputError: the model gives no finite probabilities for a row.
        """
        label, probabilities = cast("tuple[NDArray[np.int64], NDArray[np.float32]]", self._run(batch.feeds))
        finite = np.isfinite(probabilities).all(axis=1)
        if not finite.all():
            row = batch.rows[int(finite.argmin())]
            raise InputError(f"row {row}: too far outside the training range: its probabilities are no finite numbers")
        self.counts += np.bincount(label, minlength=len(self.counts))
        self.outside += int(self._are_outside(batch).sum())
        return Predictions(batch.rows, label, probabilities)

    def _are_outside(self, batch: Batch) -> NDArray[np.bool_]:
        outside = np.zeros(len(batch.rows), np.bool_)
        for one in self.certificate.inputs:
            values = cast("NDArray[np.float32]", batch.feeds[one.name])
            if one.lowest is None or one.highest is None:
                # No array of text: each of its fields would be as long as the longest.
                known = {*one.values, ""}
                beyond = np.fromiter((text not in known for text in values.flat), np.bool_, values.size)
            else:
                beyond = (values < one.lowest) | (values > one.highest)
            outside |= beyond.reshape(len(outside), -1).any(axis=1)
        return outside


def score(model: Path, source: str, output: Path | None, form: Form, progress: Progress) -> Scored:
    """Score every row of a source, and write the predictions whole or not at all.

    Args:
        model: a shipped file.
        source: see `readers.open_source`.
        output: a file, or None for stdout.
        form: how to write.
        progress: what shows how far it is; it has ended when predictions go to stdout.

    Raises:
        InputError: the file or the rows are not what they must be.
        DamagedError: the file's seal is broken.
    """
    scorer = Scorer(model)
    rows = input_rows.open_source(source, scorer.certificate.inputs)
    heading = Heading(rows.identity, scorer.certificate.classes)
    with output_files.open_output(output, form, heading) as write, progress() as show:
        for predictions in _ahead(map(scorer.score, rows.batches)):
            write(predictions)
            show(scorer.rows, rows.total)
    shares = (scorer.counts / scorer.rows).tolist()
    return Scored(
        model=model.absolute(),
        sha256=scorer.sha256,
        source=source,
        output=output and output.absolute(),
        rows=scorer.rows,
        class_shares=dict(zip(scorer.certificate.classes, shares, strict=True)),
        training_class_shares=dict(zip(scorer.certificate.classes, scorer.certificate.class_shares, strict=True)),
        outside_training_range=scorer.outside,
        left_out=tuple(rows.left_out),
    )


def _ahead(items: Iterator[Predictions]) -> Iterator[Predictions]:
    """Let another thread have the next ready while the caller is busy with the one before.

    Reading, the model and writing leave Python's lock, so that two cores work. Besides, the caller waits where an
    interrupt reaches it, and not within a library that waits for stdin; for the same reason the thread is a daemon.
    """
    ready: Queue[Predictions | BaseException | None] = Queue(1)
    abandoned = Event()

    def fill() -> None:
        try:
            for item in items:
                ready.put(item)
                if abandoned.is_set():
                    return
            ready.put(None)
        except BaseException as error:  # noqa: BLE001 - it is raised where the caller is
            ready.put(error)

    Thread(target=fill, daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        abandoned.set()
        with suppress(Empty):
            ready.get_nowait()  # room for what the thread has in hand, after which it ends


def _open(content: bytes, path: Path) -> onnxruntime.InferenceSession:
    try:
        return runtimes.open_session(content)
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: onnxruntime {onnxruntime.__version__} cannot open it: {said}") from error
