"""Rows on their way to the network: where they lie, in which order they are taken, and how many at a time."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tasks.ml import losses, memory
from tasks.ml.config import Loss
from tasks.ml.data import open_split
from tasks.ml.models import ROWS_AT_ONCE, Scaling
from tasks.ml.records import Dataset, SplitName

_SHARE_OF_MEMORY = 0.25
"""Splits that take more than this, scaled to float32, stay in their file and are read batch by batch."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One split: scaled, on the training device; or, where it is too large for that, raw and in its file."""

    x: Tensor
    """`(N, F) float32`, scaled; or as in the file, memory-mapped."""
    y: Tensor
    """`(N,) int64` class index."""
    target: Tensor
    """What the loss compares with: see `losses.targets`."""
    scaling: Scaling | None
    """What is still to be done to `x`, if anything."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.y)

    def take(self, rows: Tensor) -> Tensor:
        """Rows by index, `(B,)` or `(M, B)`, ready for the network: `(B, F)` or `(M, B, F)`."""
        if rows.dim() == 1:
            return self._ready(self.x.index_select(0, rows))
        return self._ready(self.x.index_select(0, rows.flatten())).view(*rows.shape, -1)

    def cut(self, start: int, stop: int) -> Tensor:
        """Neighbouring rows, ready for the network."""
        return self._ready(self.x[start:stop])

    def in_turn(self) -> Iterator[Tensor]:
        """All rows, some at once, ready for the network."""
        return (self.cut(start, start + ROWS_AT_ONCE) for start in range(0, len(self), ROWS_AT_ONCE))

    def _ready(self, x: Tensor) -> Tensor:
        return x if self.scaling is None else self.scaling(x.to(self.y.device))


@dataclass(frozen=True, slots=True)
class Epoch:
    """The batches of one epoch."""

    rows: Rows
    size: int
    """Rows a batch; the last one is smaller where the rows do not divide."""
    order: Tensor | None
    """`(N,)` that all networks share, or `(M, N)`, one each; None takes the rows as they lie."""

    def __len__(self) -> int:
        """Number of batches."""
        return math.ceil(len(self.rows) / self.size)

    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """The rows of batches `start` to `stop`, ready for the network."""
        if self.order is None:
            first, last = start * self.size, min(stop * self.size, len(self.rows))
            return (self.rows.cut(row, min(row + self.size, last)) for row in range(first, last, self.size))
        part = self.order[..., start * self.size : stop * self.size]
        return (self.rows.take(rows) for rows in torch.split(part, self.size, dim=-1))

    def truth(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Classes and targets of some batches: `(1, R)` and `(1, R, ...)`, or `(M, R)` and so on with own orders."""
        first, last = start * self.size, stop * self.size
        if self.order is None:
            return self.rows.y[None, first:last], self.rows.target[None, first:last]
        part = self.order[..., first:last]
        rows = part.reshape(-1, part.shape[-1])
        y, target = (tensor.index_select(0, rows.flatten()) for tensor in (self.rows.y, self.rows.target))
        return y.view(rows.shape), target.view(*rows.shape, *target.shape[1:])


def order(seed: int, epoch: int, rows: int) -> Tensor:
    """The order of the rows in an epoch, `(rows,) int64`: a pure function of seed and epoch."""
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(rows))


def load(dataset: Dataset, split: SplitName, scaling: Scaling, loss: Loss, units: int, device: torch.device) -> Rows:
    """Bring a split to the training device, or map its file where it would take too much memory.

    Either way the network sees the same bits.

    Args:
        dataset: the prepared splits.
        split: which of them.
        scaling: from raw rows to the network's input, on the CPU.
        loss: says what the targets are.
        units: what the network gives.
        device: where the training runs.
    """
    stored = open_split(dataset, split)
    y = torch.tensor(stored.y)  # copied: torch tensors must be writable, and the file is not
    target = losses.targets(loss, y, units)
    with warnings.catch_warnings():
        # Nothing here writes into it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        raw = torch.from_numpy(stored.x)
    if is_mapped(dataset):
        return Rows(raw, y.to(device), target.to(device), scaling.to(device))
    x = torch.empty((len(y), math.prod(dataset.shape)), device=device)
    for start in range(0, len(y), ROWS_AT_ONCE):
        # In parts: all at once would take three times the memory on the way.
        x[start : start + ROWS_AT_ONCE] = scaling(raw[start : start + ROWS_AT_ONCE])
    return Rows(x, y.to(device), target.to(device), None)


def is_mapped(dataset: Dataset) -> bool:
    """Whether the rows stay in their files while a network trains on them."""
    rows = dataset.rows["train"] + dataset.rows["validation"]
    return rows * math.prod(dataset.shape) * 4 > _SHARE_OF_MEMORY * memory.limit()
