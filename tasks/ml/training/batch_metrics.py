"""Loss and correct predictions of each batch of an epoch, as measured before each update."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hallmark.tasks.ml.config.losses import Loss
from hallmark.tasks.ml.config.models import Model
from hallmark.tasks.ml.models import class_probabilities
from hallmark.tasks.ml.training.optim import losses

_DTYPES = (torch.float32, torch.float32, torch.int64)
"""Types of the values measured in each batch: loss, total row weight, number of correct rows."""


class BatchMetrics:
    """The measured values of one epoch's batches, for M networks that are trained together."""

    def __init__(
        self, loss: Loss, model: Model, networks: int, batches: int, batch_size: int, device: torch.device
    ) -> None:
        """Allocate the memory of one epoch.

        Args:
            loss: the loss to measure.
            model: determines the activation before the loss.
            networks: number of networks, M.
            batches: number of batches in an epoch.
            batch_size: rows in every batch but the last one.
            device: where the training runs.
        """
        self._loss, self._model, self._networks, self._batch_size = loss, model, networks, batch_size
        # Allocated once: small tensors that outlive the batches around them would fragment the heap and keep hundreds
        # of megabytes from being reused.
        self._measured = [torch.empty((networks, batches), dtype=dtype, device=device) for dtype in _DTYPES]
        self.collected = self._empty()
        """The values copied to the CPU so far, each `(M, n)`."""

    def measure(self, start: int, stop: int, logits: Tensor, y: Tensor, target: Tensor) -> None:
        """Measure batches `start` to `stop`.

        Args:
            start: the first batch.
            stop: the batch after the last one.
            logits: logits of all their rows, `(U, R)` or `(M, U, R)`.
            y: class indices, `(1, R)` or `(M, R)`.
            target: `losses.targets` of the same rows.
        """
        row_losses, correct = measure_rows(self._loss, self._model, self._networks, logits, y, target)
        weights = self._sum_by_batch(losses.row_weights(self._loss, target))
        values = self._sum_by_batch(row_losses) / weights, weights, self._sum_by_batch(correct)
        for tensor, value in zip(self._measured, values, strict=True):
            tensor[:, start:stop] = value

    def collect(self, stop: int) -> NDArray[np.float32]:
        """Copy the values of batches before `stop` to the CPU and return the losses not collected before, `(M, n)`.

        On a GPU this waits for the device.
        """
        start = self.collected[0].shape[1]
        values = [tensor[:, start:stop].cpu().numpy().copy() for tensor in self._measured]
        self.collected = [np.concatenate(pair, axis=1) for pair in zip(self.collected, values, strict=True)]
        new_losses: NDArray[np.float32] = values[0]
        return new_losses

    def reset(self) -> None:
        """Start a new epoch."""
        self.collected = self._empty()

    def of_network(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Return losses `(n,)` and total row weights `(n,)` by batch, and the number of correct rows."""
        loss, weights, correct = (values[index].astype(np.float64) for values in self.collected)
        return loss, weights, int(correct.sum())

    def _empty(self) -> list[NDArray[Any]]:
        return [torch.empty((self._networks, 0), dtype=dtype).numpy() for dtype in _DTYPES]

    def _sum_by_batch(self, rows: Tensor) -> Tensor:
        """Sum the values of each batch's rows: `(M, R)` to `(M, n)`."""
        whole = rows.shape[1] // self._batch_size * self._batch_size
        sums = rows[:, :whole].view(len(rows), -1, self._batch_size).sum(2)
        return sums if whole == rows.shape[1] else torch.cat([sums, rows[:, whole:].sum(1, keepdim=True)], dim=1)


def measure_rows(
    loss: Loss, model: Model, networks: int, logits: Tensor, y: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the loss of each row and whether its label is correct, both `(M, R)`; arguments as in `measure`."""
    logits = logits.view(networks, -1, logits.shape[-1])
    return losses.row_losses(loss, model, logits, target), class_probabilities.labels(logits) == y
