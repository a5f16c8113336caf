"""Tables as they lie in files: CSV with a heading, or Parquet. Columns are given as they stand, CSV's as text."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

from tasks.ml.errors import InputError

MISSING = [
    "", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NULL", "null", "NaN", "nan", "-NaN", "-nan",
]  # fmt: skip
"""Fields of a CSV that stand for no value."""
SEPARATORS = {",": ",", ";": ";", "tab": "\t"}

_LOOKED_AT = 2**20
"""Bytes from which the rows of a CSV are estimated."""
_NAMED = 12
"""So many columns are named in a message, at most."""

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
                heading = file.readline().lstrip(b"\xef\xbb\xbf")
            if not heading.strip():
                raise InputError(f"{path}: has no heading: expected the names of the columns in the first line")
            try:
                found = _heading(heading, separator)
            except UnicodeDecodeError as error:
                raise InputError(_not_utf8(path)) from error
            _refuse_other_separator(found, heading, path)
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
        heading = _heading(file.readline(), separator)
    return csv.read_csv(
        str(source),
        read_options=csv.ReadOptions(use_threads=uneven is None),
        parse_options=csv.ParseOptions(
            delimiter=SEPARATORS[separator], newlines_in_values=True, invalid_row_handler=note
        ),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(heading, pa.string()),
            null_values=MISSING,
            strings_can_be_null=True,
        ),
    )


def _heading(first: bytes, separator: str) -> list[str]:
    """The names as Arrow reads them."""
    options = csv.ParseOptions(delimiter=SEPARATORS[separator])
    return list(csv.read_csv(pa.BufferReader(first), parse_options=options).column_names)


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
                return (
                    f"{path}: line {line}: byte 0x{byte:02x} at offset {start:,} is no UTF-8: save the file as UTF-8, "
                    f"such as by `iconv -f latin1 -t utf-8 {path.name}`"
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
