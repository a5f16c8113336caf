"""Predictions of a model, batch by batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PredictedBatch:
    """Predictions for consecutive rows."""

    rows: range | list[str]
    """Row numbers, from 1, or names of image files."""
    label: NDArray[np.int64]
    """Predicted class indices, `(N,)`."""
    probabilities: NDArray[np.float32]
    """Probabilities of the classes, `(N, C)`."""


@dataclass(frozen=True, slots=True)
class Heading:
    """Columns of the output."""

    identity: Literal["row", "file"]
    """Name of the first column: the row number or the name of the image file."""
    classes: tuple[str, ...]
    """Class names."""

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [self.identity, "class", *(f"p_{name}" for name in self.classes)]


Write = Callable[[PredictedBatch], None]
"""Writes the predictions of one batch."""
