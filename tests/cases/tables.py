"""Invented tables that share one content, and how they are written: the inputs of the cases.

Everything is made from seeds. `a`, `b` and `c` decide the class `y` of the base table, apart from some noise.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

Content: TypeAlias = str | bytes | pa.Table | pd.DataFrame
"""Text or bytes of a file, or a table that is written as Parquet."""
Files: TypeAlias = dict[str, Content]
"""Contents by path."""
Values: TypeAlias = Sequence[Any] | NDArray[Any] | pd.Series | pd.Index

COUNT = 240
"""Rows of the base table."""


def base(rows: int = COUNT, seed: int = 0) -> pd.DataFrame:
    """Return two columns of numbers, one of text, and the class `yes` or `no`."""
    random = np.random.default_rng(seed)
    a = random.normal(size=rows).round(3)
    b = (random.normal(size=rows) * 10 + 50).round(2)
    c = random.choice(["red", "green", "blue"], rows)
    score = a + (b - 50) / 10 + (c == "red") + 0.3 * random.normal(size=rows)
    return pd.DataFrame({"a": a, "b": b, "c": c, "y": np.where(score > 0.3, "yes", "no")})


ROWS = base()
INPUTS = ROWS.drop(columns="y")
IS_YES = (ROWS.y == "yes").to_numpy()


def rng() -> np.random.Generator:
    """Return a generator of random numbers; every group of files starts its own."""
    return np.random.default_rng(1)


def csv(table: pd.DataFrame, **options: Any) -> str:  # noqa: ANN401 - options of pandas
    """Return a table as CSV without an index."""
    return str(table.to_csv(index=False, **options))


def with_column(values: Values) -> str:
    """Return the base table as CSV, with a further column `k`."""
    return csv(ROWS.assign(k=values))


def columns_of_pieces(pieces: Mapping[str, pa.Array]) -> pa.Table:
    """Return a Parquet table of a number, a column `k` for each name, and the class; see `write`."""
    return pa.table({"a": ROWS.a, **pieces, "y": ROWS.y})


def write(folder: Path, *groups: Callable[[], Files]) -> None:
    """Write the files of some groups into a folder."""
    for group in groups:
        for name, content in group().items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            match content:
                case str():
                    path.write_bytes(content.encode())
                case bytes():
                    path.write_bytes(content)
                case pd.DataFrame():
                    parquet.write_table(pa.Table.from_pandas(content, preserve_index=False), path)
                case _:
                    parquet.write_table(content, path)
