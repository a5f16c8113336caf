"""CSV files with a heading, read block by block. Every value is text.

Training and prediction read by the same blocks, so that both see the same rows. A line ends as in Arrow's parser: at a
line feed, a carriage return, or both, outside of quotes; a quote opens a quoted field only at the start of the field.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from pyarrow import csv

from hallmark.tasks.common.errors import HallmarkError, InputError
from hallmark.tasks.ml.config.table_names import suffixes
from hallmark.tasks.ml.data.tables.formats import compressed
from hallmark.tasks.ml.data.tables.formats.table_file import Select, refusals
from hallmark.tasks.ml.data.tables.values import MISSING_TEXT

SEPARATORS = {",": ",", ";": ";", "tab": "\t", "|": "|"}
"""Characters between two fields, by the names that `--data.separator` takes."""

_BLOCK = 2**20
"""Bytes that are read and parsed together. No line may be longer."""
_OTHER_FILES = {
    b"PK\x03\x04": "an Excel file or a ZIP archive: let its name end in .xlsx, or in .csv.zip",
    b"\xd0\xcf\x11\xe0": "an old Excel file: save it as .xlsx",
    b"\x1f\x8b": "compressed: let its name end in .csv.gz",
    b"\x28\xb5\x2f\xfd": "compressed: let its name end in .csv.zst",
    b"BZh": "compressed: let its name end in .csv.bz2",
    b"\xfd7zXZ": "compressed: let its name end in .csv.xz",
    b"PAR1": "a Parquet file: let its name end in .parquet",
}
"""What a file is that begins with these bytes, and what to do."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How the fields of a file are separated, and its column names."""

    separator: str
    """Character between two fields."""
    names: list[str]

    @property
    def has_blank_rows(self) -> bool:
        """Whether an empty line is a row: in a table of one column, it is a missing value."""
        return len(self.names) == 1

    @property
    def quoted(self) -> re.Pattern[bytes]:
        """Pattern of a quoted field; see `_quoted`."""
        return re.compile(_quoted(self.separator))


