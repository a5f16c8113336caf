"""Operator registry of torch's ONNX exporter, read once per process. Otherwise each export reads it again (0.5 s)."""

from functools import cache

from torch.onnx._internal.exporter import _registration

from hallmark.tasks.ml.config.experiment import Export


def reuse() -> None:
    """Let all exports of this process share the registry. Exports do not modify it."""
    original = _registration.ONNXRegistry.from_torchlib
    if not hasattr(original, "cache_info"):
        _registration.ONNXRegistry.from_torchlib = staticmethod(cache(original))


def read() -> None:
    """Read the registry before processes are forked from this one."""
    _registration.ONNXRegistry.from_torchlib(opset_version=Export().opset)
