"""The first node of a graph whose value differs from torch's, and the usual cause.

torch's exporter gives the values of a graph the names that they have in torch.export's program. So both can be run
value by value, the graph by onnx's reference evaluator and the program by torch, and compared by name.
"""

from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch.fx import Interpreter, Node

from hallmark.tasks.common.records import OUTPUT_NAMES, Dataset
from hallmark.tasks.ml.artifact import exporter, runtimes
from hallmark.tasks.ml.artifact.proof.further_rows import texts
from hallmark.tasks.ml.config.experiment import Export
from hallmark.tasks.ml.data.dataset_store import ENCODING
from hallmark.tasks.ml.data.source_rows import RawRows
from hallmark.tasks.ml.data.tables import encoding
from hallmark.tasks.ml.models.networks import Classifier

TOLERANCES = (1e-4, 1e-5, 1e-6)
"""Shares of a node's largest value by which a value must be off to differ. The first that finds a node is used."""

CAUSES = {
    "Conv": "the kernel's weights, a transposition of channels or pixels, or a cast to fewer bits",
    "Gemm": "weights or bias, their transposition, or a cast to fewer bits",
    "MatMul": "weights, their transposition, or a cast to fewer bits",
    "Add": "a bias that was changed or dropped",
    "Sub": "the shift of the scaling: normalisation left out, doubled, or that of other data",
    "Div": "the scale of the scaling: normalisation left out, doubled, or that of other data",
    "Mul": "a factor: the scaling, or an activation written out",
    "Cast": "a type that cannot hold the values",
    "OneHotEncoder": "other values of a column, or their order",
    "Imputer": "another number in place of a missing one",
    "Scaler": "mean or deviation of other rows",
    "Relu": "another activation",
    "Sigmoid": "another activation, or onnxruntime's own sigmoid, which is cut off at -18",
    "Softmax": "softmax over the wrong axis, or taken twice",
    "ArgMax": "the wrong axis, or another rule for the label",
    "Reshape": "the order of channels or pixels",
    "Transpose": "the order of channels or pixels",
    "Concat": "the order of the columns",
    "MaxPool": "another window, stride or padding",
    "AveragePool": "another kind of pooling",
}


class _Recorder(Interpreter):
    """Run a program and keep every value by name."""

    def __init__(self, program: torch.fx.GraphModule) -> None:
        super().__init__(program)
        self.values: dict[str, NDArray[Any]] = {}

    def run_node(self, n: Node) -> Any:  # noqa: ANN401 - any value of a node
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.values[n.name] = value.numpy()
        return value


def first(model: onnx.ModelProto, classifier: Classifier, dataset: Dataset, x: RawRows) -> dict[str, Any]:
    """Find the first node of a refused graph that differs from torch.

    Args:
        model: the graph.
        classifier: the model that the graph should compute.
        dataset: gives the names of the inputs.
        x: raw rows on which the two differ.

    Returns:
        `node`, `operator`, `value` and `difference` (relative), if a node is found; and a `sentence` that describes it.
    """
    try:
        computed = _by_graph(model, dataset, x)
        expected = _by_encoding(dataset, x) | _by_torch(classifier, dataset, x)
    except Exception as error:  # noqa: BLE001 - a wrong graph may fail in any way, and this only explains it
        return {"sentence": f"the node that differs cannot be found: {' '.join(str(error).split())[:200]}"}
    for tolerance in TOLERANCES:
        for node in model.graph.node:
            for name in node.output:
                if name in computed and (value := expected.get(encoding.network_value_name(name))) is not None:
                    apart = _apart(computed[name], value)
                    if not apart <= tolerance:
                        return _describe(node, name, apart)
    return {"sentence": "no single node differs: the runtime differs, or the types of the graph have too few bits"}


def _describe(node: onnx.NodeProto, name: str, apart: float) -> dict[str, Any]:
    cause = CAUSES.get(node.op_type, "its inputs or its attributes")
    sentence = f"the first node that differs is {node.op_type} '{node.name}', usually because of {cause}"
    difference = float(apart) if np.isfinite(apart) else None
    return {
        "node": node.name, "operator": node.op_type, "value": name, "difference": difference, "sentence": sentence,
    }  # fmt: skip


def _by_torch(classifier: Classifier, dataset: Dataset, x: RawRows) -> dict[str, NDArray[Any]]:
    program = exporter.trace(classifier, dataset, Export()).exported_program
    assert program  # noqa: S101 - torch keeps it
    recorder = _Recorder(program.module())
    with torch.no_grad():
        if dataset.is_table:
            given = {encoding.FEATURES: classifier.scaling(torch.tensor(x))}
        else:
            given = {name: torch.tensor(value) for name, value in runtimes.feeds(dataset.columns, x).items()}
        recorder.run(*given.values())
    outputs = zip(OUTPUT_NAMES, program.graph_signature.user_outputs, strict=True)
    return recorder.values | {name: recorder.values[output] for name, output in outputs}


def _by_encoding(dataset: Dataset, x: RawRows) -> dict[str, NDArray[Any]]:
    """Return the values inside the fitted encoding of a user's table, which torch computes in one step."""
    if not dataset.is_table:
        return {}
    model = onnx.load(dataset.folder / ENCODING)
    fitted = _by_graph(model, dataset, x, tuple(one.name for one in model.graph.input))
    return {encoding.ENCODING_PREFIX + name: value for name, value in fitted.items()}


def _by_graph(
    model: onnx.ModelProto, dataset: Dataset, x: RawRows, names: tuple[str, ...] = ()
) -> dict[str, NDArray[Any]]:
    given = runtimes.feeds(dataset.columns, x, texts(dataset), dataset.wide)
    given = dict(zip(names, given.values(), strict=True)) if names else given
    values = cast(dict[str, Any], runtimes.reference_evaluator(model).run(None, given, intermediate=True))
    return {name: np.asarray(value) for name, value in values.items() if value is not None}


def _apart(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the difference relative to the largest value; infinite if the shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    if expected.dtype.kind not in "biuf":  # text
        return 0.0 if np.array_equal(found, expected) else float("inf")
    one, other = found.astype(np.float64), expected.astype(np.float64)
    is_gap = np.isnan(one) & np.isnan(other)
    one, other = np.where(is_gap, 0, one), np.where(is_gap, 0, other)
    return float(np.abs(one - other).max(initial=0.0) / max(np.abs(other).max(initial=0.0), np.finfo(np.float32).tiny))
