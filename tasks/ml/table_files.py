"""Tables as they lie in files: CSV with a heading, or Parquet; opened, and every field read as it stands."""

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from tasks.ml.errors import InputError

SUFFIXES = (".csv", ".parquet")

_LOOKED_AT = 2**20
"""Bytes from which the rows of a CSV are estimated."""


def estimate_rows(path: Path) -> int:
    """About how many rows a file has, from its size and its first lines.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return int(parquet.ParquetFile(path).metadata.num_rows)
        with path.open("rb") as file:
            first = file.read(_LOOKED_AT)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    return round(path.stat().st_size * first.count(b"\n") / max(len(first), 1))
