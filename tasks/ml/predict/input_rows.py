"""Rows from a file, a folder of images or stdin, in batches that a model takes.

Only a few batches are in memory at a time, whatever the size of the source.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hallmark.tasks.common import files
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.artifact.certificate import Input
from hallmark.tasks.ml.artifact.runtimes import NUMBERS_AT_ONCE, ROWS_AT_ONCE, Feeds
from hallmark.tasks.ml.config.table_names import TABLE_SUFFIXES, suffixes
from hallmark.tasks.ml.data.images import image_file
from hallmark.tasks.ml.data.images.image_folder import SUFFIXES, are_too_many, as_text, list_files
from hallmark.tasks.ml.data.tables import values
from hallmark.tasks.ml.data.tables.files import open_table
from hallmark.tasks.ml.data.tables.formats import parts, web_file
from hallmark.tasks.ml.data.tables.formats.csv_file import CsvFile
from hallmark.tasks.ml.data.tables.formats.table_file import TableFile, refusals
from hallmark.tasks.ml.data.tables.values import Location
from hallmark.tasks.ml.data.tables.wide_numbers import Numbers
from hallmark.tasks.ml.predict import input_columns

STDIN = "-"
"""The source name that stands for CSV from stdin."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive rows."""

    rows: range | list[str]
    """Row numbers, from 1, or names of image files."""
    feeds: Feeds


