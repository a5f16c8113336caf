"""CSV files with a heading, read at once for training or block by block for prediction. Every value is text."""

import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import csv

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.data.tables.table_file import Select, refusals
from hallmark.tasks.ml.data.tables.values import MISSING_TEXT

SEPARATORS = {",": ",", ";": ";", "tab": "\t"}
"""Characters between two fields, by the names that `--data.separator` takes."""

_BLOCK = 2**20
"""Bytes that are parsed together in `batches`. No line may be longer."""
_SAMPLE = 2**20
"""Bytes from which the number of rows and the types of columns are estimated."""
_MAX_HEADING_LINES = 20
"""A quoted column name may contain line breaks, so a heading may have several lines."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_QUOTED = re.compile(rb'(?:(?<=[,;\t\r\n])|\A)"[^"]*(?:""[^"]*)*("|\Z)')
"""A quoted field, and its closing quote if there is one."""


class CsvFile:
    """A CSV file, or CSV from stdin; see `table_file.TableFile`."""

    is_text = True

    def __init__(self, path: Path | None, separator: str | None = ",", expected: Sequence[str] = ()) -> None:
        """Remember where to read from; nothing is opened yet.

        Args:
            path: the file; None for stdin, which only `batches` reads.
            separator: a key of `SEPARATORS`; None to take the first separator that splits the heading into
                the `expected` names, or a comma if none does.
            expected: names of columns that the heading must contain.
        """
        self._path, self._separator, self._expected = path, separator, expected
        self._source = str(path) if path else "stdin"

    def names(self) -> list[str]:
        """Return the column names as they are written in the heading.

        Raises:
            InputError: the heading cannot be read, or is a single name that contains another separator.
        """
        with refusals(self._source, "CSV"), self._open() as file:
            separator, names = self._dialect(_read_heading(file))
        for option, character in SEPARATORS.items():
            if len(names) == 1 and character != separator and character in names[0]:
                raise InputError(
                    f"{self._source}: has one column, '{names[0]}': if its fields are separated by {option}, add "
                    f"--data.separator '{option}'"
                )
        return names

    def read(self) -> pa.Table:
        """Read all rows at once, on all cores."""
        with refusals(self._source, "CSV"):
            with self._open() as file:
                separator, names = self._dialect(_read_heading(file))
            try:
                return _parse(str(self._path), separator, names, csv.ReadOptions())
            except pa.ArrowInvalid as error:
                if "Empty CSV" in str(error):
                    raise InputError(f"{self._source}: has no rows below the heading") from error
                if "UTF8" in str(error):
                    raise InputError(self._utf8_message()) from error
                # Only a single thread counts rows, so read again to find the row that does not fit.
                uneven: list[csv.InvalidRow] = []
                with suppress(pa.ArrowInvalid):
                    _parse(str(self._path), separator, names, csv.ReadOptions(use_threads=False), uneven)
                if uneven:
                    raise InputError(self._uneven_message(uneven[0], 1)) from error
                raise

    def batches(self, select: Select, rows: int) -> Iterator[pa.RecordBatch]:  # noqa: ARG002 - blocks have a size in bytes
        """Read the selected columns block by block, parsing each block below the heading.

        Arrow's own stream reader is not used: its thread waits for stdin, and an interrupt would not end the process.
        """
        heading, separator, first = b"", "", 1
        names: list[str] = []
        columns: Sequence[int] = ()
        with refusals(self._source, "CSV"), self._open() as file:
            for block in _line_blocks(file, self._source):
                lines = block
                if not heading:
                    stream = io.BytesIO(block)
                    heading, lines = _read_heading(stream), stream.read()
                    separator, names = self._dialect(heading)
                    columns = select(names)
                table = self._parse_block(heading + lines, separator, names, first)
                first += table.num_rows
                yield from table.select(columns).to_batches()
        if not heading:
            self._dialect(heading)

    def count_rows(self) -> None:
        """Return None: the number of rows is not known before the end."""

    def estimate_rows(self) -> int:
        """Return the number of rows, estimated from the size of the file and its first lines."""
        with refusals(self._source, "CSV"), self._open() as file:
            sample = file.read(_SAMPLE)
            size = self._path.stat().st_size if self._path else len(sample)
        return round(size * sample.count(b"\n") / max(len(sample), 1))

    def schema(self) -> pa.Schema:
        """Return names of the columns and the types that the first lines suggest."""
        with refusals(self._source, "CSV"), self._open() as file:
            lines = file.read(_SAMPLE).rpartition(b"\n")[0]
            parsing = csv.ParseOptions(delimiter=SEPARATORS[self._separator or ","], newlines_in_values=True)
            converting = csv.ConvertOptions(null_values=MISSING_TEXT, strings_can_be_null=True)
            return csv.read_csv(pa.BufferReader(lines), parse_options=parsing, convert_options=converting).schema

    def _open(self) -> AbstractContextManager[BinaryIO]:
        return self._path.open("rb") if self._path else nullcontext(sys.stdin.buffer)

    def _dialect(self, heading: bytes) -> tuple[str, list[str]]:
        """Return the character between two fields and the column names."""
        if not heading.strip():
            raise InputError(f"{self._source}: has no heading: expected the column names in the first line")
        try:
            if self._separator:
                character = SEPARATORS[self._separator]
                return character, _split(heading, character)
            for character in (";", "\t"):
                names = _split(heading, character)
                if {name.strip() for name in names}.issuperset(self._expected):
                    return character, names
            return ",", _split(heading, ",")
        except UnicodeDecodeError as error:
            raise InputError(self._utf8_message()) from error

    def _parse_block(self, content: bytes, separator: str, names: list[str], first: int) -> pa.Table:
        uneven: list[csv.InvalidRow] = []
        # One block and one thread: rows are counted only then.
        options = csv.ReadOptions(block_size=len(content), use_threads=False)
        try:
            return _parse(pa.BufferReader(content), separator, names, options, uneven)
        except pa.ArrowInvalid as error:
            if uneven:
                raise InputError(self._uneven_message(uneven[0], first)) from error
            if "UTF8" in str(error):
                raise InputError(self._utf8_message()) from error
            raise

    def _uneven_message(self, row: csv.InvalidRow, first: int) -> str:
        # Arrow counts from 1 and counts the heading.
        return (
            f"{self._source}: row {first + row.number - 2}: expected {row.expected_columns} fields as in the heading, "
            f"found {row.actual_columns}: correct the row, or put quotes around a field that contains the separator"
        )

    def _utf8_message(self) -> str:
        """Describe the first byte that is not UTF-8, and how to convert the file."""
        if self._path is None:
            return f"{self._source}: expected UTF-8, found other bytes: convert it, for example with `iconv -t utf-8`"
        start = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    is_utf16 = number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff")
                    return (
                        f"{self._path}: line {number}: expected UTF-8, found byte 0x{line[error.start]:02x} at offset "
                        f"{start + error.start:,}: save the file as UTF-8, for example with "
                        f"`iconv -f {'utf-16' if is_utf16 else 'latin1'} -t utf-8 {self._path.name}`"
                    )
                start += len(line)
        return f"{self._path}: expected UTF-8, found other bytes: save the file as UTF-8"


def _read_heading(file: BinaryIO) -> bytes:
    """Read the first line that is not empty, and further lines as long as a quote is open."""
    line = file.readline().removeprefix(_BYTE_ORDER_MARK)
    while line and not line.strip(b"\r\n"):
        line = file.readline()
    heading = line.lstrip(b"\r\n")
    for _ in range(_MAX_HEADING_LINES):
        if heading.count(b'"') % 2 == 0:
            break
        heading += file.readline()
    return heading


def _split(heading: bytes, separator: str) -> list[str]:
    """Split a heading into column names, as Arrow does when it reads the whole file."""
    options = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    # Arrow accepts a heading without rows, but not one without a line end.
    return list(csv.read_csv(pa.BufferReader(heading.rstrip(b"\r\n") + b"\n"), parse_options=options).column_names)


def _parse(
    content: Any,  # noqa: ANN401 - a path or an Arrow stream
    separator: str,
    names: list[str],
    reading: csv.ReadOptions,
    uneven: list[csv.InvalidRow] | None = None,
) -> pa.Table:
    """Parse CSV with every column as text: Arrow's conversion to numbers does not report the row that fails.

    Rows with a wrong number of fields are added to `uneven`, which requires a single thread.
    """

    def note(row: csv.InvalidRow) -> str:
        if uneven is not None:
            uneven.append(row)
        return "error"

    return csv.read_csv(
        content,
        reading,
        csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=note),
        csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )


def _line_blocks(file: BinaryIO, source: str) -> Iterator[bytes]:
    """Yield blocks of whole lines. A line does not end within quotes."""
    rest = b""
    while block := file.read(_BLOCK):
        whole, rest = _cut(rest + block)
        if len(rest) > _BLOCK:
            raise InputError(
                f"{source}: has a line of more than {_BLOCK:,} bytes: check that the file is CSV, and that every quote "
                "is closed"
            )
        if whole:
            yield whole
    if rest:
        yield rest + b"\n"


def _cut(block: bytes) -> tuple[bytes, bytes]:
    """Split a block behind its last whole line."""
    end = block.rfind(b"\n")
    for quoted in _QUOTED.finditer(block) if b'"' in block else ():
        if quoted.start() < end and (end < quoted.end() or not quoted[1]):
            end = block.rfind(b"\n", 0, quoted.start())
    return block[: end + 1], block[end + 1 :]
