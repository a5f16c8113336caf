"""Mutants that are wrong only in some batches, or only for some values: what a proof on usual rows does not see.

`blind_sides` yields those that asking can find, `structural` those that the form of the graph shows. `unfindable` makes
one that neither finds: a defect of a row that is not asked.
"""

import copy
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tests.bench import mutants
from tests.bench.mutants import Graph

BATCHES = (4, 5, 8, 16, 32, 64, 100, 256)
"""Numbers of rows for which logits are halved."""
MANY, FROM, ANSWERED = 1000, 600, 1024
"""Rows above which a batch, from which on a row, and up to which rows are treated differently."""
GAPS = 3

Named = Iterator[tuple[str, str, Graph]]
Bounds = dict[str, tuple[float, float]]
"""Range of the training rows of each numeric column."""


def blind_sides(model: Graph, bounds: Bounds) -> Named:
    """Yield kind, name and graph of mutants that batches of the right size, or rows of the right values, show."""
    for size in BATCHES:
        yield "logits halved, one batch size", str(size), _halved_where(model, "Equal", size)
    yield "logits halved, large batches", f"above {MANY}", _halved_where(model, "Greater", MANY)
    for kind, first in (("rows zeroed", FROM), ("first rows answered", ANSWERED)):
        yield kind, f"from {first}", _zeroed_from(model, first)
    for name, (low, high) in bounds.items():
        tenth = (high - low) / 10
        yield "column clipped to its range", name, _clipped(model, name, low, high)
        yield "column clipped beyond its range", name, _clipped(model, name, low - tenth, high + tenth)
        yield "sign lost below the range", name, _changed(model, name, "Abs", low)
        yield "whole numbers negated", name, _changed(model, name, "Neg", None)
    if len(bounds) >= GAPS:
        yield "logits halved, many gaps", str(GAPS), _halved_at_gaps(model, list(bounds))


def structural(model: Graph) -> Named:
    """Yield mutants that a random operator, control flow or the other rows of a batch make."""
    random = helper.make_node("RandomUniform", [], ["factor"], low=0.999, high=1.001, shape=[1])
    yield "random operator", "RandomUniform", _multiplied(model, [random], {})
    branches = {
        name: helper.make_graph(
            [helper.make_node("Constant", [], [name], value_float=value)],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [])],
        )
        for name, value in (("same", 1.0), ("other", 0.5))
    }
    chosen = helper.make_node("If", ["yes"], ["factor"], then_branch=branches["same"], else_branch=branches["other"])
    yield "control flow", "If", _multiplied(model, [chosen], {"yes": np.ones((), bool)})
    last = mutants._layers(model)[-1]
    logits = model.graph.node[last].output[0]
    for operator, axis in (("ReduceSum", np.array([0])), ("CumSum", np.array(0))):
        mixed = copy.deepcopy(model)
        mixed.graph.initializer.append(numpy_helper.from_array(axis, "axis"))
        mixed.graph.node[last].output[0] = f"{logits}_before"
        mixed.graph.node.insert(last + 1, helper.make_node(operator, [f"{logits}_before", "axis"], [logits]))
        yield "operator over the batch", operator, mixed


def unfindable(model: Graph, name: str, value: float) -> tuple[str, str, Graph]:
    """Return a mutant that halves the logits of rows whose column `name` has exactly this value, as one in 10,000."""
    nodes = [helper.make_node("Equal", [name, "rare"], ["is_rare"]), _where("is_rare")]
    constants = {"rare": np.array(value, np.float32), **HALF}
    return "one value in ten thousand", name, _multiplied(model, nodes, constants)


HALF = {"half": np.array(0.5, np.float32), "whole": np.array(1.0, np.float32)}


def _where(condition: str) -> NodeProto:
    return helper.make_node("Where", [condition, "half", "whole"], ["factor"])


def _halved_where(model: Graph, operator: str, rows: int) -> Graph:
    nodes = [
        helper.make_node("Shape", [model.graph.input[0].name], ["rows"], start=0, end=1),
        helper.make_node(operator, ["rows", "some"], ["are_some"]),
        _where("are_some"),
    ]
    return _multiplied(model, nodes, {"some": np.array([rows]), **HALF})


