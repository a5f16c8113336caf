"""What the bits of a result depend on beside experiment and data."""

from importlib.metadata import version

import torch

LIBRARIES = ("torch", "numpy", "scikit-learn")


def fingerprint(device: torch.device, threads: int) -> dict[str, str]:
    """Kind of device, CPU threads, versions of the libraries that compute, and features of the processor."""
    cuda = device.type == "cuda"
    processor = torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability()
    found = {library: version(library) for library in LIBRARIES}
    return {"device": device.type, "threads": str(threads), "processor": processor, **found}
