"""Predictions as a table for people, or as CSV, Parquet or JSON lines, whole or not at all.

Every form but the table has one row for each row that was read: `row`, its number from 1, or `file`, the image's name;
`class`, the most probable; and the probability of each class, `p_<class>`, as float32.
"""

import csv
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np
import pyarrow as pa
from pyarrow import compute

from hallmark.tasks.common.errors import HallmarkError, InputError
from hallmark.tasks.common.files import is_writable, whole_file
from hallmark.tasks.ml.predict import terminal_table
from hallmark.tasks.ml.predict.predictions import Heading, Predictions, Write

Form = Literal["table", "csv", "parquet", "jsonl"]

_SUFFIXES: dict[str, Form] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl"}
_SPOOLED = 2**24
"""Bytes for stdout that are held in memory; more lie in a temporary file."""


def choose(output: Path | None, form: Form | None) -> Form:
    """The form to write in: as asked for, by the file's suffix, or by what stdout is.

    Raises:
        InputError: the suffix names no form, or the form does not go there.
    """
    if output is None:
        if form == "parquet" and sys.stdout.isatty():
            raise InputError("--format: parquet is not for a terminal: add --output FILE")
        return form or ("table" if sys.stdout.isatty() else "csv")
    if form == "table":
        raise InputError(f"{output}: a table is for people to look at: choose csv, parquet or jsonl")
    if chosen := form or _SUFFIXES.get(output.suffix.lower()):
        return chosen
    raise InputError(f"{output}: expected a name that ends in {', '.join(_SUFFIXES)}, or --format")


def refuse(output: Path, source: str, *, overwrite: bool) -> None:
    """Refuse a file that cannot or must not be written, before anything is read.

    Raises:
        InputError: it exists and is not to be overwritten, is the source itself, no file, or in no folder that can
            be written.
    """
    if output.exists():
        if not output.is_file():
            raise InputError(f"{output}: is no file: give the name of one")
        if not overwrite:
            raise InputError(f"{output}: exists: choose another name, or add --overwrite")
        if Path(source).exists() and output.samefile(source):
            raise InputError(f"{output}: is what is read: choose another name")
    if not output.parent.is_dir():
        raise InputError(f"{output}: there is no folder {output.parent}: make it first")
    if not is_writable(output.parent):
        raise InputError(
            f"{output}: the folder {output.parent.absolute()} cannot be written: make it writable or choose another"
        )


@contextmanager
def open_output(output: Path | None, form: Form, heading: Heading) -> Iterator[Write]:
    """Yield what takes predictions batch by batch. All of them appear at the end of the block, or none if it fails.

    Args:
        output: a file, or None for stdout.
        form: how to write; `choose` chooses.
        heading: what is known beforehand.

    Raises:
        HallmarkError: the disk is full, or fails.
    """
    try:
        with _open_output(output, form, heading) as write:
            yield write
    except OSError as error:
        raise HallmarkError(f"{output or 'stdout'}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _open_output(output: Path | None, form: Form, heading: Heading) -> Iterator[Write]:
    if form == "table":
        with terminal_table.open_table(heading) as write:
            yield write
    elif output:
        with whole_file(output) as temporary, temporary.open("wb") as file, _open(file, form, heading) as write:
            yield write
    else:
        with tempfile.SpooledTemporaryFile(_SPOOLED) as spool:
            with _open(spool, form, heading) as write:
                yield write
            spool.seek(0)
            _copy(spool)


@contextmanager
def _open(file: IO[bytes], form: Form, heading: Heading) -> Iterator[Write]:
    match form:
        case "parquet":
            with _parquet(file, heading) as write:
                yield write
        case "jsonl":
            yield _json_lines(file, heading)
        case _:
            yield _csv(file, heading)


def _copy(spool: IO[bytes]) -> None:
    """Give all to stdout, whose reader may have seen enough before the end, as `head` does."""
    try:
        shutil.copyfileobj(spool, sys.stdout.buffer)
        sys.stdout.flush()
    except BrokenPipeError:
        # Else Python would fail on its way out, when it flushes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _parquet(file: IO[bytes], heading: Heading) -> Iterator[Write]:
    from pyarrow import parquet

    identity = pa.int64() if heading.identity == "row" else pa.string()
    kinds = [identity, pa.string(), *(pa.float32() for _ in heading.classes)]
    schema = pa.schema(list(zip(heading.names, kinds, strict=True)))
    names = pa.array(heading.classes, pa.string())
    with parquet.ParquetWriter(file, schema) as writer:

        def write(predictions: Predictions) -> None:
            arrays = [_identities(predictions.rows), names.take(pa.array(predictions.label)), *_columns(predictions)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))

        yield write


def _csv(file: IO[bytes], heading: Heading) -> Write:
    file.write((",".join(map(_quoted, heading.names)) + "\n").encode())
    between = [",", *("," for _ in heading.classes), "\n"]
    return _text(file, heading, "", between, _quoted)


def _json_lines(file: IO[bytes], heading: Heading) -> Write:
    identity, *others = (_json(name) for name in heading.names)
    between = [*(f", {name}: " for name in others), "}\n"]
    return _text(file, heading, f"{{{identity}: ", between, _json)


def _text(file: IO[bytes], heading: Heading, before: str, between: list[str], say: Callable[[str], str]) -> Write:
    """Lines of text: what stands `before` the first value of a row, and what after each.

    Arrow joins them: its own writer of CSV puts every text in quotes, and row by row Python would take ten times as
    long.
    """
    names = pa.array([say(name) for name in heading.classes], pa.string())

    def write(predictions: Predictions) -> None:
        rows = predictions.rows
        identities = _identities(rows if isinstance(rows, range) else [say(name) for name in rows])
        values = [identities, names.take(pa.array(predictions.label)), *_columns(predictions)]
        pieces = [pa.scalar(before)]
        for value, after in zip(values, between, strict=True):
            pieces += [value.cast(pa.string()), pa.scalar(after)]
        lines = compute.binary_join_element_wise(*pieces, "")
        offsets = pa.array([0, len(lines)], pa.int32())
        file.write(compute.binary_join(pa.ListArray.from_arrays(offsets, lines), "")[0].as_buffer())

    return write


def _identities(rows: range | list[str]) -> pa.Array:
    return pa.array(np.arange(rows.start, rows.stop) if isinstance(rows, range) else rows)


def _columns(predictions: Predictions) -> list[pa.Array]:
    return [pa.array(np.ascontiguousarray(column)) for column in predictions.probabilities.T]


def _quoted(text: str) -> str:
    """A value of CSV, in quotes where it needs them."""
    line = io.StringIO()
    csv.writer(line).writerow([text])
    return line.getvalue().removesuffix("\r\n")


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