def _zeroed_from(model: Graph, first: int) -> Graph:
    nodes = [
        helper.make_node("Shape", [model.graph.input[0].name], ["shape"], start=0, end=1),
        helper.make_node("Squeeze", ["shape"], ["rows"]),
        helper.make_node("Range", ["from", "rows", "by"], ["places"]),
        helper.make_node("Less", ["places", "first"], ["are_early"]),
        helper.make_node("Cast", ["are_early"], ["early"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["early", "by_axis"], ["factor"]),
    ]
    numbers = {"from": np.array(0), "by": np.array(1), "first": np.array(first), "by_axis": np.array([1])}
    return _multiplied(model, nodes, numbers)


def _halved_at_gaps(model: Graph, names: list[str]) -> Graph:
    nodes = []
    for index, name in enumerate(names):
        nodes.append(helper.make_node("IsNaN", [name], [f"is_gap{index}"]))
        nodes.append(helper.make_node("Cast", [f"is_gap{index}"], [f"gap{index}"], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("Sum", [f"gap{index}" for index in range(len(names))], ["gaps"]))
    nodes += [helper.make_node("Greater", ["gaps", "few"], ["are_many"]), _where("are_many")]
    return _multiplied(model, nodes, {"few": np.array(GAPS - 0.5, np.float32), **HALF})


def _multiplied(model: Graph, nodes: list[NodeProto], constants: dict[str, np.ndarray]) -> Graph:
    """Multiply the logits by the value `factor` that these nodes compute."""
    mutant = copy.deepcopy(model)
    mutants._after(mutants._layers(mutant)[-1], "Mul", mutant, "factor")
    _add(mutant, nodes, constants)
    return mutant


def _clipped(model: Graph, name: str, low: float, high: float) -> Graph:
    node = helper.make_node("Clip", [name, "low", "high"], [f"{name} changed"])
    return _with_input(model, name, [node], {"low": np.array(low, np.float32), "high": np.array(high, np.float32)})


def _changed(model: Graph, name: str, operator: str, below: float | None) -> Graph:
    """Apply an operator to the values of a column below a limit, or to its whole numbers."""
    test = [helper.make_node("Less", [name, "low"], ["is_it"])]
    if below is None:
        test = [helper.make_node("Floor", [name], ["floor"]), helper.make_node("Equal", [name, "floor"], ["is_it"])]
    nodes = [
        *test,
        helper.make_node(operator, [name], ["other"]),
        helper.make_node("Where", ["is_it", "other", name], [f"{name} changed"]),
    ]
    return _with_input(model, name, nodes, {} if below is None else {"low": np.array(below, np.float32)})


def _with_input(model: Graph, name: str, nodes: list[NodeProto], constants: dict[str, np.ndarray]) -> Graph:
    mutant = copy.deepcopy(model)
    for node in mutant.graph.node:
        node.input[:] = [f"{name} changed" if one == name else one for one in node.input]
    _add(mutant, nodes, constants)
    return mutant


def _add(mutant: Graph, nodes: list[NodeProto], constants: dict[str, np.ndarray]) -> None:
    mutant.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    for node in reversed(nodes):
        mutant.graph.node.insert(0, node)
    del mutant.graph.value_info[:]


def labelled_alike(model: Graph, name: str, texts: dict[str, str]) -> Graph:
    """Return a mutant of a table's graph that reads some texts of a column as others, such as `berlin` as `Berlin`."""
    node = helper.make_node(
        "LabelEncoder", [name], [f"{name} changed"], domain="ai.onnx.ml",
        keys_strings=list(texts), values_strings=list(texts.values()), default_string="nothing known",
    )  # fmt: skip
    mutant = _with_input(model, name, [node], {})
    next(one for one in mutant.opset_import if one.domain == "ai.onnx.ml").version = 2
    mutant.ir_version = onnx.helper.find_min_ir_version_for(list(mutant.opset_import))
    return mutant
