"""Parquet files. Columns keep the types that are stored."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from hallmark.tasks.ml.data.tables.table_file import Select, refusals

_BUFFER = 2**20
"""Bytes of a column that are read ahead, instead of a whole row group."""


class ParquetFile:
    """A Parquet file; see `table_file.TableFile`."""

    is_text = False

    def __init__(self, path: Path) -> None:
        """Remember the path; nothing is opened yet."""
        self._path = path

    def names(self) -> list[str]:
        """Return the column names as they are stored."""
        return list(self.schema().names)

    def read(self) -> pa.Table:
        """Read all rows at once."""
        with refusals(str(self._path), "Parquet"):
            return parquet.read_table(self._path)

    def batches(self, select: Select, rows: int) -> Iterator[pa.RecordBatch]:
        """Read the selected columns, `rows` rows at a time."""
        names = self.names()
        chosen = [names[index] for index in select(names)]
        with refusals(str(self._path), "Parquet"):
            file = parquet.ParquetFile(self._path, buffer_size=_BUFFER, pre_buffer=False)
            for batch in file.iter_batches(rows, columns=chosen):
                yield batch.select(chosen)

    def count_rows(self) -> int:
        """Return the number of rows."""
        with refusals(str(self._path), "Parquet"):
            return int(parquet.ParquetFile(self._path).metadata.num_rows)

    def estimate_rows(self) -> int:
        """Return the number of rows."""
        return self.count_rows()

    def schema(self) -> pa.Schema:
        """Return names and types of the columns."""
        with refusals(str(self._path), "Parquet"):
            return parquet.ParquetFile(self._path).schema_arrow
