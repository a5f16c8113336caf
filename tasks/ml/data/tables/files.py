"""Tables as they lie in files: CSV with a heading, or Parquet. Columns are given as they stand, CSV's as text."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from pyarrow import compute, csv, parquet

from hallmark.tasks.common.errors import InputError

MISSING = [
    "", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NULL", "null", "NaN", "nan", "-NaN", "-nan",
]  # fmt: skip
"""Text that stands for no value, whatever blanks are around it."""
TRUTHS = {"true": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "0": 0.0, "0.0": 0.0}
"""What a boolean may be written as, in lower case."""
SEPARATORS = {",": ",", ";": ";", "tab": "\t"}

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_LOOKED_AT = 2**20
"""Bytes from which the rows of a CSV are estimated."""
_NAMED = 12
"""So many columns are named in a message, at most."""
_LINES = 20
"""So many lines a heading has, at most: a name in quotes may go over some."""
_WHOLE = 2.0**53
"""Below it, a whole number in floating point is that number."""

Columns = dict[str, pa.ChunkedArray]


def estimate_rows(path: Path) -> int:
    """About how many rows a file has, from its size and its first lines.

    Raises:
        InputError: it cannot be read.
    """
    with _refusals(path):
        if path.suffix.lower() == ".parquet":
            return int(parquet.ParquetFile(path).metadata.num_rows)
        with path.open("rb") as file:
            first = file.read(_LOOKED_AT)
        return round(path.stat().st_size * first.count(b"\n") / max(len(first), 1))


def text_columns(path: Path, separator: str = ",") -> list[str]:
    """The names of the columns that hold text, as the first lines of a CSV have it; those of truths are none.

    Empty where these cannot be read: whoever reads the file is told why.
    """
    with suppress(pa.ArrowException, OSError, UnicodeDecodeError):
        if path.suffix.lower() == ".parquet":
            schema = parquet.ParquetFile(path).schema_arrow
        else:
            with path.open("rb") as file:
                lines = file.read(_LOOKED_AT).rpartition(b"\n")[0]
            parsing = csv.ParseOptions(delimiter=SEPARATORS[separator], newlines_in_values=True)
            converting = csv.ConvertOptions(null_values=MISSING, strings_can_be_null=True)
            schema = csv.read_csv(pa.BufferReader(lines), parse_options=parsing, convert_options=converting).schema
        return [one.name.strip() for one in schema if is_text(one.type) or pa.types.is_dictionary(one.type)]
    return []


def names(path: Path, separator: str = ",") -> list[str]:
    """The names of a file's columns.

    Raises:
        InputError: it cannot be read, or two columns share a name, or one has none.
    """
    with _refusals(path):
        if path.suffix.lower() == ".parquet":
            found = list(parquet.ParquetFile(path).schema_arrow.names)
        else:
            with path.open("rb") as file:
                first = first_lines(file).removeprefix(b"\xef\xbb\xbf")
            if not first.strip():
                raise InputError(f"{path}: has no heading: expected the names of the columns in the first line")
            try:
                found = heading(first, SEPARATORS[separator])
            except UnicodeDecodeError as error:
                raise InputError(_not_utf8(path)) from error
            _refuse_other_separator(found, first, path)
    return _checked([name.strip() for name in found], path)


def read(path: Path, separator: str = ",") -> Columns:
    """Read every column of a table.

    Args:
        path: a file that ends in .csv or .parquet.
        separator: what stands between two fields of a CSV: `,`, `;` or `tab`.

    Returns:
        Columns by name: of a CSV all as text, null where there is no value; of Parquet as they were stored.

    Raises:
        InputError: it cannot be read, has no rows, has columns without a name or of the same, a line with another
            number of fields, or bytes that are no UTF-8.
    """
    found = names(path, separator)
    with _refusals(path):
        if path.suffix.lower() == ".parquet":
            table = parquet.read_table(path)
        elif path.suffix.lower() == ".csv":
            table = _read_csv(path, separator)
        else:
            raise InputError(f"{path}: expected a table that ends in .csv or .parquet")
    if not table.num_rows:
        raise InputError(f"{path}: has no rows")
    return dict(zip(found, table.columns, strict=True))


def require(name: str, found: Sequence[str], what: str, path: Path) -> None:
    """Refuse the name of a column that a table has not.

    Raises:
        InputError: it names the nearest.
    """
    if name not in found:
        near = difflib.get_close_matches(name, found, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"it has {listed(found)}"
        raise InputError(f"{path}: {what}: there is no column '{name}': {hint}")


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same as it would be had it not been encoded: no dictionary, no view; null where a number is NaN."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_float16(kind):
        column = column.cast(pa.float32())
    if pa.types.is_floating(column.type):
        column = compute.if_else(compute.is_nan(column), None, column)
    return column


def text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A plain column as text: without blanks around it, null where it says `MISSING`; numbers as they are written.

    Whole numbers have no decimal point, wherever they were stored: one column has one text for them.

    Raises:
        InputError: it holds neither text nor numbers, booleans or times.
    """
    kind = column.type
    if is_text(kind):
        trimmed = compute.utf8_trim_whitespace(column)
        return compute.if_else(compute.is_in(trimmed, pa.array(MISSING, kind)), None, trimmed)
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise InputError(f"is of type {kind}, which is no text and no number")
    if not pa.types.is_floating(kind):
        return column.cast(pa.string())
    is_whole = compute.and_(compute.equal(column, compute.floor(column)), compute.less(compute.abs(column), _WHOLE))
    whole = compute.if_else(is_whole, column, 0).cast(pa.int64())
    return compute.if_else(is_whole, whole.cast(pa.string()), column.cast(pa.string()))


