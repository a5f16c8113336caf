"""Sheets of Excel files (.xlsx). Every value is text, as if the sheet had been saved as CSV.

Numbers keep their digits and dates become ISO 8601, whatever the format in which a cell shows them. Formulas have the
value that was stored with them.
"""

import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, time
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.data.tables.formats.compressed import refuse_too_large
from hallmark.tasks.ml.data.tables.formats.table_file import Select, refusals
from hallmark.tasks.ml.data.tables.values import suggest_schema

if TYPE_CHECKING:
    from openpyxl.workbook import Workbook
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

_ROWS = 10_000
"""Rows that are converted together."""
_EXACT = 2.0**53
"""Smallest number from which float64 no longer represents every whole number."""
_CHUNK, _OVERLAP = 2**20, 2**15
"""Bytes of a sheet that are searched at once, and those that the next search repeats: a formula has at most 8,192."""
# An empty text is the value of a formula of type str.
_NOT_COMPUTED = re.compile(
    rb'<(?:\w+:)?c\b(?![^>]*\bt="str")[^>]*>\s*<(?:\w+:)?f\b(?:[^>]*/>|[^>]*>[^<]*</(?:\w+:)?f>)\s*'
    rb"(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>|</(?:\w+:)?c>)"
)
_PROTECTED = b"\xd0\xcf\x11\xe0"
"""First bytes of an old Excel file, and of a new one that is protected by a password."""

Row = Sequence[str | None]


class ExcelFile:
    """A sheet of an Excel file; see `table_file.TableFile`."""

    is_text = True

    def __init__(self, path: Path, sheet: str | None = None, expected: Sequence[str] = ()) -> None:
        """Remember where to read from; nothing is opened yet.

        Args:
            path: the file.
            sheet: name of the sheet; None for the first that is not hidden, or the one whose heading has most of the
                expected names.
            expected: names of columns.
        """
        self._path, self._sheet, self._expected = path, sheet, set(expected)

    def names(self) -> list[str]:
        """Return the column names: the first row that is not empty."""
        with self._opened() as sheet:
            return self._heading(sheet)

    def read(self) -> pa.Table:
        """Read all rows."""
        with self._opened() as sheet:
            return pa.concat_tables(self._tables(sheet))

    def batches(self, select: Select, rows: int) -> Iterator[pa.RecordBatch]:  # noqa: ARG002 - as many as are converted
        """Read the selected columns block by block."""
        columns: Sequence[int] | None = None
        with self._opened() as sheet:
            for table in self._tables(sheet):
                columns = select(table.column_names) if columns is None else columns
                yield from table.select(columns).to_batches()

    def sheets(self) -> list[str]:
        """Return the names of the sheets that are not hidden."""
        with self._opened() as sheet:
            return [one.title for one in _visible(sheet.parent)]

    def count_rows(self) -> None:
        """Return None: the number of rows is not known before the end."""

    def estimate_rows(self) -> int:
        """Return the number of rows. They are counted: what the file states includes empty rows with a format."""
        with refusals(str(self._path), "Excel"):
            facts = self._path.stat()
            return _count(self._path, self._sheet, facts.st_size, facts.st_mtime_ns)

    def schema(self) -> pa.Schema:
        """Return names of the columns and the types that the first rows suggest."""
        with self._opened() as sheet:
            return suggest_schema(pa.concat_tables(islice(self._tables(sheet), 2)))

    @contextmanager
    def _opened(self) -> Iterator["ReadOnlyWorksheet"]:
        """Open the sheet, and turn the errors of openpyxl into an `InputError` of one line."""
        self._refuse_other()
        try:
            # openpyxl leaves a file open that it cannot read.
            with self._path.open("rb") as file, closing(_load(file)) as workbook:
                yield self._chosen(workbook)
        except InputError:
            raise
        except Exception as error:  # a damaged file brings about errors of many kinds
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> InputError:
        reason = " ".join(str(error).split())[:200]
        return InputError(f"{self._path}: cannot be read as Excel: {reason}: save it as .xlsx, or as CSV (UTF-8)")

    def _refuse_other(self) -> None:
        try:
            with self._path.open("rb") as file:
                if file.read(4) == _PROTECTED:
                    raise InputError(
                        f"{self._path}: is protected by a password, or an old .xls: save it as .xlsx without a password"
                    )
            with zipfile.ZipFile(self._path) as archive:
                refuse_too_large(self._path, sum(one.file_size for one in archive.infolist()))
        except (OSError, zipfile.BadZipFile) as error:
            raise self._unreadable(error) from error

    def _chosen(self, workbook: "Workbook") -> "ReadOnlyWorksheet":
        sheets = {sheet.title: sheet for sheet in workbook.worksheets}
        if self._sheet is not None and self._sheet not in sheets:
            raise InputError(f"{self._path}: --data.sheet: there is no sheet '{self._sheet}', only {', '.join(sheets)}")
        if self._sheet is not None:
            return sheets[self._sheet]
        if not (visible := _visible(workbook)):
            raise InputError(f"{self._path}: has no sheet")
        if len(visible) == 1 or not self._expected:
            return visible[0]
        return max(visible, key=lambda one: len(self._expected & {name.strip() for name in _first_row(one)}))

    def _heading(self, sheet: "ReadOnlyWorksheet") -> list[str]:
        if names := _first_row(sheet):
            return names
        raise InputError(
            f"{self._path}: sheet '{sheet.title}' has no heading: expected the column names in its first row"
        )

    def _tables(self, sheet: "ReadOnlyWorksheet") -> Iterator[pa.Table]:
        """Yield the rows as tables of text; there is at least one table, which may have no rows."""
        self._require_computed(sheet)
        names = self._heading(sheet)
        rows = self._rows(sheet, names)
        block: list[Row] = []
        while True:
            columns = zip(*block, strict=True) if block else ((),) * len(names)
            yield pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], names=names)
            if not (block := [*islice(rows, _ROWS)]):
                break

    def _rows(self, sheet: "ReadOnlyWorksheet", names: list[str]) -> Iterator[Row]:
        """Yield the rows below the heading, as wide as the heading.

        Empty rows are skipped, except between others in a table of one column, where they are missing values.
        """
        width, number, empty = len(names), 0, 0
        for cells in islice(_written_rows(sheet), 1, None):
            if not any(cells):
                empty += 1
                continue
            if width == 1:
                yield from [[None]] * empty
                number += empty
            number, empty = number + 1, 0
            if any(cells[width:]):
                raise InputError(
                    f"{self._path}: row {number}: has a value to the right of the {width} columns of the heading: give "
                    "its column a name, or remove it"
                )
            yield [*cells[:width], *[None] * (width - len(cells))]

    def _require_computed(self, sheet: "ReadOnlyWorksheet") -> None:
        """Refuse formulas that have no value: a program wrote them, and no spreadsheet has opened the file since."""
        with zipfile.ZipFile(self._path) as archive, archive.open(sheet._worksheet_path) as file:
            rest = b""
            while chunk := file.read(_CHUNK):
                if found := _NOT_COMPUTED.search(rest + chunk):
                    cell = re.search(rb'\br="([A-Z]+\d+)"', found[0])
                    raise InputError(
                        f"{self._path}: sheet '{sheet.title}': the formula in {cell[1].decode() if cell else 'a cell'} "
                        "has no stored value: open the file in a spreadsheet and save it"
                    )
                rest = chunk[-_OVERLAP:]


