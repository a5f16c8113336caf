"""Where the training runs."""

import torch

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.experiment import Device


def choose(device: Device) -> torch.device:
    """Resolve `auto` to cuda, else mps, else cpu, and refuse a device that this machine lacks.

    Raises:
        InputError: `cuda` or `mps` was asked for and torch finds none.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, found in available.items() if found))
    if not available[device]:
        raise InputError(
            f"training.device: '{device}' was asked for and torch {torch.__version__} finds none on this machine: "
            "use 'auto' or 'cpu'"
        )
    return torch.device(device)
