"""Read input rows for predictions, and the messages of rejected input."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.artifact.certificate import Input
from hallmark.tasks.ml.predict import input_rows

TWO = (Input("a", "float32", (1,), 0, 1, ""), Input("b", "float32", (1,), 0, 1, ""))
GREY = (Input("image", "uint8", (3, 4), 0, 255, ""),)


def read(path: Path | str, inputs: tuple[Input, ...] = TWO) -> tuple[list[object], dict[str, NDArray[np.generic]]]:
    """Read all batches of a source; return the row numbers or names, and the model inputs."""
    source = input_rows.open_source(str(path), inputs)
    batches = list(source.batches)
    rows = [row for batch in batches for row in batch.rows]
    assert source.total in (None, len(rows))
    return rows, {one.name: np.concatenate([batch.feeds[one.name] for batch in batches]) for one in inputs}


def refused(path: Path | str, inputs: tuple[Input, ...] = TWO) -> str:
    """Check that a source is rejected; return the one-line message."""
    with pytest.raises(InputError) as error:
        read(path, inputs)
    message = str(error.value)
    assert "\n" not in message
    return message


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def save(path: Path, **columns: object) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path
