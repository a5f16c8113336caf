"""Rows on their way to the network: where they lie, in which order they are taken, and how many at a time."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hallmark.tasks.common.records import Dataset, SplitName
from hallmark.tasks.ml.config.experiment import Training
from hallmark.tasks.ml.config.losses import Loss
from hallmark.tasks.ml.data.dataset_store import open_split
from hallmark.tasks.ml.data.images.augmentation import Augment
from hallmark.tasks.ml.models.preprocessing import CHUNK_ROWS, Encoding, Scaling, chunk_size
from hallmark.tasks.ml.training import memory
from hallmark.tasks.ml.training.optim import losses

_SHARE_OF_MEMORY = 0.25
"""Splits that take more than this, scaled to float32, stay in their file and are read batch by batch."""
_GATHERED = 2**20
"""Bytes of pixels that are gathered at once: they stay in a processor's cache until they are used."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One split: scaled or raw, on the training device; or, where it is too large for that, raw and in its file."""

    x: Tensor
    """`(N, F) float32`, scaled; or `uint8` pixels as they are; or as in the file, memory-mapped."""
    y: Tensor
    """`(N,) int64` class index."""
    target: Tensor
    """What the loss compares with: see `losses.targets`."""
    scaling: Scaling | Encoding | None
    """What is still to be done to `x`, if anything."""
    augment: Augment | None = None
    """What changes raw images before they are scaled, batch by batch."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.y)

    @property
    def are_pixels(self) -> bool:
        """Whether they are as decoders give them, and a conversion makes them ready."""
        return self.scaling is None and not self.x.is_floating_point()

    def take(self, rows: Tensor) -> Tensor:
        """Rows by index, `(B,)` or `(M, B)`, ready for the network: `(B, F)` or `(M, B, F)`."""
        if rows.dim() == 1:
            return self._ready(self.x.index_select(0, rows))
        return self._ready(self.x.index_select(0, rows.flatten())).view(*rows.shape, -1)

    def cut(self, start: int, stop: int) -> Tensor:
        """Neighbouring rows, ready for the network."""
        return self._ready(self.x[start:stop])

    def augmented(self, rows: Tensor, epoch: int, batch: int) -> Tensor:
        """Rows by index, `(B,)`, changed as images of this batch are, and ready for the network."""
        assert self.augment  # noqa: S101 - or nobody asks
        return self._ready(self.augment(self.x.index_select(0, rows), epoch, batch))

    def in_turn(self) -> Iterator[Tensor]:
        """All rows, some at once, ready for the network."""
        rows = chunk_size(self.x.shape[1])
        return (self.cut(start, start + rows) for start in range(0, len(self), rows))

    def _ready(self, x: Tensor) -> Tensor:
        if self.scaling is not None:
            scaled: Tensor = self.scaling(x.to(self.y.device))
            return scaled
        return x.to(self.y.device, torch.get_default_dtype()) if self.are_pixels else x


@dataclass(frozen=True, slots=True)
class Epoch:
    """The batches of one epoch."""

    rows: Rows
    size: int
    """Rows a batch; the last one is smaller where the rows do not divide."""
    order: Tensor | None
    """`(N,)` that all networks share, or `(M, N)`, one each; None takes the rows as they lie."""
    number: int = 1
    """Of the epoch, from 1."""

    def __len__(self) -> int:
        """Number of batches."""
        return math.ceil(len(self.rows) / self.size)

    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """The rows of batches `start` to `stop`, ready for the network."""
        if self.rows.augment:
            return (self.rows.augmented(self._places(batch), self.number, batch) for batch in range(start, stop))
        if self.order is None:
            first, last = start * self.size, min(stop * self.size, len(self.rows))
            return (self.rows.cut(row, min(row + self.size, last)) for row in range(first, last, self.size))
        part = self.order[..., start * self.size : stop * self.size]
        if part.dim() == 1 and self.rows.are_pixels:
            return self._pixels(part)
        return (self.rows.take(rows) for rows in torch.split(part, self.size, dim=-1))

    def _places(self, batch: int) -> Tensor:
        first, last = batch * self.size, min((batch + 1) * self.size, len(self.rows))
        return torch.arange(first, last) if self.order is None else self.order[first:last]

    def _pixels(self, order: Tensor) -> Iterator[Tensor]:
        """As `batches`, many gathered at once while they are small, and each made ready in the same place.

        In the same places all: memory that is asked for anew may come page by page, which takes longer than the rest.
        """
        features = self.rows.x.shape[1]
        many = min(len(order), self.size * max(1, _GATHERED // (self.size * features)))
        gathered = torch.empty((many, features), dtype=self.rows.x.dtype, device=self.rows.x.device)
        ready = torch.empty((self.size, features), device=self.rows.y.device)
        for rows in torch.split(order, many):
            torch.index_select(self.rows.x, 0, rows, out=gathered[: len(rows)])
            for x in torch.split(gathered[: len(rows)], self.size):
                yield (ready if len(x) == self.size else ready[: len(x)]).copy_(x)

    def truth(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Classes and targets of some batches: `(1, R)` and `(1, R, ...)`, or `(M, R)` and so on with own orders."""
        first, last = start * self.size, stop * self.size
        if self.order is None:
            return self.rows.y[None, first:last], self.rows.target[None, first:last]
        part = self.order[..., first:last]
        rows = part.reshape(-1, part.shape[-1]).to(self.rows.y.device)
        y, target = (tensor.index_select(0, rows.flatten()) for tensor in (self.rows.y, self.rows.target))
        return y.view(rows.shape), target.view(*rows.shape, *target.shape[1:])


