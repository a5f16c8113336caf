"""The rows of a proof: the test split, and synthetic rows (extremes of the inputs, changed rows, and seeded noise)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import UNKNOWN, Dataset
from hallmark.tasks.ml.artifact.proof.further_rows import further_rows
from hallmark.tasks.ml.data.dataset_store import Bounds, as_stored, open_split, training_range
from hallmark.tasks.ml.data.source_rows import RawRows

ENOUGH = 512
"""Minimum number of rows that are predicted in every way."""
NOISE = 64
"""Minimum number of rows of noise; more if the test split is small."""
EDGES = ("zeros", "lowest", "highest", "constant", "lowest seen", "highest seen")
EDGES_OF_TABLES = ("nothing missing", "all missing", "all unknown")
"""Further extremes of a user's table, where a field may be empty or hold text that is not in the training rows."""
GAPS = 0.1
"""Share of missing fields, and of unknown text, in the noise of a table."""


@dataclass(frozen=True, slots=True)
class Probes:
    """The raw rows of a proof."""

    x: RawRows
    """`(N, F) float32` (float64 if a column is wide), or `(N, H, W)` or `(N, H, W, 3) uint8`: test rows, then edges,
    changed rows and noise."""
    test: int
    """Number of test rows, which come first."""
    chosen: NDArray[np.int64]
    """Positions of the rows that are predicted in every way: all synthetic rows, and evenly spread test rows."""
    edges: tuple[str, ...] = EDGES
    """Names of the extremes and of the changed rows."""
    far: range = range(0)
    """Positions of the rows with values beyond the training range."""

    def name(self, row: int) -> str:
        """Return a name for a row."""
        if row < self.test:
            return f"test row {row}"
        edge = row - self.test
        return f"edge row '{self.edges[edge]}'" if edge < len(self.edges) else f"noise row {edge - len(self.edges)}"


def probes(dataset: Dataset) -> Probes:
    """Return the rows on which a file of this dataset is proven; the same dataset gives the same rows."""
    test = open_split(dataset, "test").x
    lowest, highest = training_range(dataset)
    edges, further = _edges(dataset, lowest, highest), further_rows(dataset)
    x = np.concatenate([test, edges, further.x, _noise(dataset, lowest, highest, _noise_count(dataset))])
    chosen = np.concatenate([chosen_test_rows(dataset), np.arange(len(test), len(x))])
    first = len(test) + len(edges)
    return Probes(x, len(test), chosen, _edge_names(dataset) + further.names, range(first, first + further.far))


def chosen_test_rows(dataset: Dataset) -> NDArray[np.int64]:
    """Return the positions of the test rows that are predicted in every way: evenly spread, all if they are few."""
    rows = dataset.rows["test"]
    most = ENOUGH - _noise_count(dataset) - len(_edge_names(dataset))
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.int64))


def _edge_names(dataset: Dataset) -> tuple[str, ...]:
    return EDGES + EDGES_OF_TABLES if dataset.is_table else EDGES


def _noise_count(dataset: Dataset) -> int:
    """Return the number of rows of noise."""
    return max(NOISE, ENOUGH - dataset.rows["test"] - len(_edge_names(dataset)))


def _domain(dataset: Dataset, lowest: NDArray[np.generic], highest: NDArray[np.generic]) -> Bounds:
    """Return the range of the inputs: all possible pixels, or the training range of a column."""
    if dataset.largest is None:
        return lowest, highest
    return np.zeros_like(lowest), np.full_like(highest, dataset.largest)


def _edges(dataset: Dataset, lowest: NDArray[np.generic], highest: NDArray[np.generic]) -> RawRows:
    """Return the rows named by `EDGES`. The range of pixels is wider than their training range."""
    low, high = _domain(dataset, lowest, highest)
    constant = np.full_like(low, (float(low.min()) + float(high.max())) / 2)
    if not dataset.is_table:
        rows: RawRows = np.stack([np.zeros_like(low), low, high, constant, lowest, highest])
        return rows
    is_text = np.array(dataset.kinds) == "categorical"
    middle = (low.astype(dataset.dtype) + high.astype(dataset.dtype)) / 2
    constant = np.where(is_text, np.floor(middle), constant)
    missing, unknown = np.full_like(low, np.nan), np.where(is_text, np.float32(UNKNOWN), middle)
    whole = np.where(is_text, low, middle)
    rows = np.stack([np.zeros_like(low), low, high, constant, lowest, highest, whole, missing, unknown])
    return as_stored(rows, dataset)


def _noise(dataset: Dataset, lowest: NDArray[np.generic], highest: NDArray[np.generic], rows: int) -> RawRows:
    """Return rows whose values are uniform over the range of the inputs."""
    low, high = (bound.astype(np.float64) for bound in _domain(dataset, lowest, highest))
    random = np.random.default_rng(0)
    if dataset.dtype == "uint8":  # row by row: all at once may be gigabytes of float64
        return np.stack([(low + random.random(low.shape) * (high - low)).round().astype(np.uint8) for _ in range(rows)])
    drawn = low + random.random((rows, *low.shape)) * (high - low)
    return _with_gaps(drawn, dataset) if dataset.is_table else drawn.astype(np.float32)


def _with_gaps(drawn: NDArray[np.float64], dataset: Dataset) -> RawRows:
    """Return noise as fields of a table: whole numbers for text and booleans, some missing, some unknown text."""
    share = np.random.default_rng(1).random(drawn.shape)
    is_text, is_whole = (np.isin(dataset.kinds, kinds) for kinds in (["categorical"], ["categorical", "boolean"]))
    drawn = np.where(is_whole, drawn.round(), drawn)
    drawn = np.where(is_text & (share > 1 - GAPS), UNKNOWN, drawn)
    return as_stored(np.where(share < GAPS, np.nan, drawn), dataset)
