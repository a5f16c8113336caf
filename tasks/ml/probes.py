"""The rows that a proof is made on: the test split, the edges of the input's domain, and seeded noise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.ml.data import open_split
from tasks.ml.records import Dataset
from tasks.ml.sources import Raw

ENOUGH = 512
"""So many rows, at least, are asked in every way."""
NOISE = 64
"""Rows of noise, at least; more where the test split is short."""
EDGES = ("zeros", "lowest", "highest", "constant", "lowest seen", "highest seen")

Bounds = tuple[NDArray[np.generic], NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Probes:
    """Rows, raw as a consumer feeds them."""

    x: Raw
    """`(N, F) float32` or `(N, H, W) uint8`: test rows, then edges, then noise."""
    test: int
    """So many of them, the first, are the test split."""
    chosen: NDArray[np.int64]
    """Those that are asked in every way: all edges, all noise, and test rows evenly spread."""

    def name(self, row: int) -> str:
        """What a row is."""
        if row < self.test:
            return f"test row {row}"
        edge = row - self.test
        return f"edge row '{EDGES[edge]}'" if edge < len(EDGES) else f"noise row {edge - len(EDGES)}"


def probes(dataset: Dataset) -> Probes:
    """Lay out the rows that a file of this dataset is proven on; the same dataset gives the same rows."""
    test = open_split(dataset, "test").x
    lowest, highest = seen(dataset)
    made = max(NOISE, ENOUGH - len(test) - len(EDGES))
    x = np.concatenate([test, _edges(dataset, lowest, highest), _noise(dataset, lowest, highest, made)])
    spread = np.linspace(0, len(test) - 1, min(len(test), ENOUGH - made - len(EDGES))).astype(np.int64)
    return Probes(x, len(test), np.concatenate([np.unique(spread), np.arange(len(test), len(x))]))


def seen(dataset: Dataset) -> Bounds:
    """Smallest and largest value that each column or pixel has in the training rows."""
    x = open_split(dataset, "train").x
    return x.min(axis=0), x.max(axis=0)


def _domain(dataset: Dataset, lowest: NDArray[np.generic], highest: NDArray[np.generic]) -> Bounds:
    """What an input may be: any pixel a source can give, or a column's values as far as they are known."""
    if dataset.largest is None:
        return lowest, highest
    return np.zeros_like(lowest), np.full_like(highest, dataset.largest)


def _edges(dataset: Dataset, lowest: NDArray[np.generic], highest: NDArray[np.generic]) -> Raw:
    """The rows that `EDGES` names; where pixels have a domain of their own, it goes further than what was seen."""
    low, high = _domain(dataset, lowest, highest)
    constant = np.full_like(low, (float(low.min()) + float(high.max())) / 2)
    rows: Raw = np.stack([np.zeros_like(low), low, high, constant, lowest, highest])
    return rows


def _noise(dataset: Dataset, lowest: NDArray[np.generic], highest: NDArray[np.generic], rows: int) -> Raw:
    """Evenly spread over the domain, value by value."""
    low, high = _domain(dataset, lowest, highest)
    share = np.random.default_rng(0).random((rows, *dataset.shape))
    drawn = low.astype(np.float64) + share * (high.astype(np.float64) - low.astype(np.float64))
    if dataset.dtype == "uint8":
        return drawn.round().astype(np.uint8)
    return drawn.astype(np.float32)
