"""One of the networks that are trained together: its history, early stopping and divergence."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.ml.config.experiment import Training
from hallmark.tasks.ml.training.history import History

MONITORED = {"validation": "val/loss", "train": "train/loss", "test": "test/loss"}
"""The metric that early stopping watches, by `training.monitor`."""

_STORED = ("seed", "ended", "diverged", "best_loss", "best_epoch")
"""Fields of `Member` in a checkpoint."""


@dataclass(slots=True)
class Member:
    """The state of one network, besides its weights."""

    training: Training
    seed: int
    """Seed of the initial weights."""
    history: History
    updates: int
    """Number of updates in an epoch."""
    is_single: bool
    """Whether it is the only network, so that its divergence is an error of the whole training."""
    ended: str = ""
    """Reason why its training has ended; empty while it continues."""
    diverged: bool = False
    best_loss: float = math.inf
    best_epoch: int = 0

    def record_losses(self, losses: NDArray[np.float32]) -> None:
        """Record the losses of the next updates, up to the first one that is not finite.

        Raises:
            DivergedError: a loss is not finite and this is the only network.
        """
        finite = np.isfinite(losses)
        first = len(losses) if finite.all() else int(finite.argmin())
        self.history.record_updates(losses[:first])
        if first < len(losses):
            self.check_finite("loss", float(losses[first]), self.history.updates + 1)

    def record_monitored_loss(self, epoch: int, metrics: dict[str, float]) -> bool:
        """Record the monitored loss and return whether it is the lowest so far.

        Ends the training after `training.patience` epochs without a lower loss.
        """
        training = self.training
        improved = (loss := metrics[MONITORED[training.monitor]]) < self.best_loss
        if improved:
            self.best_loss, self.best_epoch = loss, epoch
        if epoch - self.best_epoch >= training.patience:
            self.ended = f"no lower {training.monitor} loss in {training.patience} epochs"
        return improved

    def check_finite(self, what: str, value: float, update: int) -> None:
        """End the training if a loss, metric or weight is not finite.

        Raises:
            DivergedError: it is not, and this is the only network.
        """
        if math.isfinite(value) or self.diverged:
            return
        training = self.training
        remedy = "try a smaller --training.lr"
        is_small = training.batch_size != "full" and math.isnan(value)
        weights = getattr(training.loss, "weight", None) or ()
        if is_small and (getattr(training.loss, "ignore_index", None) is not None or 0 in weights):
            remedy = "a batch in which every row has weight 0 has no mean loss: try a larger --training.batch_size"
        self.diverged = True
        self.ended = (
            f"training diverged: the {what} is {value} at epoch {-(-update // self.updates)}, step {update}, "
            f"learning rate {training.lr:g}: {remedy}"
        )
        if self.is_single:
            raise DivergedError(self.ended)

    def state(self) -> tuple[Tensor, dict[str, Any]]:
        """Return the state for a checkpoint: the losses of all updates, and JSON values."""
        losses, points = self.history.state()
        return torch.from_numpy(losses), {name: getattr(self, name) for name in _STORED} | {"history": points}

    def restore(self, losses: Tensor, facts: dict[str, Any]) -> None:
        """Restore a `state`."""
        self.history.restore(losses.numpy(), facts["history"])
        for name in _STORED:
            setattr(self, name, facts[name])