class CsvFile:
    """A CSV file, or CSV from stdin; see `table_file.TableFile`."""

    is_text = True

    def __init__(self, path: Path | None, separator: str | None = ",", expected: Sequence[str] = ()) -> None:
        """Remember where to read from; nothing is opened yet.

        Args:
            path: the file; None for stdin, which only `batches` reads.
            separator: a key of `SEPARATORS`; None to take the separator that splits the heading into most of the
                `expected` names, or a comma if none does.
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
            dialect, _ = self._begin(file)
        names = dialect.names
        for option, character in SEPARATORS.items():
            if len(names) == 1 and character != dialect.separator and character in names[0]:
                raise InputError(
                    f"{self._source}: has one column, '{names[0]}': if its fields are separated by {option}, add "
                    f"--data.separator '{option}'"
                )
        return names

    def read(self) -> pa.Table:
        """Read all rows."""
        with refusals(self._source, "CSV"):
            return pa.concat_tables(table for _, table in self._tables())

    def batches(self, select: Select, rows: int) -> Iterator[pa.RecordBatch]:  # noqa: ARG002 - blocks have a size in bytes
        """Read the selected columns block by block.

        Arrow's own stream reader is not used: its thread waits for stdin, and an interrupt would not end the process.
        """
        columns: Sequence[int] | None = None
        with refusals(self._source, "CSV"):
            for names, table in self._tables():
                columns = select(names) if columns is None else columns
                yield from table.select(columns).to_batches()

    def count_rows(self) -> None:
        """Return None: the number of rows is not known before the end."""

    def estimate_rows(self) -> int:
        """Return the number of rows, estimated from the size of the file and its first lines."""
        with refusals(self._source, "CSV"):
            return compressed.estimate_lines(Path(self._source))

    def schema(self) -> pa.Schema:
        """Return names of the columns and the types that the first lines suggest."""
        with refusals(self._source, "CSV"), self._open() as file:
            dialect, rest = self._begin(file)
            lines = next(_line_blocks(file, rest, dialect, self._source), b"")
            parsing = csv.ParseOptions(delimiter=dialect.separator, newlines_in_values=True)
            converting = csv.ConvertOptions(null_values=MISSING_TEXT, strings_can_be_null=True)
            reading = csv.ReadOptions(column_names=dialect.names)
            return csv.read_csv(pa.BufferReader(lines), reading, parsing, converting).schema

    def _open(self) -> AbstractContextManager[BinaryIO]:
        return compressed.open_content(self._path) if self._path else nullcontext(sys.stdin.buffer)

    def _tables(self) -> Iterator[tuple[list[str], pa.Table]]:
        """Yield column names and rows, block by block; there is at least one block, which may have no rows."""
        first = 1
        with self._open() as file:
            dialect, rest = self._begin(file)
            yield dialect.names, _parse(b"", dialect, [])
            for block in _line_blocks(file, rest, dialect, self._source):
                table = self._parse_block(block, dialect, first)
                first += table.num_rows
                yield dialect.names, table

    def _begin(self, file: BinaryIO) -> tuple[_Dialect, bytes]:
        """Read the heading. Empty lines above it are skipped.

        Returns:
            The dialect, and the bytes below the heading that have been read already.
        """
        read = file.read(_BLOCK)
        content = read.removeprefix(_BYTE_ORDER_MARK).lstrip(b"\r\n")
        if found := next((form for start, form in _OTHER_FILES.items() if read.startswith(start)), ""):
            raise InputError(f"{self._source}: is not CSV but {found}")
        if not content.strip():
            raise InputError(f"{self._source}: has no heading: expected the column names in the first line")
        names = [self._separator] if self._separator else [*SEPARATORS]
        headings = [self._split_heading(content, SEPARATORS[name]) for name in names]
        expected = set(self._expected)
        # The comma comes first, and is used if no other separator gives more of the expected names.
        dialect, end = max(headings, key=lambda one: len(expected & {name.strip() for name in one[0].names}))
        if end == len(content) and len(read) == _BLOCK:
            raise _too_long(self._source)
        return dialect, content[end:]

    def _split_heading(self, content: bytes, separator: str) -> tuple[_Dialect, int]:
        """Split the heading into column names; return them and the position behind the heading."""
        end = len(content)
        for found in re.finditer(_quoted(separator) + rb"|\r\n?|\n", content):
            if not found[0].startswith(b'"'):
                end = found.end()
                break
            if not found[1]:
                raise InputError(f"{self._source}: the heading has an opening quote without a closing one: remove it")
        # Arrow accepts a heading without rows, but not one without a line end.
        line = pa.BufferReader(content[:end].rstrip(b"\r\n") + b"\n")
        options = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
        try:
            return _Dialect(separator, list(csv.read_csv(line, parse_options=options).column_names)), end
        except UnicodeDecodeError as error:
            raise InputError(self._utf8_message()) from error

    def _parse_block(self, block: bytes, dialect: _Dialect, first: int) -> pa.Table:
        """Parse whole lines, and check that each of them is a row."""
        uneven: list[csv.InvalidRow] = []
        try:
            table = _parse(block, dialect, uneven)
        except pa.ArrowInvalid as error:
            if uneven:
                raise InputError(self._uneven_message(uneven[0], first)) from error
            if "UTF8" in str(error):
                raise InputError(self._utf8_message()) from error
            raise
        # The plain count of line ends is fast, and right unless lines are blank or fields contain line ends.
        if table.num_rows != block.count(b"\n") and table.num_rows != (lines := _count_lines(block, dialect)):
            raise HallmarkError(
                f"{self._source}: from row {first} on, {lines:,} lines were read as {table.num_rows:,} rows, so "
                "predictions could stand beside other rows: save the file as CSV once more"
            )
        return table

    def _uneven_message(self, row: csv.InvalidRow, first: int) -> str:
        return (
            f"{self._source}: row {first + row.number - 1}: expected {row.expected_columns} fields as in the heading, "
            f"found {row.actual_columns}: correct the row, or put quotes around a field that contains the separator"
        )

    def _utf8_message(self) -> str:
        """Describe the first byte that is not UTF-8, and how to convert the file."""
        if self._path is None:
            return f"{self._source}: expected UTF-8, found other bytes: convert it, for example with `iconv -t utf-8`"
        start, is_compressed = 0, bool(suffixes(self._path.name)[1])
        with self._open() as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    is_utf16 = number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff")
                    return (
                        f"{self._path}: line {number}: expected UTF-8, found byte 0x{line[error.start]:02x} at offset "
                        f"{start + error.start:,}: {'decompress the file and ' * is_compressed}save "
                        f"{'it' if is_compressed else 'the file'} as UTF-8, for example with "
                        f"`iconv -f {'utf-16' if is_utf16 else 'latin1'} -t utf-8 "
                        f"{self._path.stem if is_compressed else self._path.name}`"
                    )
                start += len(line)
        return f"{self._path}: expected UTF-8, found other bytes: save the file as UTF-8"


def _quoted(separator: str) -> bytes:
    """Return the pattern of a quoted field; its group is the closing quote, which is empty if there is none."""
    return rb'(?:(?<=[%s\r\n])|\A)"[^"]*(?:""[^"]*)*("|\Z)' % re.escape(separator.encode())


def _parse(block: bytes, dialect: _Dialect, uneven: list[csv.InvalidRow]) -> pa.Table:
    """Parse rows without heading, with every column as text: Arrow's own numbers do not report the row that fails.

    Rows with a wrong number of fields are added to `uneven`.
    """
    if not block.strip(b"\r\n") and not (block and dialect.has_blank_rows):
        return pa.Table.from_arrays([pa.array([], pa.string())] * len(dialect.names), names=dialect.names)

    def note(row: csv.InvalidRow) -> str:
        uneven.append(row)
        return "error"

    return csv.read_csv(
        pa.BufferReader(block),
        # One block and one thread: rows are counted only then.
        csv.ReadOptions(block_size=len(block), use_threads=False, column_names=dialect.names),
        csv.ParseOptions(
            delimiter=dialect.separator,
            newlines_in_values=True,
            ignore_empty_lines=not dialect.has_blank_rows,
            invalid_row_handler=note,
        ),
        csv.ConvertOptions(column_types=dict.fromkeys(dialect.names, pa.string())),
    )


def _count_lines(block: bytes, dialect: _Dialect) -> int:
    """Count whole lines that are rows, independently of Arrow's parser."""
    if b'"' in block:
        block = dialect.quoted.sub(b"x", block)
    if dialect.has_blank_rows:
        return block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n")
    if b"\r" in block or b"\n\n" in block or block.startswith(b"\n"):
        return len(re.findall(rb"[^\r\n]+", block))
    return block.count(b"\n")