@lru_cache(maxsize=8)
def _count(path: Path, sheet: str | None, size: int, changed: int) -> int:  # noqa: ARG001 - they tell contents apart
    return sum(batch.num_rows for batch in ExcelFile(path, sheet).batches(lambda _: [0], _ROWS))


def _load(file: BinaryIO) -> "Workbook":
    from openpyxl import load_workbook

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and rules, which do not change values
        return load_workbook(file, read_only=True, data_only=True, keep_links=False)


def _visible(workbook: "Workbook") -> list["ReadOnlyWorksheet"]:
    """Return the sheets that are not hidden; all, if all are hidden."""
    return [one for one in workbook.worksheets if one.sheet_state == "visible"] or [*workbook.worksheets]


def _first_row(sheet: "ReadOnlyWorksheet") -> list[str]:
    """Return the column names without empty ones at the end; an empty list if there are none."""
    cells = list(next(_written_rows(sheet), []))
    while cells and not cells[-1]:
        cells.pop()
    return [name or "" for name in cells]


def _written_rows(sheet: "ReadOnlyWorksheet") -> Iterator[Row]:
    """Yield the rows as text from the first that is not empty."""
    sheet.reset_dimensions()  # some programs state too few
    is_below = False
    for cells in sheet.iter_rows(values_only=True):
        row = [_text(value) for value in cells]
        is_below = is_below or any(row)
        if is_below:
            yield row


def _text(value: object) -> str | None:
    """Write a value as in CSV."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < _EXACT:
            return str(int(value))
        case datetime() if value.time() == time():
            return value.date().isoformat()
        case datetime() | time():
            return value.isoformat()
    return str(value)
