"""Small shipped files, made by hand: softmax regressions with fixed weights, stamped as real ones are."""

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
LOWEST, HIGHEST = 0.0, 8.0
"""Range of the training rows, of columns and of pixels."""


def columns(path: Path, names: tuple[str, ...] = COLUMNS, classes: tuple[str, ...] = CLASSES) -> Path:
    """A model of columns."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in names]
    joined = helper.make_node("Concat", list(names), ["x"], axis=1)
    inputs = tuple(Input(name, "float32", (1,), LOWEST, HIGHEST, "centimetres") for name in names)
    rows = np.random.default_rng(0).uniform(LOWEST, HIGHEST, (4, len(names))).astype(np.float32)
    feeds: Feeds = {name: rows[:, index : index + 1] for index, name in enumerate(names)}
    return _write(path, [joined], values, inputs, feeds, classes, len(names))


def images(
    path: Path, shape: tuple[int, ...] = SIDES, classes: tuple[str, ...] = ("dark", "light"), *, resized: bool = False
) -> Path:
    """A model of images: grey, or colour where the shape has a third number."""
    value = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *shape])
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["x"], axis=1),
    ]
    inputs = (Input("image", "uint8", shape, LOWEST, HIGHEST, "grey", resized=resized),)
    feeds: Feeds = {"image": np.random.default_rng(0).integers(0, 9, (4, *shape)).astype(np.uint8)}
    return _write(path, nodes, [value], inputs, feeds, classes, math.prod(shape))


def weights(width: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights `(width, classes)` and bias `(classes,)` of the network."""
    random = np.random.default_rng(width)
    return random.normal(size=(width, classes)).astype(np.float32) / 4, random.normal(size=classes).astype(np.float32)


def expected(x: NDArray[np.generic], classes: int) -> NDArray[np.float64]:
    """Probabilities `(N, classes)` by NumPy, of rows as one array `(N, width)`."""
    weight, bias = weights(x.shape[1], classes)
    scores = x.astype(np.float64) @ weight.astype(np.float64) + bias
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    values: list[onnx.ValueInfoProto],
    inputs: tuple[Input, ...],
    feeds: Feeds,
    classes: tuple[str, ...],
    width: int,
) -> Path:
    bare = path.with_name("bare.onnx")
    bare.write_bytes(_graph(nodes, values, width, len(classes)).SerializeToString())
    label, probabilities = runtimes.runner(runtimes.open_session(bare.read_bytes()))(feeds)
    golden = Golden({k: v.tolist() for k, v in feeds.items()}, label.tolist(), probabilities.tolist(), 1e-6)
    shares = tuple(1 / len(classes) for _ in classes)
    said = Certificate(inputs, classes, shares, "0" * 64, "1" * 64, {"test/accuracy": 1.0}, {}, golden)
    certificate.stamp(bare, said, path)
    bare.unlink()
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
    kept = [onnx.numpy_helper.from_array(weight, "weight"), onnx.numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph(nodes + head, "softmax", values, outputs, kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
