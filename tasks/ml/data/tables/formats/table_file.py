"""The interface of a table format. Each format implements it in a module of its own; `files.open_table` chooses one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa

from hallmark.tasks.common.errors import InputError

Select = Callable[[list[str]], Sequence[int]]
"""Takes the column names of a file and returns the positions of the columns to read."""


class TableFile(Protocol):
    """A file with named columns. All methods raise `InputError` if it cannot be read."""

    is_text: bool
    """Whether every value is read as text, as in CSV. Otherwise columns have the types that are stored."""

    def names(self) -> list[str]:
        """Return the column names as they are written in the file."""

    def read(self) -> pa.Table:
        """Read all rows at once."""

    def batches(self, select: Select, rows: int) -> Iterator[pa.RecordBatch]:
        """Read the selected columns in bounded memory.

        Args:
            select: chooses the columns; called once, before the first batch.
            rows: number of rows in a batch, if the format allows choosing it.
        """

    def count_rows(self) -> int | None:
        """Return the number of rows, or None if it is not known before the end of the file."""

    def estimate_rows(self) -> int:
        """Return the number of rows, estimated from the size of the file where it is not stored."""

    def schema(self) -> pa.Schema:
        """Return names and types of the columns; for a text format, the types that its first rows suggest."""


@contextmanager
def refusals(source: str, form: str) -> Iterator[None]:
    """Turn the errors of the file system and of Arrow into an `InputError` of one line."""
    try:
        yield
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{source}: cannot be read as {form}: {reason}") from error
