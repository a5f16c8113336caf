"""The device that a training runs on."""

import torch

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.experiment import Device


def choose(device: Device) -> torch.device:
    """Resolve `auto` to cuda, else mps, else cpu; refuse a device that this machine does not have.

    Raises:
        InputError: the device is `cuda` or `mps` and torch finds none.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, found in available.items() if found))
    if not available[device]:
        raise InputError(
            f"training.device: torch {torch.__version__} finds no '{device}' device on this machine: "
            "use 'auto' or 'cpu'"
        )
    return torch.device(device)
