"""Opening a table of any format, and its column names.

A new format needs a module like `parquet_file`, a case in `open_table`, and its suffix in `TABLE_SUFFIXES`.
"""

import difflib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.data import TABLE_SUFFIXES
from hallmark.tasks.ml.data.tables.csv_file import CsvFile
from hallmark.tasks.ml.data.tables.parquet_file import ParquetFile
from hallmark.tasks.ml.data.tables.table_file import TableFile
from hallmark.tasks.ml.data.tables.values import is_text

_LISTED_NAMES = 12
"""Maximum number of column names in a message."""


def open_table(path: Path, separator: str | None = ",", expected: Sequence[str] = ()) -> TableFile:
    """Choose the reader for a file by its suffix. The file is not opened yet.

    Args:
        path: a file with one of `TABLE_SUFFIXES`.
        separator: for CSV; see `CsvFile`.
        expected: for CSV, column names from which the separator is recognized if it is not given.

    Raises:
        InputError: the suffix is not known.
    """
    match path.suffix.lower():
        case ".csv":
            return CsvFile(path, separator, expected)
        case ".parquet":
            return ParquetFile(path)
    raise InputError(f"{path}: expected a table that ends in {' or '.join(TABLE_SUFFIXES)}")


def estimate_rows(path: Path) -> int:
    """Estimate the number of rows from the size of a file and its first lines; exact where the file stores it.

    Raises:
        InputError: the file cannot be read.
    """
    return open_table(path).estimate_rows()


def text_columns(path: Path, separator: str = ",") -> list[str]:
    """Return the names of columns that hold text (not booleans), judged by the first lines of a CSV.

    Returns an empty list if the file cannot be read: the reader will report why.
    """
    with suppress(InputError, UnicodeDecodeError):
        schema = open_table(path, separator).schema()
        return [one.name.strip() for one in schema if is_text(one.type) or pa.types.is_dictionary(one.type)]
    return []


def names(path: Path, separator: str = ",") -> list[str]:
    """Return the column names of a table, without surrounding whitespace.

    Raises:
        InputError: the file cannot be read, a column has no name, or two columns have the same name.
    """
    return _check_names(open_table(path, separator).names(), path)


def read(path: Path, separator: str = ",") -> dict[str, pa.ChunkedArray]:
    """Read every column of a table.

    Args:
        path: a file with one of `TABLE_SUFFIXES`.
        separator: character between two fields of a CSV: `,`, `;` or `tab`.

    Returns:
        Columns by name: text for a CSV, the stored types otherwise.

    Raises:
        InputError: the file cannot be read, has no rows, has columns without a name or with the same name, a row with
            a wrong number of fields, or bytes that are not UTF-8.
    """
    file = open_table(path, separator)
    names = _check_names(file.names(), path)
    table = file.read()
    if not table.num_rows:
        raise InputError(f"{path}: has no rows")
    return dict(zip(names, table.columns, strict=True))


def require(name: str, found: Sequence[str], option: str, path: Path) -> None:
    """Check that a table has a column.

    Args:
        name: name of the column.
        found: column names of the table.
        option: the option that names the column, for the message.
        path: the table, for the message.

    Raises:
        InputError: the column does not exist; the message suggests the most similar name.
    """
    if name not in found:
        near = difflib.get_close_matches(name, found, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"the columns are {listed(found)}"
        raise InputError(f"{path}: {option}: there is no column '{name}': {hint}")


def listed(found: Sequence[str]) -> str:
    """Join the first names, and count the others."""
    more = f" and {len(found) - _LISTED_NAMES} more" if len(found) > _LISTED_NAMES else ""
    return ", ".join(found[:_LISTED_NAMES]) + more


def _check_names(raw: Sequence[str], path: Path) -> list[str]:
    stripped = [name.strip() for name in raw]
    if "" in stripped:
        raise InputError(f"{path}: column {stripped.index('') + 1} has no name: add one to the heading")
    if twice := sorted({name for name in stripped if stripped.count(name) > 1}):
        raise InputError(f"{path}: two columns are named '{twice[0]}': rename one of them")
    if not stripped:
        raise InputError(f"{path}: has no columns")
    return stripped
