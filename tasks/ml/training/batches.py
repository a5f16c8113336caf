"""Rows of a split in memory or in their file, and the batches of an epoch."""

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
"""Share of the memory above which splits, as float32, are not loaded but read from their files batch by batch."""
_GATHER_BYTES = 2**20
"""Bytes of pixels gathered at once: they stay in a processor's cache until they are used."""


@dataclass(frozen=True, slots=True)
class LoadedRows:
    """One split: scaled or raw on the training device, or raw in its file if it is too large for memory."""

    x: Tensor
    """`(N, F)`: scaled float32, or raw uint8 pixels, or memory-mapped as in the file."""
    y: Tensor
    """`(N,) int64` class index."""
    target: Tensor
    """`losses.targets` of the classes."""
    scaling: Scaling | Encoding | None
    """Scaling that is applied when rows are taken; None if `x` is already scaled or the network divides by itself."""
    augment: Augment | None = None
    """Augmentation of raw images, applied batch by batch before scaling."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.y)

    @property
    def are_pixels(self) -> bool:
        """Whether the rows are raw pixels that only need to be converted to float32."""
        return self.scaling is None and not self.x.is_floating_point()

    def take(self, rows: Tensor) -> Tensor:
        """Return rows by index, `(B,)` or `(M, B)`, as input for the network: `(B, F)` or `(M, B, F)`."""
        if rows.dim() == 1:
            return self._network_input(self.x.index_select(0, rows))
        return self._network_input(self.x.index_select(0, rows.flatten())).view(*rows.shape, -1)

    def between(self, start: int, stop: int) -> Tensor:
        """Return rows `start` to `stop` as input for the network."""
        return self._network_input(self.x[start:stop])

    def augmented(self, rows: Tensor, epoch: int, batch: int) -> Tensor:
        """Return augmented rows by index, `(B,)`, as input for the network."""
        assert self.augment  # noqa: S101 - checked by the caller
        return self._network_input(self.augment(self.x.index_select(0, rows), epoch, batch))

    def chunks(self) -> Iterator[Tensor]:
        """Yield all rows in order as input for the network, `chunk_size` rows at a time."""
        rows = chunk_size(self.x.shape[1])
        return (self.between(start, start + rows) for start in range(0, len(self), rows))

    def _network_input(self, x: Tensor) -> Tensor:
        if self.scaling is not None:
            # Float64 is made smaller before it is moved: some GPUs do not have it.
            scaled: Tensor = self.scaling(x if x.dtype == torch.float64 else x.to(self.y.device))
            return scaled
        return x.to(self.y.device, torch.get_default_dtype()) if self.are_pixels else x


@dataclass(frozen=True, slots=True)
class Epoch:
    """The batches of one epoch."""

    rows: LoadedRows
    size: int
    """Rows in a batch; the last batch may be smaller."""
    order: Tensor | None
    """Row order: `(N,)` shared by all networks, or `(M, N)` with one for each; None keeps the stored order."""
    number: int = 1
    """Number of the epoch, from 1."""

    def __len__(self) -> int:
        """Return the number of batches."""
        return math.ceil(len(self.rows) / self.size)

    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """Yield the rows of batches `start` to `stop` as input for the network."""
        if self.rows.augment:
            return (self.rows.augmented(self._indices(batch), self.number, batch) for batch in range(start, stop))
        if self.order is None:
            first, last = start * self.size, min(stop * self.size, len(self.rows))
            return (self.rows.between(row, min(row + self.size, last)) for row in range(first, last, self.size))
        part = self.order[..., start * self.size : stop * self.size]
        if part.dim() == 1 and self.rows.are_pixels:
            return self._pixel_batches(part)
        return (self.rows.take(rows) for rows in torch.split(part, self.size, dim=-1))

    def _indices(self, batch: int) -> Tensor:
        first, last = batch * self.size, min((batch + 1) * self.size, len(self.rows))
        return torch.arange(first, last) if self.order is None else self.order[first:last]

    def _pixel_batches(self, order: Tensor) -> Iterator[Tensor]:
        """Yield batches of pixels: several are gathered at once as bytes, then each is converted to float32.

        All batches use the same memory: allocating new pages would take longer than the rest.
        """
        features = self.rows.x.shape[1]
        many = min(len(order), self.size * max(1, _GATHER_BYTES // (self.size * features)))
        gathered = torch.empty((many, features), dtype=self.rows.x.dtype, device=self.rows.x.device)
        ready = torch.empty((self.size, features), device=self.rows.y.device)
        for rows in torch.split(order, many):
            torch.index_select(self.rows.x, 0, rows, out=gathered[: len(rows)])
            for x in torch.split(gathered[: len(rows)], self.size):
                yield (ready if len(x) == self.size else ready[: len(x)]).copy_(x)

    def truth(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return classes and targets of batches: `(1, R)` and `(1, R, ...)`; `(M, R)` and so on with M row orders."""
        first, last = start * self.size, stop * self.size
        if self.order is None:
            return self.rows.y[None, first:last], self.rows.target[None, first:last]
        part = self.order[..., first:last]
        rows = part.reshape(-1, part.shape[-1]).to(self.rows.y.device)
        y, target = (tensor.index_select(0, rows.flatten()) for tensor in (self.rows.y, self.rows.target))
        return y.view(rows.shape), target.view(*rows.shape, *target.shape[1:])


def order(seed: int, epoch: int, rows: int) -> Tensor:
    """Return the order of the rows in an epoch, `(rows,) int64`: a pure function of seed and epoch."""
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(rows))


def pixel_divisor(dataset: Dataset, scaling: Scaling | Encoding, training: Training) -> float | None:
    """Return the number by which the network divides raw pixels, which take a quarter of the memory of float32.

    None if rows are scaled before training: columns, pixels scaled by a mean of their own each, and full batches, which
    would have to be converted again in every epoch.
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
) -> LoadedRows:
    """Load a split onto the training device, or memory-map its file if it would take too much memory.

    Both give the network the same bits.

    Args:
        dataset: the prepared splits.
        split: the split to load.
        scaling: from raw rows to the network's input, on the CPU; None keeps raw pixels.
        loss: determines the targets.
        units: number of logits.
        device: where the training runs.
        augment: augmentation of training images before scaling, on the CPU; their rows are kept raw.
    """
    stored = open_split(dataset, split)
    y = torch.tensor(stored.y)  # copied: torch tensors must be writable, and the file is not
    target = losses.targets(loss, y, units)
    with warnings.catch_warnings():
        # Nothing writes to it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        raw = torch.from_numpy(stored.x)
    augment = augment if split == "train" else None
    if is_mapped(dataset) or augment:
        x = raw.flatten(1) if is_mapped(dataset) else raw.flatten(1).clone()
        return LoadedRows(x, y.to(device), target.to(device), scaling and scaling.to(device), augment)
    if scaling is None:
        return LoadedRows(raw.flatten(1).clone().to(device), y.to(device), target.to(device), None)
    x = torch.empty((len(y), math.prod(dataset.shape)), device=device)
    for start in range(0, len(y), CHUNK_ROWS):
        # In chunks: scaling all at once would take three times the memory.
        x[start : start + CHUNK_ROWS] = scaling(raw[start : start + CHUNK_ROWS])
    return LoadedRows(x, y.to(device), target.to(device), None)


def is_mapped(dataset: Dataset) -> bool:
    """Return whether the rows are too large for memory and stay in their files during training."""
    rows = dataset.rows["train"] + dataset.rows["validation"]
    return rows * math.prod(dataset.shape) * 4 > _SHARE_OF_MEMORY * memory.limit()