def _line_blocks(file: BinaryIO, rest: bytes, dialect: _Dialect, source: str) -> Iterator[bytes]:
    """Yield blocks of whole lines, the first of which begins with `rest`. A line does not end within quotes."""
    while True:
        whole, rest = _cut(rest, dialect)
        if len(rest) > _BLOCK:
            raise _too_long(source)
        if whole:
            yield whole
        if not (block := file.read(_BLOCK)):
            break
        rest += block
    if rest:
        yield rest + b"\n"


def _too_long(source: str) -> InputError:
    return InputError(
        f"{source}: has a line of more than {_BLOCK:,} bytes: check that the file is CSV, and that every quote is "
        "closed"
    )


def _cut(block: bytes, dialect: _Dialect) -> tuple[bytes, bytes]:
    """Split a block behind its last whole line."""
    end = _last_line_end(block, len(block))
    for quoted in dialect.quoted.finditer(block) if b'"' in block else ():
        if quoted.start() < end and (end < quoted.end() or not quoted[1]):
            end = _last_line_end(block, quoted.start())
    return block[: end + 1], block[end + 1 :]


def _last_line_end(block: bytes, stop: int) -> int:
    """Return the position of the last line end before `stop`, or -1.

    A carriage return at the end of the block does not count: a line feed may follow in the next block.
    """
    return max(block.rfind(b"\n", 0, stop), block.rfind(b"\r", 0, min(stop, len(block) - 1)))
