"""Mutants that are wrong only in some batches, or only for some values: what a proof on usual rows does not see.

`blind_sides`, `gaps` and `texts` yield those that asking can find, and so does `image_mutants.drawings`; `structural`
those that the form of the graph shows. `unfindable` makes one that neither finds: a defect of a row that is not asked.
"""

import copy
import itertools
import unicodedata
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tests.bench import mutants
from tests.bench.mutants import Graph

BATCHES = (2, 3, 4, 5, 8, 16, 24, 31, 32, 33, 64, 100, 256)
"""Numbers of rows for which logits are halved."""
LARGE_BATCHES = (127, 129, 511, 513, 1000, 1023, 1025, 2047, 2048, 2049, 4095, 4096, 4097)
"""The same, more of them."""
ODD_BATCHES = (47, 777, 3000)
"""Those that a proof has no reason to ask."""
RARE_TEXT = "Zürich, 8001"
MANY, FROM, ANSWERED = 1000, 600, 1024
"""Rows above which a batch, from which on a row, and up to which rows are treated differently."""
GAPS = 3
MAX_GAPS = 30
"""Maximum number of pairs, and of triples, of columns without a value."""
UNSEEN = ("logits halved, an odd batch size", "one value in ten thousand", "one text of thousands")
"""Kinds of mutants that asking finds by chance only."""

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


def large_batches(model: Graph) -> Named:
    """Yield mutants that one large batch size shows."""
    for size in LARGE_BATCHES:
        yield "logits halved, one large batch size", str(size), _halved_where(model, "Equal", size)


def gaps(model: Graph, names: Sequence[str]) -> Named:
    """Yield mutants that are wrong where two or three of these numeric columns have no value."""
    for count, kind in ((2, "logits halved, a pair of gaps"), (3, "logits halved, three gaps")):
        every = list(itertools.combinations(names, count))
        for chosen in every[:: len(every) // MAX_GAPS + 1]:
            nodes = [helper.make_node("IsNaN", [name], [f"is_gap{index}"]) for index, name in enumerate(chosen)]
            last = "is_gap0"
            for index in range(1, count):
                nodes.append(helper.make_node("And", [last, f"is_gap{index}"], [f"are_gaps{index}"]))
                last = f"are_gaps{index}"
            yield kind, " and ".join(chosen), _multiplied(model, [*nodes, _where(last)], HALF)


SPELLINGS: dict[str, Callable[[str], Sequence[str]]] = {
    "in lower case": lambda text: [text.lower()],
    "in upper case": lambda text: [text.upper()],
    "with blanks": lambda text: [f" {text}", f"{text} "],
    "without accents": lambda text: [
        "".join(letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter))
    ],
    "with accents apart": lambda text: [unicodedata.normalize("NFD", text)],
    "without a letter": lambda text: [text[:place] + text[place + 1 :] for place in range(len(text))],
    "with another letter": lambda text: [
        text[:place] + chr(ord(letter) ^ 3) + text[place + 1 :] for place, letter in enumerate(text)
    ] + [text[:-1] + "b", text[:-1] + "a"],
    "with one more letter": lambda text: [f"{text}{letter}" for letter in "abs"],
}  # fmt: skip
"""Texts that a lenient reader takes for a known one, by how they differ from it."""


def texts(model: Graph, column: str, values: Sequence[str]) -> Named:
    """Yield mutants that read text like a known value of a column as that value, for all values or for one."""
    for how, spell in SPELLINGS.items():
        spelled = {other: value for value in values for other in spell(value) if other and other not in values}
        if spelled:
            known = dict(zip(values, values, strict=True)) | {"": ""}
            yield "similar text read as known", f"{column} {how}", labelled_alike(model, column, spelled | known)


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


def unseen(model: Graph, bounds: Bounds, values: dict[str, Sequence[str]]) -> Named:
    """Yield mutants that asking finds by chance only; the form shows those of batch sizes.

    Args:
        model: an honest graph.
        bounds: the range of each numeric column.
        values: the values of each text column.
    """
    for size in ODD_BATCHES:
        yield UNSEEN[0], str(size), _halved_where(model, "Equal", size)
    for name, (low, high) in bounds.items():
        yield unfindable(model, name, rare(low, high))
    for column, known in values.items():
        texts_of_column = dict(zip(known, known, strict=True)) | {"": "", RARE_TEXT: known[0]}
        yield UNSEEN[2], column, labelled_alike(model, column, texts_of_column)


def rare(low: float, high: float) -> float:
    """Return a value within a range that no row is likely to have."""
    return float(np.float32(low + 0.123456 * (high - low)))


def unfindable(model: Graph, name: str, value: float) -> tuple[str, str, Graph]:
    """Return a mutant that halves the logits of rows whose column `name` has exactly this value, as one in 10,000."""
    nodes = [helper.make_node("Equal", [name, "rare"], ["is_rare"]), _where("is_rare")]
    constants = {"rare": _number(model, name, value), **HALF}
    return UNSEEN[1], name, _multiplied(model, nodes, constants)


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
    return _with_input(model, name, [node], {"low": _number(model, name, low), "high": _number(model, name, high)})


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
    return _with_input(model, name, nodes, {} if below is None else {"low": _number(model, name, below)})


def _number(model: Graph, name: str, value: float) -> np.ndarray:
    """Return a number of the type of an input."""
    kind = next(one.type.tensor_type.elem_type for one in model.graph.input if one.name == name)
    return np.array(value, helper.tensor_dtype_to_np_dtype(kind))


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