@dataclass(frozen=True, slots=True)
class RowSource:
    """An opened source of rows."""

    identity: Literal["row", "file"]
    """Whether rows are identified by number or by file name; the name of that column in the output."""
    total: int | None
    """Number of rows, if it is known in advance."""
    batches: Iterator[Batch]
    left_out: list[str] = field(default_factory=list)
    """Names of columns that the model does not use; complete once the first batch has been read."""
    not_numbers: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Number of texts in place of numbers by column, and the first of them; complete after the last batch."""
    unreadable: list[str] = field(default_factory=list)
    """Images of a folder that cannot be read, each with the reason; complete once all batches have been read."""


def open_source(source: str, inputs: tuple[Input, ...]) -> RowSource:
    """Open a source of rows and check what can be checked before the first row.

    Args:
        source: path or address of a table, path of a `.npy` file, an image or a folder of images; or `-` for CSV from
            stdin.
        inputs: inputs of the model.

    Raises:
        InputError: the source cannot be read, does not have the model's columns or image size, or has no rows. A value
            that does not fit is reported with row and column when its batch is read.
    """
    path = web_file.local(source)
    suffix = path.suffix.lower()
    separator = None if input_columns.is_table(inputs) else ","
    names = [one.name for one in inputs]
    if source == STDIN:
        return _table(CsvFile(None, separator, names), "stdin", _require_columns(inputs, "stdin"))
    if not path.exists():
        raise InputError(files.missing_message(path, source))
    if not path.is_file() and not path.is_dir():
        raise InputError(f"{source}: is neither a regular file nor a folder: give one, or '-' for CSV from stdin")
    if suffixes(path.name)[0] or parts.is_table(path):
        return _table(open_table(path, separator, expected=names), source, _require_columns(inputs, source))
    if path.is_dir() or suffix in SUFFIXES:
        return _images(path, _require_image(inputs, source))
    if suffix == ".npy":
        return _array(path, inputs)
    known = ", ".join((*TABLE_SUFFIXES, ".npy", *SUFFIXES))
    raise InputError(f"{source}: expected a file that ends in {known}, a folder of images, or '-' for stdin")


def _table(table: TableFile, source: str, inputs: tuple[Input, ...]) -> RowSource:
    left_out: list[str] = []
    not_numbers: dict[str, tuple[int, str]] = {}

    def select(names: list[str]) -> list[int]:
        columns, left_out[:] = input_columns.select(names, inputs, source)
        return columns

    def batches() -> Iterator[Batch]:
        first = 1
        for batch in table.batches(select, _batch_size(inputs)):
            if batch.num_rows:
                rows = range(first, first + batch.num_rows)
                feeds: Feeds = {}
                for one, column in zip(inputs, batch.columns, strict=True):
                    location = Location(source, one.name, rows)
                    feeds[one.name], strange = input_columns.convert(column, location, one, is_text=table.is_text)
                    if strange is not None:
                        count, example = not_numbers.get(one.name, (0, str(strange[0])))
                        not_numbers[one.name] = count + len(strange), example
                yield Batch(rows, feeds)
                first = rows.stop
        if first == 1:
            raise InputError(f"{source}: has no rows")

    return RowSource("row", table.count_rows(), batches(), left_out, not_numbers)


def _batch_size(inputs: tuple[Input, ...]) -> int:
    return max(1, NUMBERS_AT_ONCE // len(inputs))


def _array(path: Path, inputs: tuple[Input, ...]) -> RowSource:
    with refusals(str(path), ".npy"):
        array = np.lib.format.open_memmap(path, mode="r")
    if len(inputs[0].shape) > 1:
        return _array_of_images(array, path, inputs[0])
    return _array_of_columns(array, path, inputs)


def _array_of_images(array: NDArray[np.generic], path: Path, image: Input) -> RowSource:
    images = array[None] if array.ndim == len(image.shape) else array
    if images.dtype != np.uint8 or images.shape[1:] != image.shape:
        shape = ", ".join(map(str, image.shape))
        raise InputError(
            f"{path}: expected uint8 of shape (N, {shape}) or ({shape}), found {array.dtype} of shape {array.shape}"
        )
    steps = _steps(len(images), ROWS_AT_ONCE, path)
    batches = (Batch(range(rows.start + 1, rows.stop + 1), {image.name: images[rows]}) for rows in steps)
    return RowSource("row", len(images), batches)


def _array_of_columns(array: NDArray[np.generic], path: Path, inputs: tuple[Input, ...]) -> RowSource:
    names = [one.name for one in inputs]
    if text := [one.name for one in inputs if one.dtype == "string"]:
        known = " or ".join(TABLE_SUFFIXES)
        raise InputError(f"{path}: column '{text[0]}' is text, which .npy cannot hold: use {known}")
    if array.shape[1:] != (len(names),):
        raise InputError(
            f"{path}: expected shape (N, {len(names)}), the columns {', '.join(names)} in this order, "
            f"found {array.shape}"
        )
    steps = _steps(len(array), _batch_size(inputs), path)
    if array.dtype.kind not in "fiu":
        raise Location(str(path), names[0], (1,)).error(0, values.FINITE, f"{array[0, 0]!r} ({array.dtype})")

    def batch(part: slice) -> Batch:
        rows = range(part.start + 1, part.stop + 1)
        feeds: Feeds = {}
        for one, column in zip(inputs, array[part].T, strict=True):
            location = Location(str(path), one.name, rows)
            numbers: Numbers
            if one.kind == "boolean":
                numbers = values.boolean(values.decode(pa.array(column)), location)
            else:
                is_wide = one.dtype == "float64"
                numbers = values.as_numbers(column, location, may_be_missing=one.kind is not None, wide=is_wide)
            feeds[one.name] = numbers.reshape(-1, 1)
        return Batch(rows, feeds)

    return RowSource("row", len(array), map(batch, steps))


def _images(path: Path, image: Input) -> RowSource:
    """Open an image, or a folder of which few unreadable images are left out, as in training."""
    if not path.is_dir():
        batch = Batch([as_text(path.name)], {image.name: _read_image(path, image)[None]})
        return RowSource("file", 1, iter([batch]))
    paths, unreadable = list_files(path), list[str]()

    def batches() -> Iterator[Batch]:
        for rows in steps:
            readable = dict(_readable(paths[rows], image, unreadable))
            _refuse_unreadable(unreadable, len(paths))
            if readable:
                names = [as_text(file.name) for file in readable]
                yield Batch(names, {image.name: np.stack(list(readable.values()))})

    steps = _steps(len(paths), ROWS_AT_ONCE, path)
    return RowSource("file", len(paths), batches(), unreadable=unreadable)


def _readable(files: list[Path], image: Input, unreadable: list[str]) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    """Yield the images that can be read, and append the reasons for the others to `unreadable`."""
    for file in files:
        try:
            yield file, _read_image(file, image)
        except InputError as error:
            unreadable.append(str(error))


def _read_image(file: Path, image: Input) -> NDArray[np.uint8]:
    if not file.is_file():
        raise InputError(f"{file}: is not a file")
    if not file.name.lower().endswith(SUFFIXES):
        raise InputError(f"{file}: is no image: expected a name that ends in {', '.join(SUFFIXES)}")
    if not image.resized:
        return image_file.read(file, image.shape)
    return image_file.read_resized(file, image.shape, image.bits, on_black=image.on_black)


def _refuse_unreadable(unreadable: list[str], total: int) -> None:
    if not are_too_many(len(unreadable), total) and len(unreadable) < total:
        return
    more = f"; and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
    raise InputError(f"{unreadable[0]}{more}: too many of {total:,} files cannot be read: remove them")


def _steps(rows: int, size: int, path: Path) -> list[slice]:
    """Return the slice of each batch."""
    if not rows:
        raise InputError(f"{path}: has no rows")
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _require_columns(inputs: tuple[Input, ...], source: str) -> tuple[Input, ...]:
    if len(inputs[0].shape) > 1:
        height, width, *channels = inputs[0].shape
        kind = "colour images" if channels else "grey images"
        raise InputError(
            f"{source}: is a table, but the model takes {kind} of {height} x {width} pixels: "
            "give an image, a folder of images, or a .npy file"
        )
    return inputs


def _require_image(inputs: tuple[Input, ...], source: str) -> Input:
    if len(inputs[0].shape) == 1:
        names = ", ".join(one.name for one in inputs)
        raise InputError(
            f"{source}: the model takes a table with the columns {names}, not images: give CSV, Parquet or .npy"
        )
    return inputs[0]
