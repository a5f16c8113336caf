"""Learning rate schedules: a pure function of the position in training."""

import math

from hallmark.tasks.ml.config.experiment import Constant, Cosine, OneCycle, Schedule, Step

_START = 25.0
_END = 1e4
"""one_cycle starts at lr / _START and ends at lr / _START / _END: torch's defaults."""


def factor(schedule: Schedule, epochs: int, updates: int, epoch: int, update: int) -> float:
    """Return the factor of the learning rate for one update.

    Args:
        schedule: the schedule, as in `torch.optim.lr_scheduler`: cosine is CosineAnnealingLR, step is StepLR, one_cycle
            is OneCycleLR, the only one that changes within an epoch.
        epochs: number of epochs in the whole training.
        updates: number of updates in an epoch.
        epoch: current epoch, from 1.
        update: current update within the epoch, from 0.
    """
    match schedule:
        case Constant():
            return 1.0
        case Cosine():
            return _half_cosine(1.0, 0.0, (epoch - 1) / epochs)
        case Step():
            return schedule.factor ** ((epoch - 1) // schedule.every)
        case OneCycle():
            last = epochs * updates  # one more than the last update's index
            top = schedule.warmup * (last + 1) - 1
            taken = (epoch - 1) * updates + update
            if taken <= top:
                return _half_cosine(1 / _START, 1.0, taken / top)
            return _half_cosine(1.0, 1 / _START / _END, (taken - top) / (last - top))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
