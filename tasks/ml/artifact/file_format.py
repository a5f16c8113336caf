"""Form in which a graph is written, so that old runtimes and other tools read it. Imports no torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

VERSION = 2
"""Version of the bytes that an export writes. Increase it when the same model gives other bytes.

2: one opset import for each domain, no initializer in `value_info`, and the lowest IR version for the operators.
"""


def tidy(model: "onnx.ModelProto") -> None:
    """Write a graph as other tools expect it; no prediction changes.

    Without this, `onnxruntime.quantization` fails on the graph of a table, and onnxruntime 1.17 loads none.
    """
    import onnx

    newest: dict[str, int] = {}
    for entry in model.opset_import:
        newest[entry.domain] = max(entry.version, newest.get(entry.domain, 0))
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in newest.items())
    weights = {tensor.name for tensor in model.graph.initializer}
    described = [one for one in model.graph.value_info if one.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(described)
    model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
