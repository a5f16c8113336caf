"""What the checks of a user's table look at."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import Column, Dataset
from hallmark.tasks.ml.config.data import Table


@dataclass(frozen=True, slots=True)
class ExaminedTable:
    """A prepared table."""

    dataset: Dataset
    data: Table
    y: NDArray[np.int64]
    """Class index of the training rows."""


@dataclass(frozen=True, slots=True)
class ExaminedColumn:
    """A column, with its values in the examined training rows."""

    column: Column
    x: NDArray[np.float64]
    """`(N,)`; NaN where a value is missing. Text is an index."""
    y: NDArray[np.int64]
    """`(N,)` class index."""
    table: ExaminedTable
