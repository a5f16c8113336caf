"""Preprocessing that is part of the classifier: from raw rows to the network's input."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hallmark.tasks.common.records import SPLITS, Column, Dataset, SplitName
from hallmark.tasks.ml.config.data import Data
from hallmark.tasks.ml.data.dataset_store import columns_of, open_split
from hallmark.tasks.ml.data.source_rows import RawRows
from hallmark.tasks.ml.data.tables import encoding
from hallmark.tasks.ml.data.tables.date_columns import date_parts

CHUNK_ROWS = 1000
"""Maximum number of rows processed at once outside training: convolving a whole split would take gigabytes."""
_CHUNK_VALUES = 2**24
"""Maximum number of values in a chunk of rows; a chunk of large images therefore has fewer than `CHUNK_ROWS` rows."""


class Scaling(nn.Module):
    """Scale raw rows to the network's input: `(raw - shift) / scale`, each row flattened."""

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        """Store `shift` and `scale`, both `(F,) float32` or scalar."""
        super().__init__()
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    def forward(self, raw: Tensor) -> Tensor:
        """Scale `(N, F) float32`, or `(N, H, W)` or `(N, H, W, 3) uint8`, to `(N, F) float32`."""
        return (raw.flatten(1).to(self.shift.dtype) - self.shift) / self.scale


class Encoding(nn.Module):
    """Encode raw rows of a user's table as the network's input, with the parameters fitted by `tables.encoding`."""

    column: Tensor
    kept: Tensor
    fill: Tensor
    shift: Tensor
    factor: Tensor
    is_category: Tensor

    def __init__(self, columns: tuple[Column, ...]) -> None:
        """Store the fitted parameters of each column."""
        super().__init__()
        self._is_date = [column.kind == "date" for column in columns]
        columns = encoding.expanded(columns)
        order = encoding.feature_order(columns)
        inputs = [
            (index, kept, columns[index].shift, columns[index].factor)
            for index in order
            for kept in (columns[index].kept if columns[index].kind == "categorical" else (0,))
        ]
        column, kept, shift, factor = (list(part) for part in zip(*inputs, strict=True))
        self.register_buffer("column", torch.tensor(column))
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.float32))
        self.register_buffer("fill", torch.tensor([one.fill for one in columns]))
        self.register_buffer("shift", torch.tensor(shift))
        self.register_buffer("factor", torch.tensor(factor))
        self.register_buffer("is_category", torch.tensor([columns[index].kind == "categorical" for index in column]))
        # Not a buffer: it stays float64 where the others are float32, and files of weights keep their content.
        self._offset = torch.tensor([one.offset for one in columns], dtype=torch.float64)

    def forward(self, raw: Tensor) -> Tensor:
        """Encode `(N, columns) float32`, or float64 if one of them is wide, as `(N, F) float32`."""
        raw = self._expand(raw)
        if raw.dtype == torch.float64:
            raw = raw - self._offset.to(raw.device)
        raw = raw.to(self.shift)
        value = torch.where(raw.isnan(), self.fill, raw)[:, self.column]
        return torch.where(self.is_category, (value == self.kept).to(value.dtype), (value - self.shift) * self.factor)

    def _expand(self, raw: Tensor) -> Tensor:
        """Replace each date by its parts."""
        if not any(self._is_date):
            return raw
        columns = zip(raw.unbind(1), self._is_date, strict=True)
        parts = [date_parts.of(column, torch.floor) if is_date else (column,) for column, is_date in columns]
        return torch.stack([part for those in parts for part in those], dim=1)


def fit_scaling(dataset: Dataset, data: Data) -> Scaling | Encoding:
    """Compute shift and scale by the method `data.scaling`, from the splits that `data.scaling_fitted_on` names.

    The encoding of a user's table was already fitted when the dataset was prepared.

    The standard deviation is the population's (`ddof=0`), and a constant column is divided by 1, both as in
    scikit-learn's StandardScaler.
    """
    if dataset.is_table:
        return Encoding(columns_of(dataset))
    match data.scaling:
        case "none":
            shift, scale = np.zeros(()), np.ones(())
        case "range":
            shift, scale = np.zeros(()), np.array(dataset.largest)
        case "standard":
            chosen: tuple[SplitName, ...] = SPLITS if data.scaling_fitted_on == "all" else ("train",)
            splits = [open_split(dataset, split).x for split in chosen]

            def chunks_of_all() -> Iterator[NDArray[np.float64]]:
                return (part.reshape(len(part), -1).astype(np.float64) for x in splits for part in chunks(x))

            rows = sum(map(len, splits))
            shift = sum(part.sum(axis=0) for part in chunks_of_all()) / rows
            scale = np.sqrt(sum(np.square(part - shift).sum(axis=0) for part in chunks_of_all()) / rows)
            scale = np.where(scale == 0, 1.0, scale)
    return Scaling(torch.tensor(shift, dtype=torch.float32), torch.tensor(scale, dtype=torch.float32))


def chunk_size(features: int) -> int:
    """Return the number of rows with `features` values each that are processed at once outside training."""
    return max(1, min(CHUNK_ROWS, _CHUNK_VALUES // features))


def chunks(x: RawRows) -> Iterator[RawRows]:
    """Yield all rows of `x` in order, `chunk_size` rows at a time."""
    rows = chunk_size(math.prod(x.shape[1:]))
    return (x[start : start + rows] for start in range(0, len(x), rows))
