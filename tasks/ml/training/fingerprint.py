"""The fingerprint of a machine: everything besides experiment and data that determines the bits of the weights."""

from importlib.metadata import version

import torch

LIBRARIES = ("torch", "numpy", "scikit-learn")


def fingerprint(device: torch.device, threads: int) -> dict[str, str]:
    """Return kind of device, number of CPU threads, processor features and versions of the numerical libraries."""
    cuda = device.type == "cuda"
    processor = torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability()
    versions = {library: version(library) for library in LIBRARIES}
    return {"device": device.type, "threads": str(threads), "processor": processor, **versions}
