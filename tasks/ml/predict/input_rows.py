"""Rows from a file, a folder of images or stdin, batch by batch, in the form that a model takes.

No more than some batches are held, whatever the size of the source.
"""

import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from hallmark.tasks.common import files
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.artifact.certificate import Input
from hallmark.tasks.ml.artifact.runtimes import ROWS_AT_ONCE, Feeds
from hallmark.tasks.ml.data.images import image_file
from hallmark.tasks.ml.data.tables import files as table_files
from hallmark.tasks.ml.predict import input_columns
from hallmark.tasks.ml.predict.input_columns import Place

STDIN = "-"
"""Names stdin, which is read as CSV."""
NUMBERS_AT_ONCE = 2**18
"""Numbers in a batch of columns: few enough for a processor's cache, so many that a batch itself costs little."""

_BLOCK = 2**20
"""Bytes of CSV that are parsed together: no line may be longer."""
_BUFFER = 2**20
"""Bytes of a Parquet column that are read ahead, instead of a whole row group."""
_QUOTED = re.compile(rb'(?:(?<=[,;\t\r\n])|\A)"[^"]*(?:""[^"]*)*("|\Z)')
"""A field in quotes, and whether it ends."""

Fields = Callable[[pa.Array, Place, Input], NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbouring rows."""

    rows: range | list[str]
    """Their numbers from 1, or the names of the images' files."""
    feeds: Feeds


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from, opened."""

    identity: Literal["row", "file"]
    """What a row is known by."""
    total: int | None
    """Rows, if that is known before the end."""
    batches: Iterator[Batch]
    left_out: list[str] = field(default_factory=list)
    """Columns that the model does not take; known when the first batch is."""


def open_source(source: str, inputs: tuple[Input, ...]) -> Source:
    """Open what has the rows, and refuse what can be seen to be wrong before the first of them.

    Args:
        source: path of a CSV, Parquet or `.npy` file, an image or a folder of images; or `-`, CSV from stdin.
        inputs: what the model takes.

    Raises:
        InputError: it cannot be read, or has wrong columns, images of wrong size or mode, or no rows; a text, a null,
            or a number that is not finite within float32, with row and column. Some of this is seen only when batches
            are read.
    """
    path, suffix = Path(source), Path(source).suffix.lower()
    if source == STDIN:
        return _csv(sys.stdin.buffer, "stdin", _columns(inputs, "stdin"))
    if not path.exists():
        raise InputError(files.missing(path, source))
    if path.is_dir() or suffix in image_file.SUFFIXES:
        return _images(path, _image(inputs, source))
    match suffix:
        case ".csv":
            return _csv(_open(source), source, _columns(inputs, source))
        case ".parquet":
            return _parquet(path, source, _columns(inputs, source))
        case ".npy":
            return _array(path, inputs)
    known = ", ".join((".csv", ".parquet", ".npy", *image_file.SUFFIXES))
    raise InputError(f"{source}: expected a file that ends in {known}, a folder of images, or '-' for stdin")


def _open(source: str) -> pa.NativeFile:
    with _refusals(source, "CSV"):
        return pa.OSFile(source)


def _csv(file: BinaryIO, source: str, inputs: tuple[Input, ...]) -> Source:
    left_out: list[str] = []
    batches = _csv_batches(file, source, inputs, left_out)
    return Source("row", None, _read(batches, source, "CSV", inputs, input_columns.parse), left_out)


def _csv_batches(
    file: BinaryIO, source: str, inputs: tuple[Input, ...], left_out: list[str]
) -> Iterator[pa.RecordBatch]:
    """Parse block by block, each below the heading.

    Arrow's own reader of streams has a thread that waits for stdin, and nothing could end the process meanwhile.
    """
    heading, first = b"", 1
    for lines in _whole_lines(file, source):
        if not heading:
            heading = table_files.first_lines(io.BytesIO(lines.lstrip(b"\xef\xbb\xbf\r\n")))
            lines = lines[lines.index(heading) + len(heading) :]
        table = _parse_csv(heading, lines, source, inputs, first)
        left_out[:] = input_columns.check(table.column_names, inputs, source)
        first += table.num_rows
        yield from table.to_batches()


def _whole_lines(file: BinaryIO, source: str) -> Iterator[bytes]:
    """Blocks of a file, each cut behind its last line; a line ends where no quote is open."""
    rest = b""
    while block := file.read(_BLOCK):
        whole, newline, rest = _cut(rest + block)
        if len(rest) > _BLOCK:
            raise InputError(f"{source}: has a line of more than {_BLOCK:,} bytes: it is no CSV")
        if newline:
            yield whole + newline
    if rest:
        yield rest + b"\n"


def _cut(block: bytes) -> tuple[bytes, bytes, bytes]:
    """Whole lines, their end, and what follows it."""
    end = block.rfind(b"\n")
    for quoted in _QUOTED.finditer(block) if b'"' in block else ():
        if quoted.start() < end and (end < quoted.end() or not quoted[1]):
            end = block.rfind(b"\n", 0, quoted.start())
    return (block[:end], b"\n", block[end + 1 :]) if end >= 0 else (b"", b"", block)


def _parse_csv(heading: bytes, lines: bytes, source: str, inputs: tuple[Input, ...], first: int) -> pa.Table:
    uneven: list[csv.InvalidRow] = []

    def note(row: csv.InvalidRow) -> str:
        uneven.append(row)
        return "error"

    separator, names = _separator(heading, inputs)
    content = heading + lines
    try:
        table = csv.read_csv(
            pa.BufferReader(content),
            csv.ReadOptions(block_size=len(content), use_threads=False),  # with threads, rows are not counted
            csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=note),
            # Read as text: Arrow's own conversion to numbers does not say in which row it fails.
            csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid as error:
        for row in uneven:
            said = f"expected {row.expected_columns} values as in the heading, found {row.actual_columns}"
            raise InputError(f"{source}: row {first + row.number - 2}: {said}") from error
        raise
    # Training has read the names of one's own table without blanks around them.
    return table if inputs[0].kind is None else table.rename_columns([name.strip() for name in names])


def _separator(heading: bytes, inputs: tuple[Input, ...]) -> tuple[str, list[str]]:
    """What stands between two fields, and the names: a comma, but for one's own table also a semicolon or a tab."""
    for separator in (";", "\t") if inputs[0].kind else ():
        names = table_files.heading(heading, separator)
        if {name.strip() for name in names} >= {one.name for one in inputs}:
            return separator, names
    return ",", table_files.heading(heading, ",")


def _parquet(path: Path, source: str, inputs: tuple[Input, ...]) -> Source:
    from pyarrow import parquet

    with _refusals(source, "Parquet"):
        file = parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
        found, total = file.schema_arrow.names, file.metadata.num_rows
    # As above: blanks around names are nothing to a table of one's own.
    known = found if inputs[0].kind is None else [name.strip() for name in found]
    left_out = input_columns.check(known, inputs, source)
    plain = dict(zip(known, found, strict=True))
    names = [plain[one.name] for one in inputs]
    stored = file.iter_batches(max(1, NUMBERS_AT_ONCE // len(names)), columns=names)
    batches = (batch.select(names).rename_columns([one.name for one in inputs]) for batch in stored)
    return Source("row", total, _read(batches, source, "Parquet", inputs, input_columns.convert), left_out)


def _read(
    batches: Iterable[pa.RecordBatch], source: str, kind: str, inputs: tuple[Input, ...], fields: Fields
) -> Iterator[Batch]:
    first = 1
    with _refusals(source, kind):
        for batch in batches:
            if batch.num_rows:
                feeds: Feeds = {
                    one.name: fields(batch[one.name], Place(source, one.name, first), one) for one in inputs
                }
                yield Batch(range(first, first + batch.num_rows), feeds)
                first += batch.num_rows
    if first == 1:
        raise InputError(f"{source}: has no rows")


def _array(path: Path, inputs: tuple[Input, ...]) -> Source:
    with _refusals(str(path), ".npy"):
        array = np.lib.format.open_memmap(path, mode="r")
    if len(inputs[0].shape) > 1:
        return _array_images(array, path, inputs[0])
    return _array_columns(array, path, _columns(inputs, str(path)))


def _array_images(array: NDArray[np.generic], path: Path, image: Input) -> Source:
    images = array[None] if array.ndim == len(image.shape) else array
    if images.dtype != np.uint8 or images.shape[1:] != image.shape:
        shape = ", ".join(map(str, image.shape))
        raise InputError(
            f"{path}: expected uint8 of shape (N, {shape}) or ({shape}), found {array.dtype} of shape {array.shape}"
        )
    steps = _steps(len(images), ROWS_AT_ONCE, path)
    batches = (Batch(range(rows.start + 1, rows.stop + 1), {image.name: images[rows]}) for rows in steps)
    return Source("row", len(images), batches)


def _array_columns(array: NDArray[np.generic], path: Path, inputs: tuple[Input, ...]) -> Source:
    names = [one.name for one in inputs]
    if text := [one.name for one in inputs if one.dtype == "string"]:
        raise InputError(f"{path}: column '{text[0]}' is text, which .npy has not: give CSV or Parquet")
    if array.shape[1:] != (len(names),):
        raise InputError(
            f"{path}: expected shape (N, {len(names)}), the columns {', '.join(names)} in this order, "
            f"found {array.shape}"
        )
    steps = _steps(len(array), max(1, NUMBERS_AT_ONCE // len(names)), path)
    if array.dtype.kind not in "fiu":
        raise Place(str(path), names[0], 1).misfit(0, f"{array[0, 0]!r} ({array.dtype})")

    def batch(rows: slice) -> Batch:
        block = array[rows]
        places = [Place(str(path), name, rows.start + 1) for name in names]
        feeds: Feeds = {
            place.column: input_columns.convert(pa.array(block[:, index], from_pandas=True), place, inputs[index])
            if inputs[index].kind
            else input_columns.fit(block[:, index], place)
            for index, place in enumerate(places)
        }
        return Batch(range(rows.start + 1, rows.stop + 1), feeds)

    return Source("row", len(array), map(batch, steps))


def _images(path: Path, image: Input) -> Source:
    files = image_file.files(path) if path.is_dir() else [path]
    read = image_file.read_resized if image.resized else image_file.read

    def batch(rows: slice) -> Batch:
        feeds: Feeds = {image.name: np.stack([read(file, image.shape) for file in files[rows]])}
        return Batch([image_file.name(file) for file in files[rows]], feeds)

    return Source("file", len(files), map(batch, _steps(len(files), ROWS_AT_ONCE, path)))


def _steps(rows: int, size: int, path: Path) -> list[slice]:
    """Where the batches of so many rows begin and end."""
    if not rows:
        raise InputError(f"{path}: has no rows")
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _columns(inputs: tuple[Input, ...], source: str) -> tuple[Input, ...]:
    if len(inputs[0].shape) > 1:
        height, width, *colours = inputs[0].shape
        kind = "images in colour" if colours else "grey images"
        raise InputError(
            f"{source}: has columns, and the model takes {kind} of {height} x {width} pixels: "
            "give an image, a folder of images, or a .npy file"
        )
    return inputs


def _image(inputs: tuple[Input, ...], source: str) -> Input:
    if len(inputs[0].shape) == 1:
        names = ", ".join(one.name for one in inputs)
        raise InputError(f"{source}: the model takes no images but the columns {names}: give CSV, Parquet or .npy")
    return inputs[0]


@contextmanager
def _refusals(source: str, kind: str) -> Iterator[None]:
    """Make one line of whatever a library says of a source."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{source}: cannot be read as {kind}: {' '.join(str(error).split())[:200]}") from error
