"""JSON lines: one object per line, whose keys are columns. Every value is text, as in CSV.

Numbers keep the digits that are written; `true` and `false` are text, and null or a key that is not there is a missing
value.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.data.tables.formats import compressed
from hallmark.tasks.ml.data.tables.formats.table_file import Select, refusals
from hallmark.tasks.ml.data.tables.values import suggest_schema

_LONGEST = 2**20
"""Largest number of bytes of a line."""
_ROWS = 10_000
"""Rows that are parsed together."""

_EXAMPLE = '{"a": 1}'

Row = dict[str, str | None]


class JsonLinesFile:
    """A file of JSON lines; see `table_file.TableFile`."""

    is_text = True

    def __init__(self, path: Path) -> None:
        """Remember the path; nothing is opened yet."""
        self._path = path

    def names(self) -> list[str]:
        """Return the keys of all lines, in the order in which they appear."""
        with refusals(str(self._path), "JSON lines"):
            facts = self._path.stat()
            return list(_names(self._path, facts.st_size, facts.st_mtime_ns))

    def read(self) -> pa.Table:
        """Read all rows."""
        names = self.names()
        with refusals(str(self._path), "JSON lines"):
            return pa.concat_tables([_table(names, []), *(_table(names, rows) for rows in _blocks(self._path))])

    def batches(self, select: Select, rows: int) -> Iterator[pa.RecordBatch]:  # noqa: ARG002 - as many as are parsed
        """Read the selected columns block by block."""
        names = self.names()
        chosen = [names[index] for index in select(names)]
        with refusals(str(self._path), "JSON lines"):
            for block in _blocks(self._path):
                yield from _table(chosen, block).to_batches()

    def count_rows(self) -> None:
        """Return None: the number of rows is not known before the end."""

    def estimate_rows(self) -> int:
        """Return the number of rows, estimated from the size of the file and its first lines."""
        with refusals(str(self._path), "JSON lines"):
            return compressed.estimate_lines(self._path)

    def schema(self) -> pa.Schema:
        """Return the keys, and the types that the first lines suggest."""
        names = self.names()
        with refusals(str(self._path), "JSON lines"):
            return suggest_schema(_table(names, next(_blocks(self._path), [])))


@lru_cache(maxsize=8)
def _names(path: Path, size: int, changed: int) -> tuple[str, ...]:  # noqa: ARG001 - size and time tell contents apart
    """Return the keys of all lines: a key may appear for the first time in the last one."""
    return tuple(dict.fromkeys(name for rows in _blocks(path) for row in rows for name in row))


def _table(names: list[str], rows: list[Row]) -> pa.Table:
    return pa.Table.from_arrays([pa.array([row.get(name) for row in rows], pa.string()) for name in names], names=names)


def _blocks(path: Path) -> Iterator[list[Row]]:
    """Yield the rows, some thousands at a time. Empty lines are skipped."""
    rows: list[Row] = []
    with compressed.open_content(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST + 1), b""), 1):
            if len(line) > _LONGEST:
                raise InputError(f"{path}: line {number} has more than {_LONGEST:,} bytes: expected an object per line")
            if content := line.removeprefix(b"\xef\xbb\xbf").strip():
                rows.append(_row(content, path, number))
            if len(rows) == _ROWS:
                yield rows
                rows = []
    if rows:
        yield rows


def _row(line: bytes, path: Path, number: int) -> Row:
    """Parse a line; numbers stay as they are written."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise InputError(f"{path}: line {number}: a key is there twice: remove one of them")
        return found

    try:
        row = json.loads(line.decode(), parse_float=str, parse_int=str, parse_constant=str, object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: line {number}: expected UTF-8: {error.reason}") from error
    except (ValueError, RecursionError) as error:
        reason = str(error).partition(": line 1")[0].lower()
        raise InputError(f'{path}: line {number}: expected an object such as {{"a": 1}}: {reason}') from error
    if not isinstance(row, dict):
        raise InputError(f"{path}: line {number}: expected an object such as {_EXAMPLE}, found {line.decode()[:40]}")
    return _texts(row, path, number)


def _texts(row: dict[str, Any], path: Path, number: int) -> Row:
    for name, value in row.items():
        if isinstance(value, bool):
            row[name] = "true" if value else "false"
        elif isinstance(value, dict | list):
            raise _nested(value, f"{path}: line {number}, column '{name}'")
    return row


def _nested(value: object, where: str) -> InputError:
    kind = "an object" if isinstance(value, dict) else "a list"
    return InputError(
        f"{where}: expected text, a number, true, false or null, found {kind}: "
        "write each of its values under a key of its own, or leave the key out"
    )
