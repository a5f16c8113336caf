"""The course of the learning rate: a pure function of the position in training."""

import math

from hallmark.tasks.ml.config.experiment import Constant, Cosine, OneCycle, Schedule, Step

_START = 25.0
_END = 1e4
"""one_cycle begins at lr / _START and ends at lr / _START / _END: torch's own defaults."""


def factor(schedule: Schedule, epochs: int, updates: int, epoch: int, update: int) -> float:
    """What the learning rate is multiplied by.

    Args:
        schedule: its course. All are those of `torch.optim.lr_scheduler`: cosine of CosineAnnealingLR, step of StepLR,
            one_cycle of OneCycleLR, which alone moves within an epoch.
        epochs: of the whole training.
        updates: in an epoch.
        epoch: from 1.
        update: in this epoch, from 0.
    """
    match schedule:
        case Constant():
            return 1.0
        case Cosine():
            return _half_cosine(1.0, 0.0, (epoch - 1) / epochs)
        case Step():
            return schedule.factor ** ((epoch - 1) // schedule.every)
        case OneCycle():
            last = epochs * updates  # one more than is taken
            top = schedule.warmup * (last + 1) - 1
            taken = (epoch - 1) * updates + update
            if taken <= top:
                return _half_cosine(1 / _START, 1.0, taken / top)
            return _half_cosine(1.0, 1 / _START / _END, (taken - top) / (last - top))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
