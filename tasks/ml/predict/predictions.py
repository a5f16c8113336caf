"""What a model says of rows, batch by batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model says of neighbouring rows."""

    rows: range | list[str]
    """Their numbers from 1, or the names of their files."""
    label: NDArray[np.int64]
    """`(N,)`, index of the class."""
    probabilities: NDArray[np.float32]
    """`(N, C)`."""


@dataclass(frozen=True, slots=True)
class Heading:
    """What is known of predictions before the first of them."""

    identity: Literal["row", "file"]
    classes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [self.identity, "class", *(f"p_{name}" for name in self.classes)]


Write = Callable[[Predictions], None]
"""Takes predictions, batch by batch."""
