"""Predictions for rows by a shipped file, and how those rows compare with the training rows.

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

from hallmark.tasks.common.errors import DamagedError, HallmarkError, InputError
from hallmark.tasks.common.results import ColumnGaps, Scored
from hallmark.tasks.ml.artifact import certificate, runtimes
from hallmark.tasks.ml.predict import input_rows, output_files
from hallmark.tasks.ml.predict.input_rows import Batch, RowSource
from hallmark.tasks.ml.predict.output_files import Format
from hallmark.tasks.ml.predict.predictions import Heading, PredictedBatch

Show = Callable[[int, int | None], None]
"""Takes the number of rows scored so far and their total, if known."""
Progress = Callable[[], AbstractContextManager[Show]]
"""Opens a progress display."""


class Scorer:
    """A shipped file, and counts of its predictions."""

    def __init__(self, path: Path, *, apart: bool = False) -> None:
        """Open a file.

        Args:
            path: an ONNX file with a Hallmark certificate.
            apart: whether its golden vectors are run first, in a process with limits; see `certificate.read`.

        Raises:
            InputError: the file is not ONNX, stores weights in other files, has no seal, or cannot be run.
            DamagedError: the seal does not match the content, or certificate, graph and golden vectors do not agree.
        """
        self.certificate, content = certificate.read(path, apart=apart)
        self.path = path
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.outside = 0
        """Number of rows so far with a value outside the range of the training rows."""
        self.counts = np.zeros(len(self.certificate.classes), np.int64)
        """Number of rows so far by class, `(C,)`."""
        self.missing = dict.fromkeys((one.name for one in self.certificate.inputs), 0)
        """Number of rows so far without a value, by input."""
        self.unknown = dict(self.missing)
        """Number of rows so far with a text that the model does not know, by input."""
        self._run = runtimes.runner(_open(content, path))

    @property
    def rows(self) -> int:
        """Number of rows scored so far."""
        return int(self.counts.sum())

    def score(self, batch: Batch) -> PredictedBatch:
        """Predict a batch of rows.

        Raises:
            InputError: the model cannot be run on these rows, or gives no class or no finite probabilities for one.
        """
        try:
            label, probabilities = cast("tuple[NDArray[np.int64], NDArray[np.float32]]", self._run(batch.feeds))
        except Exception as error:
            raise InputError(f"{self.path}: the model cannot be run on these rows: {_reason(error)}") from error
        expected, found = ((len(batch.rows),), (len(batch.rows), len(self.counts))), (label.shape, probabilities.shape)
        if found != expected or ((label < 0) | (label >= len(self.counts))).any():
            raise InputError(f"{self.path}: the model does not give one of its classes for each row: train it again")
        finite = np.isfinite(probabilities).all(axis=1)
        if not finite.all():
            row = batch.rows[int(finite.argmin())]
            raise InputError(f"row {row}: values too far outside the training range: the probabilities are not finite")
        self.counts += np.bincount(label, minlength=len(self.counts))
        self.outside += int(self._are_outside(batch).sum())
        return PredictedBatch(batch.rows, label, probabilities)

    def _are_outside(self, batch: Batch) -> NDArray[np.bool_]:
        outside = np.zeros(len(batch.rows), np.bool_)
        for one in self.certificate.inputs:
            values = cast("NDArray[np.float32]", batch.feeds[one.name])
            if one.lowest is None or one.highest is None:
                # Not a NumPy array of text: every element would be as long as the longest.
                seen = {*one.values, ""}
                beyond = np.fromiter((text not in seen for text in values.flat), np.bool_, values.size)
                self.missing[one.name] += int((values == "").sum())
                self.unknown[one.name] += int(beyond.sum())
            else:
                if one.kind is not None:
                    self.missing[one.name] += int(np.isnan(values).sum())
                beyond = (values < one.lowest) | (values > one.highest)
            outside |= beyond.reshape(len(outside), -1).any(axis=1)
        return outside


def score(
    model: Path,
    source: str,
    output: Path | None,
    form: Format,
    progress: Progress,
    *,
    apart: bool = False,
    unreadable: float = 1.0,
    for_spreadsheets: bool = False,
) -> Scored:
    """Score every row of a source. The predictions are written completely, or not at all if scoring fails.

    Args:
        model: a shipped file.
        source: see `input_rows.open_source`.
        output: a file, or None for stdout.
        form: format of the output.
        progress: opens a progress display, which is closed before predictions go to stdout.
        apart: whether the model may come from anywhere; see `Scorer`.
        unreadable: largest accepted share of missing, unknown and unreadable values in a column.
        for_spreadsheets: see `output_files.open_output`.

    Raises:
        InputError: the model cannot be used, the rows do not fit it, or a column has more unusable values than are
            accepted.
    """
    try:
        scorer = Scorer(model, apart=apart)
    except DamagedError as error:
        raise InputError(str(error)) from error
    rows = input_rows.open_source(source, scorer.certificate.inputs)
    heading = Heading(rows.identity, scorer.certificate.classes)
    opened = output_files.open_output(output, form, heading, for_spreadsheets=for_spreadsheets)
    with opened as write, progress() as show:
        for predictions in _prefetch(map(scorer.score, rows.batches)):
            write(predictions)
            show(scorer.rows, rows.total)
        if rows.identity == "row" and rows.total not in (None, scorer.rows):
            raise HallmarkError(f"{source}: has {rows.total:,} rows, but {scorer.rows:,} were predicted")
        gaps = _gaps(scorer, rows)
        if gaps and gaps[0].total > unreadable * scorer.rows:
            raise InputError(
                f"{source}: column {gaps[0].describe(scorer.rows)}: that is more than the share that --unreadable "
                f"{unreadable:g} accepts"
            )
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
        gaps=gaps,
        unreadable=tuple(rows.unreadable),
    )


def _gaps(scorer: Scorer, rows: RowSource) -> tuple[ColumnGaps, ...]:
    """Return the columns with missing, unknown or unreadable values, those with most of them first."""
    gaps = []
    for name, missing in scorer.missing.items():
        unreadable, example = rows.not_numbers.get(name, (0, ""))
        gaps.append(ColumnGaps(name, missing - unreadable, scorer.unknown[name], unreadable, example))
    return tuple(sorted((one for one in gaps if one.total), key=lambda one: -one.total))


def _prefetch(items: Iterator[PredictedBatch]) -> Iterator[PredictedBatch]:
    """Compute the next item in a thread while the caller writes the previous one.

    Reading, inference and writing release the GIL, so two cores are used. An interrupt also reaches the caller, which
    waits for the queue and not inside a library that waits for stdin. For the same reason the thread is a daemon.
    """
    ready: Queue[PredictedBatch | BaseException | None] = Queue(1)
    abandoned = Event()

    def fill() -> None:
        try:
            for item in items:
                ready.put(item)
                if abandoned.is_set():
                    return
            ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller
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
            ready.get_nowait()  # make room for the item in progress, so that the thread ends


def _open(content: bytes, path: Path) -> onnxruntime.InferenceSession:
    try:
        return runtimes.open_session(content)
    except Exception as error:
        version = onnxruntime.__version__
        raise InputError(f"{path}: onnxruntime {version} cannot load the model: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
