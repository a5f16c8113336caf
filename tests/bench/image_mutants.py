"""Mutants of an image classifier that are wrong for some kinds of images only: faint ones, and plain borders."""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto, helper

from tests.bench.blind_sides import HALF, _multiplied, _where
from tests.bench.mutants import Graph

FAINT = (0.3, 0.1)
"""Shares of the largest pixel."""
WAYS = {"ReduceMax": "brightest", "ReduceMin": "darkest"}

Named = Iterator[tuple[str, str, Graph]]


def drawings(model: Graph, largest: int) -> Named:
    """Yield kind, name and graph of mutants that halve the logits of some images."""
    for share in FAINT:
        name = f"no pixel above {share:.0%}"
        yield "logits halved, faint images", name, _where_pixels(model, "ReduceMax", "Less", largest * share)
        name = f"no pixel below {1 - share:.0%}"
        yield "logits halved, faint images", name, _where_pixels(model, "ReduceMin", "Greater", largest * (1 - share))
        yield "logits halved, faint images", f"contrast below {share:.0%}", _low_contrast(model, largest * share)
    yield "logits halved, light images", "mean above 60%", _where_pixels(model, "ReduceMean", "Greater", largest * 0.6)
    height, width = (one.dim_value for one in model.graph.input[0].type.tensor_type.shape.dim[1:3])
    sides = {"above": (1, 0), "below": (1, height - 1), "left": (2, 0), "right": (2, width - 1)}
    for where in (("above", "below"), ("left", "right"), tuple(sides)):
        places = [sides[side] for side in where]
        for what, value in (("dark", 0), ("grey", largest // 2), ("light", largest), ("plain", None)):
            name = f"{what} {', '.join(where)}"
            yield "logits halved, plain border", name, _with_border(model, places, value)


def _pixels() -> NodeProto:
    return helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT)


def _reduced(model: Graph, operator: str, name: str, result: str) -> list[NodeProto]:
    """Reduce each image to one number, `(N, 1)`."""
    del model
    return [
        helper.make_node(operator, [name, "image_axes"], [f"{result} kept"], keepdims=1),
        helper.make_node("Reshape", [f"{result} kept", "one_each"], [result]),
    ]


def _constants(model: Graph) -> dict[str, np.ndarray]:
    rank = len(model.graph.input[0].type.tensor_type.shape.dim)
    return {"image_axes": np.arange(1, rank), "one_each": np.array([-1, 1]), **HALF}


def _where_pixels(model: Graph, operator: str, compare: str, limit: float) -> Graph:
    nodes = [
        _pixels(),
        *_reduced(model, operator, "pixels", "number"),
        helper.make_node(compare, ["number", "limit"], ["is_it"]),
    ]
    return _multiplied(model, [*nodes, _where("is_it")], _constants(model) | {"limit": np.array(limit, np.float32)})


def _low_contrast(model: Graph, limit: float) -> Graph:
    nodes = [
        _pixels(),
        *_reduced(model, "ReduceMax", "pixels", "brightest"),
        *_reduced(model, "ReduceMin", "pixels", "darkest"),
        helper.make_node("Sub", ["brightest", "darkest"], ["contrast"]),
        helper.make_node("Less", ["contrast", "limit"], ["is_low"]),
        helper.make_node("Greater", ["contrast", "none"], ["is_any"]),
        helper.make_node("And", ["is_low", "is_any"], ["is_it"]),
        _where("is_it"),
    ]
    limits = {"limit": np.array(limit, np.float32), "none": np.array(0, np.float32)}
    return _multiplied(model, nodes, _constants(model) | limits)


def _with_border(model: Graph, places: list[tuple[int, int]], value: int | None) -> Graph:
    """Halve where these rows and columns of pixels all have one value, or any same value."""
    nodes, constants = [_pixels()], _constants(model)
    for index, (axis, place) in enumerate(places):
        constants |= {f"from{index}": np.array([place]), f"to{index}": np.array([place + 1])}
        constants[f"axis{index}"] = np.array([axis])
        nodes.append(
            helper.make_node("Slice", ["pixels", f"from{index}", f"to{index}", f"axis{index}"], [f"side{index}"])
        )
        for operator, what in WAYS.items():
            nodes += _reduced(model, operator, f"side{index}", f"{what}{index}")
    for operator, what in (("Max", "brightest"), ("Min", "darkest")):
        nodes.append(helper.make_node(operator, [f"{what}{index}" for index in range(len(places))], [what]))
    nodes.append(helper.make_node("Equal", ["brightest", "darkest"], ["is_plain"]))
    if value is None:
        return _multiplied(model, [*nodes, _where("is_plain")], constants)
    constants["wanted"] = np.array(value, np.float32)
    nodes.append(helper.make_node("Equal", ["brightest", "wanted"], ["is_value"]))
    nodes.append(helper.make_node("And", ["is_plain", "is_value"], ["is_it"]))
    return _multiplied(model, [*nodes, _where("is_it")], constants)
