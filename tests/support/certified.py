"""Small stamped ONNX files for tests: softmax regressions with fixed weights."""

import math
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hallmark.tasks.ml.artifact import certificate, runtimes
from hallmark.tasks.ml.artifact.certificate import Certificate, Golden, Input
from hallmark.tasks.ml.artifact.runtimes import Feeds

COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
CLASSES = ("setosa", "versicolor", "virginica")
SIDES = (3, 4)
"""Height and width of the images."""
PROOF = {"verdict": "passed", "rows": 4, "rows_made": 0, "ways": ["by hand"], "own_error": 1e-7, "largest_error": 1e-7}
LOWEST, HIGHEST = 0.0, 8.0
"""Range of column values and pixels in the training rows."""


def columns(path: Path, names: tuple[str, ...] = COLUMNS, classes: tuple[str, ...] = CLASSES) -> Path:
    """Write a model with one input per column."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in names]
    concatenation = helper.make_node("Concat", list(names), ["x"], axis=1)
    inputs = tuple(Input(name, "float32", (1,), LOWEST, HIGHEST, "centimetres") for name in names)
    rows = np.random.default_rng(0).uniform(LOWEST, HIGHEST, (4, len(names))).astype(np.float32)
    feeds: Feeds = {name: rows[:, index : index + 1] for index, name in enumerate(names)}
    return _write(path, [concatenation], values, inputs, feeds, classes, len(names))


def images(
    path: Path, shape: tuple[int, ...] = SIDES, classes: tuple[str, ...] = ("dark", "light"), *, resized: bool = False
) -> Path:
    """Write a model of images: grey for a shape `(H, W)`, colour for `(H, W, 3)`."""
    value = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *shape])
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["x"], axis=1),
    ]
    inputs = (Input("image", "uint8", shape, LOWEST, HIGHEST, "grey", resized=resized),)
    feeds: Feeds = {"image": np.random.default_rng(0).integers(0, 9, (4, *shape)).astype(np.uint8)}
    return _write(path, nodes, [value], inputs, feeds, classes, math.prod(shape))


def weights(width: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weights `(width, classes)` and bias `(classes,)` of the network."""
    random = np.random.default_rng(width)
    return random.normal(size=(width, classes)).astype(np.float32) / 4, random.normal(size=classes).astype(np.float32)


def expected(x: NDArray[np.generic], classes: int) -> NDArray[np.float64]:
    """Return probabilities `(N, classes)`, computed in NumPy from rows `(N, width)`."""
    weight, bias = weights(x.shape[1], classes)
    scores = x.astype(np.float64) @ weight.astype(np.float64) + bias
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    values: list[onnx.ValueInfoProto],
    inputs: tuple[Input, ...],
    feeds: Feeds,
    classes: tuple[str, ...],
    width: int,
) -> Path:
    unstamped = path.with_name("unstamped.onnx")
    unstamped.write_bytes(_graph(nodes, values, width, len(classes)).SerializeToString())
    label, probabilities = runtimes.runner(runtimes.open_session(unstamped.read_bytes()))(feeds)
    golden = Golden({k: v.tolist() for k, v in feeds.items()}, label.tolist(), probabilities.tolist(), 1e-6)
    shares = tuple(1 / len(classes) for _ in classes)
    content = Certificate(inputs, classes, shares, "0" * 64, "1" * 64, {"test/accuracy": 1.0}, PROOF, golden)
    certificate.stamp(unstamped, content, path)
    unstamped.unlink()
    return path


def _graph(nodes: list[onnx.NodeProto], values: list[onnx.ValueInfoProto], width: int, classes: int) -> onnx.ModelProto:
    weight, bias = weights(width, classes)
    head = [
        helper.make_node("Gemm", ["x", "weight", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes]),
    ]
    initializers = [onnx.numpy_helper.from_array(weight, "weight"), onnx.numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph(nodes + head, "softmax", values, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
