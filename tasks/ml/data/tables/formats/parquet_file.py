"""Parquet files, and folders of them that are one table. Columns keep the types that are stored."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.data.tables.formats import parts
from hallmark.tasks.ml.data.tables.formats.table_file import Select, refusals

_BUFFER = 2**20
"""Bytes of a column that are read ahead, instead of a whole row group."""

Values = dict[str, str | None]
"""Values of a part by column, from the names of its folders."""


class ParquetFile:
    """A Parquet file, or a folder of them; see `table_file.TableFile`."""

    is_text = False

    def __init__(self, path: Path) -> None:
        """Remember the path; nothing is opened yet."""
        self._path = path

    def names(self) -> list[str]:
        """Return the column names as they are stored; last those in the names of folders."""
        return list(self.schema().names)

    def read(self) -> pa.Table:
        """Read all rows at once."""
        tables = []
        for path, values in self._checked_parts():
            with refusals(str(path), "Parquet"):
                table = parquet.read_table(path, partitioning=None)
            for name, value in values.items():
                table = table.append_column(name, _repeated(value, len(table)))
            tables.append(table.replace_schema_metadata())
        return pa.concat_tables(tables)

    def batches(self, select: Select, rows: int) -> Iterator[pa.RecordBatch]:
        """Read the selected columns, `rows` rows at a time."""
        names = self.names()
        chosen = [names[index] for index in select(names)]
        for path, values in self._checked_parts():
            with refusals(str(path), "Parquet"):
                file = parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
                for batch in file.iter_batches(rows, columns=[name for name in chosen if name not in values]):
                    columns = [
                        _repeated(values[name], len(batch)) if name in values else batch.column(name) for name in chosen
                    ]
                    yield pa.RecordBatch.from_arrays(columns, chosen)

    def count_rows(self) -> int:
        """Return the number of rows."""
        count = 0
        for path, _ in parts.listed(self._path):
            with refusals(str(path), "Parquet"):
                count += int(parquet.ParquetFile(path).metadata.num_rows)
        return count

    def estimate_rows(self) -> int:
        """Return the number of rows."""
        return self.count_rows()

    def schema(self) -> pa.Schema:
        """Return names and types of the columns."""
        path, values = parts.listed(self._path)[0]
        return _schema(path, values)

    def _checked_parts(self) -> Iterator[tuple[Path, Values]]:
        """Yield the parts, each of which must have the columns of the first."""
        first = None
        for path, values in parts.listed(self._path):
            schema = _schema(path, values)
            first = first or (path, schema)
            _require_equal(schema, path, first[1], first[0])
            yield path, values


def _schema(path: Path, values: Values) -> pa.Schema:
    with refusals(str(path), "Parquet"):
        schema = parquet.ParquetFile(path).schema_arrow
        return pa.schema([*schema, *((name, pa.string()) for name in values)])


def _require_equal(schema: pa.Schema, path: Path, expected: pa.Schema, first: Path) -> None:
    if schema.equals(expected):
        return
    for field in expected:
        if field.name not in schema.names:
            raise InputError(
                f"{path}: has no column '{field.name}', which {first} has: give all parts the same columns"
            )
        if (found := schema.field(field.name).type) != field.type:
            raise InputError(
                f"{path}: column '{field.name}' has type {found}, and type {field.type} in {first}: "
                "write all parts with the same types"
            )
    if more := [name for name in schema.names if name not in expected.names]:
        raise InputError(f"{path}: has a column '{more[0]}', which {first} has not: give all parts the same columns")


def _repeated(value: str | None, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, pa.string()), count)
