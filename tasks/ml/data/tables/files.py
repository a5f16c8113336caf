"""Opening a table of any format, and its column names.

A new format needs a module like `formats.parquet_file`, a case in `open_table`, and its suffix in `table_names`.
"""

import difflib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
from pyarrow import compute

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.table_names import COMPRESSIONS, TABLE_SUFFIXES, suffixes
from hallmark.tasks.ml.data.tables.formats import parts
from hallmark.tasks.ml.data.tables.formats.csv_file import CsvFile
from hallmark.tasks.ml.data.tables.formats.excel_file import ExcelFile
from hallmark.tasks.ml.data.tables.formats.json_lines_file import JsonLinesFile
from hallmark.tasks.ml.data.tables.formats.parquet_file import ParquetFile
from hallmark.tasks.ml.data.tables.formats.table_file import TableFile
from hallmark.tasks.ml.data.tables.values import is_text

_OTHER_FORMATS = {
    **dict.fromkeys(COMPRESSIONS, "let its name end in, for example, .csv{}; decompress any but CSV and JSON lines"),
    **dict.fromkeys((".xls", ".ods", ".xlsm", ".xlsb"), "save the sheet as .xlsx, or as CSV (UTF-8), first"),
    **dict.fromkeys((".json", ".feather", ".arrow", ".orc"), "write it as JSON lines (.jsonl), CSV or Parquet first"),
}
"""What to do with files of other formats, by their suffix."""
UNNAMED = "a column without a name is left out: it is empty or counts the rows"
_LISTED_NAMES = 12
"""Maximum number of column names in a message."""


def open_table(
    path: Path, separator: str | None = ",", sheet: str | None = None, expected: Sequence[str] = ()
) -> TableFile:
    """Choose the reader for a file by its suffix. The file is not opened yet.

    Args:
        path: a file with one of `TABLE_SUFFIXES`, which may be compressed if it is text; or a folder of Parquet files.
        separator: for CSV; see `CsvFile`.
        sheet: for Excel; see `ExcelFile`.
        expected: column names from which the separator or the sheet is recognized if it is not given.

    Raises:
        InputError: the suffix is not known.
    """
    if parts.is_table(path):
        return ParquetFile(path)
    match suffixes(path.name)[0]:
        case ".csv":
            return CsvFile(path, separator, expected)
        case ".tsv":
            return CsvFile(path, "tab" if separator == "," else separator, expected)
        case ".jsonl" | ".ndjson":
            return JsonLinesFile(path)
        case ".xlsx":
            return ExcelFile(path, sheet, expected)
        case ".parquet":
            return ParquetFile(path)
    remedy = _OTHER_FORMATS.get(last := path.suffix.lower(), "").format(last)
    raise InputError(
        f"{path}: expected a table that ends in {' or '.join(TABLE_SUFFIXES)}" + f": {remedy}" * bool(remedy)
    )


def estimate_rows(path: Path, sheet: str | None = None) -> int:
    """Estimate the number of rows from the size of a file and its first lines; exact where the file stores it.

    Raises:
        InputError: the file cannot be read.
    """
    return open_table(path, sheet=sheet).estimate_rows()


def text_columns(path: Path, separator: str = ",", sheet: str | None = None) -> list[str]:
    """Return the names of columns that hold text (not booleans), judged by the first lines of a text format.

    Returns an empty list if the file cannot be read: the reader will report why.
    """
    with suppress(InputError, UnicodeDecodeError):
        schema = open_table(path, separator, sheet).schema()
        return [one.name.strip() for one in schema if is_text(one.type) or pa.types.is_dictionary(one.type)]
    return []


def names(path: Path, separator: str = ",", sheet: str | None = None) -> list[str]:
    """Return the column names of a table, without surrounding whitespace.

    Raises:
        InputError: the file cannot be read, a column has no name, or two columns have the same name.
    """
    found = open_table(path, separator, sheet).names()
    # Whether a column without a name can be left out depends on its values.
    return _check_names([name for name in found if name.strip()] or found, path)


def read(path: Path, separator: str = ",", sheet: str | None = None) -> dict[str, pa.ChunkedArray]:
    """Read every column of a table.

    Args:
        path: a file with one of `TABLE_SUFFIXES`.
        separator: character between two fields of a CSV, a key of `csv_file.SEPARATORS`.
        sheet: name of the sheet of an Excel file.

    Returns:
        Columns by name: the stored types of Parquet, text otherwise.

    Raises:
        InputError: the file cannot be read, has no rows, has columns without a name (except one that is empty or counts
            the rows, which is left out) or with the same name, a row with a wrong number of fields, or bytes that are
            not UTF-8.
    """
    file = open_table(path, separator, sheet)
    names = [name.strip() for name in file.names()]
    table = file.read()
    if not table.num_rows:
        raise InputError(f"{path}: has no rows")
    columns = dict(enumerate(zip(names, table.columns, strict=True), 1))
    for number, (name, column) in list(columns.items()):
        if not name and not _is_idle(column):
            raise _no_name(path, number)
        if not name:
            del columns[number]
    _check_names([name for name, _ in columns.values()], path)
    return dict(columns.values())


def notes(path: Path, separator: str = ",", sheet: str | None = None) -> tuple[str, ...]:
    """Return what a user should know about how a table is read: columns and sheets that are left out."""
    file = open_table(path, separator, sheet)
    found = [UNNAMED] if any(not name.strip() for name in file.names()) else []
    if isinstance(file, ExcelFile) and sheet is None and len(sheets := file.sheets()) > 1:
        found.append(f"sheet '{sheets[0]}' of {len(sheets)} is read: --data.sheet reads another")
    return tuple(found)


def _is_idle(column: pa.ChunkedArray) -> bool:
    """Return whether a column without a name has no values, as after a trailing separator, or counts the rows."""
    if not is_text(column.type):
        return int(column.null_count) == len(column)
    texts = compute.utf8_trim_whitespace(column)
    if compute.all(compute.equal(texts, "")).as_py():
        return True
    first = {"0": 0, "1": 1}.get(texts[0].as_py())
    if first is None:
        return False
    counted = pa.array(range(first, first + len(texts))).cast(texts.type)
    return bool(texts.equals(pa.chunked_array([counted])))


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
        if suffixes(path.name)[0] == ".xlsx" and len(sheets := ExcelFile(path).sheets()) > 1:
            hint += f"; --data.sheet chooses one of the sheets {listed(sheets)}"
        raise InputError(f"{path}: {option}: there is no column '{name}': {hint}")


def listed(found: Sequence[str]) -> str:
    """Join the first names, and count the others."""
    more = f" and {len(found) - _LISTED_NAMES} more" if len(found) > _LISTED_NAMES else ""
    return ", ".join(found[:_LISTED_NAMES]) + more


def _check_names(raw: Sequence[str], path: Path) -> list[str]:
    stripped = [name.strip() for name in raw]
    if "" in stripped:
        raise _no_name(path, stripped.index("") + 1)
    if twice := sorted({name for name in stripped if stripped.count(name) > 1}):
        raise InputError(f"{path}: two columns are named '{twice[0]}': rename one of them")
    if not stripped:
        raise InputError(f"{path}: has no columns")
    return stripped


def _no_name(path: Path, number: int) -> InputError:
    return InputError(
        f"{path}: column {number} has no name, and it neither is empty nor counts the rows: add a name to the heading"
    )
