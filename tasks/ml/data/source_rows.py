"""The rows that a source hands to the dataset store, before they are split."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import Column

RawRows = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.uint8]
"""Rows as the model takes them: `(N, F) float32` columns, float64 if one of them is wide (see `records.Column`), or
`(N, H, W)` or `(N, H, W, 3) uint8` images."""
ShowProgress = Callable[[int, int | None], None]
"""Takes the number of images processed so far and their total, if known."""
Progress = Callable[[str], AbstractContextManager[ShowProgress]]
"""Takes a verb for the work, such as `decoded`, and opens a progress display."""


@dataclass(frozen=True, slots=True)
class SourceRows:
    """All rows of a source, in the source's order."""

    x: RawRows
    y: NDArray[np.int64]
    """`(N,)` class indices."""
    columns: tuple[str, ...]
    """Column names in order; empty for images."""
    classes: tuple[str, ...]
    largest: float | None = None
    """Largest possible pixel value; None for columns."""
    test_rows: int = 0
    """Number of rows at the end that form the source's own test split."""
    table_columns: tuple[Column, ...] = ()
    """Columns of a user's table, whose rows `records.Dataset` describes; empty for other sources."""
    split_key: NDArray[np.int64] | None = None
    """`(N,)` group number, rank in time or split index of each row, if a table is split by a column; split index if
    images lie in a folder for each split."""
    unlabelled: int = 0
    """Number of rows left out because they have no label."""
    unlabelled_as: str = ""
    """A text in place of a label that marks a missing value, such as NA; empty if there is none."""
    resized: bool = False
    """Whether the rows are image files that were turned upright and resized."""
    bits: int = 0
    """Bits in use of image files with more than eight bits; 0 if there are none."""
    on_black: bool = False
    """Whether transparent pixels were blended with black instead of white."""
    notes: tuple[str, ...] = ()
    """Sentences on how the source was read and what was left out."""