def order(seed: int, epoch: int, rows: int) -> Tensor:
    """The order of the rows in an epoch, `(rows,) int64`: a pure function of seed and epoch."""
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(rows))


def unit(dataset: Dataset, scaling: Scaling | Encoding, training: Training) -> float | None:
    """What pixels are divided by, where that is all: the network does it then, and they stay a quarter as large.

    None where rows are scaled before: columns, pixels that each have a mean of their own, and a batch of all rows,
    which would be converted anew in every epoch.
    """
    if isinstance(scaling, Encoding) or dataset.dtype != "uint8" or training.batch_size == "full":
        return None
    return None if scaling.scale.dim() else scaling.scale.item()


def load(
    dataset: Dataset,
    split: SplitName,
    scaling: Scaling | Encoding | None,
    loss: Loss,
    units: int,
    device: torch.device,
    augment: Augment | None = None,
) -> Rows:
    """Bring a split to the training device, or map its file where it would take too much memory.

    Either way the network sees the same bits.

    Args:
        dataset: the prepared splits.
        split: which of them.
        scaling: from raw rows to the network's input, on the CPU; None leaves pixels as they are.
        loss: says what the targets are.
        units: what the network gives.
        device: where the training runs.
        augment: what changes training images before they are scaled: they stay raw, and where the CPU reaches them.
    """
    stored = open_split(dataset, split)
    y = torch.tensor(stored.y)  # copied: torch tensors must be writable, and the file is not
    target = losses.targets(loss, y, units)
    with warnings.catch_warnings():
        # Nothing here writes into it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        raw = torch.from_numpy(stored.x)
    augment = augment if split == "train" else None
    if is_mapped(dataset) or augment:
        x = raw.flatten(1) if is_mapped(dataset) else raw.flatten(1).clone()
        return Rows(x, y.to(device), target.to(device), scaling and scaling.to(device), augment)
    if scaling is None:
        return Rows(raw.flatten(1).clone().to(device), y.to(device), target.to(device), None)
    x = torch.empty((len(y), math.prod(dataset.shape)), device=device)
    for start in range(0, len(y), CHUNK_ROWS):
        # In parts: all at once would take three times the memory on the way.
        x[start : start + CHUNK_ROWS] = scaling(raw[start : start + CHUNK_ROWS])
    return Rows(x, y.to(device), target.to(device), None)


def is_mapped(dataset: Dataset) -> bool:
    """Whether the rows stay in their files while a network trains on them."""
    rows = dataset.rows["train"] + dataset.rows["validation"]
    return rows * math.prod(dataset.shape) * 4 > _SHARE_OF_MEMORY * memory.limit()
