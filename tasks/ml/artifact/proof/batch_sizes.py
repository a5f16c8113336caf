"""Batch sizes in which a proof asks a file: a defect may show only in batches of one size, or above one."""

from collections.abc import Iterator

import numpy as np

from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.artifact.runtimes import NUMBERS_AT_ONCE, ROWS_AT_ONCE

SMALL = range(1, 34)
POWERS = tuple(2**exponent for exponent in range(6, 13))
"""64 to 4,096. Their neighbours are asked too."""
ROUND = (100, 200, 1000)
RANDOM, MAX_RANDOM = 3, 1024
"""Number of random sizes, and their limit."""
MAX_NUMBERS = 2**22
"""Limit of the raw numbers in a batch, since a convolution takes a hundred times their memory."""
TIMES = 3
"""How often the images of a proof are predicted in batches, at most: they take the longest."""
MIN_IMAGES = sum(SMALL) + sum(POWERS) + 4096
"""Minimum number of images predicted in batches."""

_SMALL = "onnxruntime, batches of 1 to 33"
_POWERS = "onnxruntime, batches of powers of two"
_BESIDE = "onnxruntime, batches beside powers of two"
_USUAL = "onnxruntime, batches as `predict` reads them"
_RANDOM = "onnxruntime, batches of random sizes"
_ROUND = "onnxruntime, batches of round sizes"
_WHOLE = "onnxruntime, the test split at once"
_WAYS = (_SMALL, _POWERS, _BESIDE, _USUAL, _RANDOM, _ROUND, _WHOLE)


def batch_sizes(dataset: Dataset, rows: int, digest: str) -> dict[str, list[int]]:
    """Return the batch sizes to ask, by the name of their way of predicting.

    All sizes from 1 to 33; powers of two up to 4,096 and their neighbours; round numbers; the size in which `predict`
    reads; the whole test split; and random ones. Sizes of too many numbers are left out. For images, whose predictions
    take the longest, the last ones are left out too: neighbours of the largest powers if the test split is small, and
    the whole test split if it is large.

    Args:
        dataset: the data of the file.
        rows: number of rows of the proof.
        digest: SHA-256 of the file, from which the random sizes are drawn.
    """
    numbers = len(dataset.columns) or int(np.prod(dataset.shape))
    limit = max(ROWS_AT_ONCE, MAX_NUMBERS // numbers)
    budget = max(TIMES * rows, MIN_IMAGES) if not dataset.columns else None
    chosen: dict[str, list[int]] = {}
    seen: set[int] = set()
    for name, size in _wanted(dataset, digest, limit, numbers):
        if size not in seen and 0 < size <= limit and (budget is None or sum(seen) + size <= budget):
            seen.add(size)
            chosen.setdefault(name, []).append(size)
    return {name: chosen[name] for name in _WAYS if name in chosen}


def _wanted(dataset: Dataset, digest: str, limit: int, numbers: int) -> Iterator[tuple[str, int]]:
    """Yield the name of a way and a size, the most important first."""
    near = [(_BESIDE, power + by) for power in POWERS for by in (-1, 1)]
    yield from ((_SMALL, size) for size in SMALL)
    yield from ((_POWERS, size) for size in POWERS)
    yield from ((_ROUND, size) for size in ROUND)
    yield from near[:6]
    if dataset.rows["test"] <= MAX_RANDOM:
        yield _WHOLE, dataset.rows["test"]
    usual = max(1, NUMBERS_AT_ONCE // numbers) if dataset.columns else ROWS_AT_ONCE
    yield _USUAL, usual
    sizes = np.random.default_rng(int(digest[:16], 16)).integers(SMALL.stop, min(limit, MAX_RANDOM), RANDOM)
    yield from ((_RANDOM, size) for size in sorted(sizes.tolist()))
    yield from near[6:]
    yield _WHOLE, dataset.rows["test"]
