"""The operators that torch's exporter knows, read once a process: each export would parse them all again (0.5 s)."""

from functools import cache

from torch.onnx._internal.exporter import _registration

from hallmark.tasks.ml.config.experiment import Export


def reuse() -> None:
    """Let all exports of this process share them. No export changes them."""
    read = _registration.ONNXRegistry.from_torchlib
    if not hasattr(read, "cache_info"):
        _registration.ONNXRegistry.from_torchlib = staticmethod(cache(read))


def read() -> None:
    """Read them now, before processes are forked from this one."""
    _registration.ONNXRegistry.from_torchlib(opset_version=Export().opset)