def are_numbers(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Which of them are numbers; null where there is no text."""
    return compute.match_substring_regex(texts, _NUMBER)


def numbers_alone(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The same, and null where a text is no number."""
    return compute.if_else(are_numbers(texts), texts, None)


def truths(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as 1 for true and 0 for false; null where it is neither."""
    lower = compute.utf8_lower(texts)
    is_true, is_false = (
        compute.is_in(lower, pa.array([word for word, value in TRUTHS.items() if value == truth], lower.type))
        for truth in (1.0, 0.0)
    )
    return compute.if_else(is_true, 1.0, compute.if_else(is_false, 0.0, None)).cast(pa.float32())


def is_text(kind: pa.DataType) -> bool:
    """Whether a plain column holds text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def first_lines(file: BinaryIO) -> bytes:
    """The heading of a CSV: its first line, and further ones as long as a quote is open."""
    heading = file.readline()
    for _ in range(_LINES):
        if heading.count(b'"') % 2 == 0:
            break
        heading += file.readline()
    return heading


def listed(found: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more


def _checked(found: list[str], path: Path) -> list[str]:
    if "" in found:
        raise InputError(f"{path}: column {found.index('') + 1} has no name: give it one in the heading")
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise InputError(f"{path}: there are two columns '{twice[0]}': give each a name of its own")
    if not found:
        raise InputError(f"{path}: is no table: expected a CSV with a heading, or Parquet")
    return found


def _read_csv(path: Path, separator: str) -> pa.Table:
    try:
        return _parse(path, separator)
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise InputError(_not_utf8(path)) from error
        if "Empty CSV" in str(error):
            raise InputError(f"{path}: has no rows") from error
        # Read again by one thread, which counts the rows.
        uneven: list[csv.InvalidRow] = []
        with suppress(pa.ArrowInvalid):
            _parse(path, separator, uneven)
        if uneven:
            row = uneven[0]
            raise InputError(
                f"{path}: line {row.number} has {row.actual_columns} fields, expected {row.expected_columns} as in the "
                f"heading: correct the line, quote a field that holds the separator, or give --data.separator"
            ) from error
        raise


def _parse(source: Path, separator: str, uneven: list[csv.InvalidRow] | None = None) -> pa.Table:
    """Parse a CSV, every column as text; rows of another number of fields are noted, if wanted, by one thread."""

    def note(row: csv.InvalidRow) -> str:
        if uneven is not None:
            uneven.append(row)
        return "error"

    with source.open("rb") as file:
        found = heading(first_lines(file), SEPARATORS[separator])
    return csv.read_csv(
        str(source),
        read_options=csv.ReadOptions(use_threads=uneven is None),
        parse_options=csv.ParseOptions(
            delimiter=SEPARATORS[separator], newlines_in_values=True, invalid_row_handler=note
        ),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(found, pa.string()),
            null_values=MISSING,
            strings_can_be_null=True,
        ),
    )


def heading(first: bytes, separator: str) -> list[str]:
    """The names in the first lines of a CSV, as Arrow reads them, and by the character between two fields."""
    options = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    # Arrow takes a heading alone, but not one without an end.
    return list(csv.read_csv(pa.BufferReader(first.rstrip(b"\r\n") + b"\n"), parse_options=options).column_names)


def _refuse_other_separator(found: list[str], heading: bytes, path: Path) -> None:
    for name, text in SEPARATORS.items():
        if len(found) == 1 and text.encode() in heading and text not in (",", found[0]):
            raise InputError(
                f"{path}: has one column, '{found[0]}': if its fields are separated by {name}, add "
                f"--data.separator '{name}'"
            )


def _not_utf8(path: Path) -> str:
    """Where the first byte lies that is no UTF-8, and what to do about it."""
    line, start = 1, 0
    with path.open("rb") as file:
        for content in file:
            try:
                content.decode()
            except UnicodeDecodeError as error:
                byte, start = content[error.start], start + error.start
                known = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") and line == 1 else "latin1"
                return (
                    f"{path}: line {line}: byte 0x{byte:02x} at offset {start:,} is no UTF-8: save the file as UTF-8, "
                    f"such as by `iconv -f {known} -t utf-8 {path.name}`"
                )
            line, start = line + 1, start + len(content)
    return f"{path}: holds bytes that are no UTF-8: save the file as UTF-8"


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Make one line of whatever a library says of a file."""
    try:
        yield
    except (OSError, pa.ArrowException, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from error
