"""The mistakes that plots and the model card show."""

import numpy as np
from numpy.typing import NDArray

MISTAKES = 24
"""Maximum number of misclassified rows that are shown."""


def most_confident_mistakes(
    y: NDArray[np.int64], label: NDArray[np.int64], confidence: NDArray[np.floating]
) -> NDArray[np.int64]:
    """Return the positions of all misclassified rows, the most confident first, and equal ones in order.

    Args:
        y: `(N,)` true class index.
        label: `(N,)` predicted class index.
        confidence: `(N,)` probability of the predicted class.
    """
    wrong = np.flatnonzero(label != y)
    return wrong[np.argsort(-confidence[wrong], kind="stable")]
