"""Output of predictions as a table on the terminal, or as CSV, Parquet or JSON lines.

CSV, Parquet and JSON lines have one row per input row: `row`, its number from 1, or `file`, the name of the image;
`class`, the most probable class; and `p_<class>`, the probability of each class, as float32.
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

from hallmark.tasks.common.errors import HallmarkError, InputError, printable
from hallmark.tasks.common.files import is_writable, whole_file
from hallmark.tasks.ml.predict import terminal_table
from hallmark.tasks.ml.predict.predictions import Heading, PredictedBatch, Write

Format = Literal["table", "csv", "parquet", "jsonl"]

Clean = Callable[[str], str]
"""Changes a name before it is written."""
FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that a spreadsheet runs as a formula, by OWASP's page on CSV injection."""

_SUFFIXES: dict[str, Format] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl"}
_SPOOLED = 2**24
"""Bytes for stdout that are held in memory; beyond that, a temporary file is used."""


def choose_format(output: Path | None, form: Format | None) -> Format:
    """Choose the output format: the given one, or by the file's suffix, or a table on a terminal and CSV elsewhere.

    Raises:
        InputError: the suffix is not known, or the format does not suit the output.
    """
    if output is None:
        if form == "parquet" and sys.stdout.isatty():
            raise InputError("--format: parquet cannot be printed on a terminal: add --output FILE")
        return form or ("table" if sys.stdout.isatty() else "csv")
    if form == "table":
        raise InputError(f"{output}: format 'table' is for the terminal only: choose csv, parquet or jsonl")
    if chosen := form or _SUFFIXES.get(output.suffix.lower()):
        return chosen
    raise InputError(f"{output}: expected a name that ends in {', '.join(_SUFFIXES)}, or --format")


def check_output(output: Path, source: str, *, overwrite: bool) -> None:
    """Check that an output file may and can be written, before anything is read.

    Args:
        output: the file.
        source: the input, which must not be overwritten.
        overwrite: whether an existing file is replaced.

    Raises:
        InputError: the file exists and `overwrite` is false, is the source itself or not a regular file, or its folder
            does not exist or cannot be written.
    """
    if output.exists():
        if not output.is_file():
            raise InputError(f"{output}: is not a regular file: choose another name")
        if not overwrite:
            raise InputError(f"{output}: exists: choose another name, or add --overwrite")
        if Path(source).exists() and output.samefile(source):
            raise InputError(f"{output}: is the input file: choose another name")
    if not output.parent.is_dir():
        raise InputError(f"{output}: there is no folder {output.parent}: create it first")
    if not is_writable(output.parent):
        raise InputError(f"{output}: the folder {output.parent.absolute()} cannot be written: choose another one")


@contextmanager
def open_output(
    output: Path | None, form: Format, heading: Heading, *, for_spreadsheets: bool = False
) -> Iterator[Write]:
    """Open an output. All predictions appear at the end of the block, or none if it fails.

    Args:
        output: a file, or None for stdout.
        form: the format; see `choose_format`.
        heading: the columns.
        for_spreadsheets: whether names in CSV that a spreadsheet would run as a formula get an apostrophe in front.

    Yields:
        A function that writes one batch of predictions.

    Raises:
        HallmarkError: the output cannot be written, for example because the disk is full.
    """
    try:
        with _open_output(output, form, heading, _cleaning(output, form, for_spreadsheets)) as write:
            yield write
    except OSError as error:
        raise HallmarkError(f"{output or 'stdout'}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _open_output(output: Path | None, form: Format, heading: Heading, clean: Clean) -> Iterator[Write]:
    if form == "table":
        with terminal_table.open_table(heading) as write:
            yield write
    elif output:
        with whole_file(output) as temporary, temporary.open("wb") as file, _open(file, form, heading, clean) as write:
            yield write
    else:
        with tempfile.SpooledTemporaryFile(_SPOOLED) as spool:
            with _open(spool, form, heading, clean) as write:
                yield write
            spool.seek(0)
            _copy(spool)


@contextmanager
def _open(file: IO[bytes], form: Format, heading: Heading, clean: Clean) -> Iterator[Write]:
    match form:
        case "parquet":
            with _parquet(file, heading) as write:
                yield write
        case "jsonl":
            yield _json_lines(file, heading, clean)
        case _:
            yield _csv(file, heading, clean)


def _cleaning(output: Path | None, form: Format, for_spreadsheets: bool) -> Clean:  # noqa: FBT001 - private
    """Return what is done to every name: nothing, unless a terminal or a spreadsheet would interpret it."""

    def clean(text: str) -> str:
        if output is None and sys.stdout.isatty():
            text = printable(text)
        return f"'{text}" if form == "csv" and for_spreadsheets and text.startswith(FORMULAS) else text

    return clean


def _copy(spool: IO[bytes]) -> None:
    """Copy everything to stdout. The reader may close it early, as `head` does."""
    try:
        shutil.copyfileobj(spool, sys.stdout.buffer)
        sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise Python fails at exit, when it flushes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _parquet(file: IO[bytes], heading: Heading) -> Iterator[Write]:
    from pyarrow import parquet

    identity = pa.int64() if heading.identity == "row" else pa.string()
    kinds = [identity, pa.string(), *(pa.float32() for _ in heading.classes)]
    schema = pa.schema(list(zip(heading.names, kinds, strict=True)))
    names = pa.array(heading.classes, pa.string())
    with parquet.ParquetWriter(file, schema) as writer:

        def write(predictions: PredictedBatch) -> None:
            arrays = [_identities(predictions.rows), names.take(pa.array(predictions.label)), *_columns(predictions)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))

        yield write


def _csv(file: IO[bytes], heading: Heading, clean: Clean) -> Write:
    file.write((",".join(_quoted(clean(name)) for name in heading.names) + "\n").encode())
    between = [",", *("," for _ in heading.classes), "\n"]
    return _text(file, heading, "", between, lambda text: _quoted(clean(text)))


def _json_lines(file: IO[bytes], heading: Heading, clean: Clean) -> Write:
    identity, *others = (_json(clean(name)) for name in heading.names)
    between = [*(f", {name}: " for name in others), "}\n"]
    return _text(file, heading, f"{{{identity}: ", between, lambda text: _json(clean(text)))


def _text(file: IO[bytes], heading: Heading, before: str, between: list[str], quote: Callable[[str], str]) -> Write:
    """Write lines of text, with `before` in front of each row and one element of `between` after each value.

    Values are joined by Arrow, ten times faster than row by row in Python. Arrow's CSV writer would quote all text.
    """
    names = pa.array([quote(name) for name in heading.classes], pa.string())

    def write(predictions: PredictedBatch) -> None:
        rows = predictions.rows
        identities = _identities(rows if isinstance(rows, range) else [quote(name) for name in rows])
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


def _columns(predictions: PredictedBatch) -> list[pa.Array]:
    return [pa.array(np.ascontiguousarray(column)) for column in predictions.probabilities.T]


def _quoted(text: str) -> str:
    """Return a CSV field, in quotes where it needs them."""
    line = io.StringIO()
    csv.writer(line).writerow([text])
    return line.getvalue().removesuffix("\r\n")


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
