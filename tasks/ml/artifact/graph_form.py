"""Form of a graph: its interface, and whether it predicts each row by itself. Imports no torch and runs nothing.

Every value of a graph is either constant or holds one entry per row along its first axis. The operators listed here
keep it so: entry `i` of their result depends on entry `i` of their inputs alone. Operators that are not listed, such as
random ones, control flow, and those that read the length of the batch, are refused. A graph that passes predicts a row
alike in every batch.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hallmark.tasks.common.records import OUTPUT_NAMES

TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "uint8": TensorProto.UINT8,
         "string": TensorProto.STRING}  # fmt: skip
"""Types of inputs by NumPy's name."""

ELEMENTWISE = frozenset({
    *("Abs", "Add", "And", "Cast", "Ceil", "Celu", "Clip", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu"),
    *("Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less"),
    *("LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow"),
    *("Reciprocal", "RegexFullMatch", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt"),
    *("StringConcat", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Where", "Xor"),
})  # fmt: skip
"""Operators that combine entries at the same place."""
WINDOWS = frozenset(("AveragePool", "BatchNormalization", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"))
"""Operators on images: the result has the rank of the first input, and the other inputs are constant."""
ALONG_AN_AXIS = frozenset(("Hardmax", "LogSoftmax", "Softmax", "LpNormalization"))
"""Operators along one axis that keep the rank."""
ENCODERS = {"Imputer": 0, "LabelEncoder": 0, "Normalizer": 0, "OneHotEncoder": 1, "Scaler": 0}
"""Operators of `ai.onnx.ml`, and by how much they raise the rank."""
REDUCTIONS = frozenset(
    ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
     "ReduceSum", "ReduceSumSquare")
)  # fmt: skip

_Attributes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Value:
    """Knowledge about one value of the graph."""

    rank: int
    constant: NDArray[np.generic] | None = None
    """None for a value with one entry per row."""

    @property
    def holds_rows(self) -> bool:
        return self.constant is None


class _FormError(Exception):
    """A node is not in the form that predicts each row by itself."""


def interface_violation(
    model: onnx.ModelProto, inputs: Iterable[tuple[str, str, tuple[int, ...]]], classes: int
) -> str:
    """Describe how names, types and shapes of inputs and outputs differ from the expected ones; empty if they do not.

    Args:
        model: the graph.
        inputs: name, NumPy's type (or `string`), and shape of one row of each input.
        classes: number of classes.
    """
    expected = [
        *((name, TYPES[dtype], row) for name, dtype, row in inputs),
        (OUTPUT_NAMES[0], TensorProto.INT64, ()),
        (OUTPUT_NAMES[1], TensorProto.FLOAT, (classes,)),
    ]
    given = [*model.graph.input, *model.graph.output]
    for value, (name, kind, shape) in zip(given, expected, strict=False):
        tensor, words = value.type.tensor_type, TensorProto.DataType.Name
        sizes = [size.dim_value for size in tensor.shape.dim]
        if (value.name, tensor.elem_type, sizes) != (name, kind, [0, *shape]):
            return (
                f"the graph's '{value.name}' is {words(tensor.elem_type)} {sizes}, expected '{name}', {words(kind)} "
                f"{[0, *shape]}, where 0 stands for any number of rows"
            )
    return "" if len(given) == len(expected) else f"the graph has {len(given)} inputs and outputs, not {len(expected)}"


def form_violation(model: onnx.ModelProto) -> str:
    """Describe the first node through which the prediction of a row may depend on other rows; empty if there is none.

    The argument assumes that the graph runs for one row: then `Reshape` to (-1, ...) cannot join two rows.
    """
    if model.functions:
        return f"the graph defines the function '{model.functions[0].name}', which Hallmark does not write"
    graph = model.graph
    if graph.sparse_initializer or model.training_info:
        return "the graph has sparse weights or a training graph, which Hallmark does not write"
    values = {one.name: _Value(len(one.type.tensor_type.shape.dim)) for one in graph.input}
    try:
        for tensor in graph.initializer:
            _name(values, tensor.name, _constant(tensor))
        for node in graph.node:
            result = _result(node, values)
            for name in filter(None, node.output):
                _name(values, name, result)
    except _FormError as error:
        return str(error)
    outputs = zip(OUTPUT_NAMES, (1, 2), strict=True)
    wrong = [
        name for name, rank in outputs if (one := values.get(name)) is None or not one.holds_rows or one.rank != rank
    ]
    return f"the graph's '{wrong[0]}' does not have one entry for each row" if wrong else ""


def _name(values: dict[str, _Value], name: str, value: _Value) -> None:
    if name in values:
        raise _FormError(f"the graph has two values of the name '{name}'")
    values[name] = value


def _constant(tensor: TensorProto) -> _Value:
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise _FormError(f"the weights '{tensor.name}' cannot be read") from error
    return _Value(array.ndim, array)


def _result(node: onnx.NodeProto, values: dict[str, _Value]) -> _Value:
    """Return what is known about the result of a node."""
    place = f"the graph's {node.op_type} '{node.name}'"
    if unknown := [name for name in node.input if name and name not in values]:
        raise _FormError(f"{place} takes '{unknown[0]}', which no node before it computes")
    given = [values[name] for name in node.input if name]
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if node.domain in ("", "ai.onnx") and node.op_type == "Constant":
        return _of_constant_node(attributes, place)
    try:
        result = _rule(node, given, attributes, place)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise _FormError(f"{place} has missing or unsuitable inputs or attributes") from error
    if result is None:
        known = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise _FormError(f"{place}: {known} is not among the operators that predict each row by itself")
    return result


def _of_constant_node(attributes: _Attributes, place: str) -> _Value:
    match attributes:
        case {"value": TensorProto() as tensor}:
            return _constant(tensor)
        case {"value_float": value} | {"value_int": value} | {"value_floats": value} | {"value_ints": value}:
            array: NDArray[np.generic] = np.asarray(value)
            return _Value(array.ndim, array)
        case {"value_string": _}:
            return _Value(0, np.zeros(()))
        case {"value_strings": list(texts)}:
            return _Value(1, np.zeros(len(texts)))
    raise _FormError(f"{place} has no value")


def _rule(node: onnx.NodeProto, given: list[_Value], attributes: _Attributes, place: str) -> _Value | None:
    """Return the result of an operator, or None if it is not listed."""
    operator = node.op_type
    if node.domain == "ai.onnx.ml" and operator in ENCODERS:
        _need(given[0].holds_rows, place)
        return _rows(given[0].rank + ENCODERS[operator])
    if node.domain not in ("", "ai.onnx"):
        return None
    for operators, rule in _RULES:
        if operator in operators:
            return rule(given, attributes, place)
    return None


def _windowed(given: list[_Value], attributes: _Attributes, place: str) -> _Value:
    _need(given[0].holds_rows and not any(one.holds_rows for one in given[1:]), place)
    _need(not attributes.get("training_mode", 0), place)
    return _rows(given[0].rank)


def _along_an_axis(given: list[_Value], attributes: _Attributes, place: str) -> _Value:
    _need(given[0].holds_rows, place)
    _beside_rows(attributes.get("axis", -1), given[0].rank, place)
    return _rows(given[0].rank)


def _largest_along_an_axis(given: list[_Value], attributes: _Attributes, place: str) -> _Value:
    _need(given[0].holds_rows, place)
    _beside_rows(attributes.get("axis", 0), given[0].rank, place)
    return _rows(given[0].rank - (0 if attributes.get("keepdims", 1) else 1))


def _concatenated(given: list[_Value], attributes: _Attributes, place: str) -> _Value:
    _need(all(one.holds_rows for one in given) and len({one.rank for one in given}) == 1, place)
    _beside_rows(attributes["axis"], given[0].rank, place)
    return _rows(given[0].rank)


def _multiplied(given: list[_Value], attributes: _Attributes, place: str) -> _Value:
    """Multiply rows with constant weights (`Gemm`, `MatMul`), and add a constant for all rows."""
    _need(given[0].holds_rows and given[0].rank > 1 and not attributes.get("transA", 0), place)
    _need(not given[1].holds_rows and given[1].rank == 2, place)
    return _broadcast([_rows(given[0].rank), *given[2:]], place)


def _flattened(given: list[_Value], attributes: _Attributes, place: str) -> _Value:
    _need(given[0].holds_rows and attributes.get("axis", 1) == 1, place)
    return _rows(2)


def _reshaped(given: list[_Value], attributes: _Attributes, place: str) -> _Value:
    target = _numbers(given[1], place)
    lowest = -1 if target[0] == 0 else 0
    _need(given[0].holds_rows and target[0] in (0, -1) and min(target[1:], default=1) >= lowest, place)
    _need(not attributes.get("allowzero", 0) or 0 not in target, place)
    return _rows(len(target))


def _transposed(given: list[_Value], attributes: _Attributes, place: str) -> _Value:
    _need(given[0].holds_rows and attributes["perm"][0] == 0, place)
    return _rows(given[0].rank)


def _sliced(given: list[_Value], _: _Attributes, place: str) -> _Value:
    _need(given[0].holds_rows and not any(one.holds_rows for one in given[1:]), place)
    for axis in _numbers(given[3], place):
        _beside_rows(axis, given[0].rank, place)
    return _rows(given[0].rank)


def _squeezed(given: list[_Value], _: _Attributes, place: str) -> _Value:
    axes = _numbers(given[1], place)
    _need(given[0].holds_rows, place)
    for axis in axes:
        _beside_rows(axis, given[0].rank, place)
    return _rows(given[0].rank - len(axes))


def _unsqueezed(given: list[_Value], _: _Attributes, place: str) -> _Value:
    axes = _numbers(given[1], place)
    _need(given[0].holds_rows, place)
    for axis in axes:
        _beside_rows(axis, given[0].rank + len(axes), place)
    return _rows(given[0].rank + len(axes))


def _rows(rank: int) -> _Value:
    return _Value(rank)


def _need(*conditions: bool | str) -> None:
    *needed, place = conditions
    if not all(needed):
        raise _FormError(f"{place} may let the prediction of a row depend on the other rows of its batch")


def _beside_rows(axis: object, rank: int, place: str) -> None:
    """Refuse to work along the axis of the rows."""
    _need(isinstance(axis, int) and -rank <= axis < rank and axis % max(rank, 1) != 0, place)


def _numbers(value: _Value, place: str) -> list[int]:
    """Return constant whole numbers, such as a shape or axes."""
    _need(value.constant is not None and value.constant.ndim <= 1 and value.constant.dtype.kind in "iu", place)
    return np.atleast_1d(value.constant).tolist() if value.constant is not None else []


def _elementwise(given: list[_Value], _: _Attributes, place: str) -> _Value:
    return _broadcast(given, place)


def _broadcast(given: list[_Value], place: str) -> _Value:
    """Combine entries at the same place. A constant must not have as many entries as there are rows."""
    ranks = {one.rank for one in given if one.holds_rows}
    constants = [one.constant for one in given if one.constant is not None]
    if not ranks:
        largest = max(constants, key=lambda one: (one.ndim, one.size))
        return _Value(largest.ndim, np.zeros(np.broadcast_shapes(*(one.shape for one in constants))))
    rank = max(ranks)
    _need(
        len(ranks) == 1 and all(one.ndim < rank or (one.ndim == rank and one.shape[0] == 1) for one in constants), place
    )
    return _rows(rank)


def _reduced(given: list[_Value], attributes: _Attributes, place: str) -> _Value:
    axes = attributes.get("axes") if len(given) == 1 else _numbers(given[1], place)
    _need(given[0].holds_rows and isinstance(axes, list) and bool(axes), place)
    for axis in axes or []:
        _beside_rows(axis, given[0].rank, place)
    return _rows(given[0].rank - (0 if attributes.get("keepdims", 1) else len(axes or [])))


def _gathered(given: list[_Value], attributes: _Attributes, place: str) -> _Value:
    """Choose columns by constant indices, or rows of a constant table by indices that are computed for each row."""
    data, indices = given
    if data.holds_rows:
        _need(not indices.holds_rows, place)
        _beside_rows(attributes.get("axis", 0), data.rank, place)
    else:
        _need(attributes.get("axis", 0) == 0 and indices.rank > 0 and indices.holds_rows, place)
    return _rows(data.rank - 1 + indices.rank)


_RULES: tuple[tuple[Collection[str], Callable[[list[_Value], _Attributes, str], _Value]], ...] = (
    (ELEMENTWISE, _elementwise),
    (WINDOWS, _windowed),
    (ALONG_AN_AXIS, _along_an_axis),
    (REDUCTIONS, _reduced),
    (("ArgMax", "ArgMin"), _largest_along_an_axis),
    (("Concat",), _concatenated),
    (("Gemm", "MatMul"), _multiplied),
    (("Flatten",), _flattened),
    (("Gather",), _gathered),
    (("Reshape",), _reshaped),
    (("Transpose",), _transposed),
    (("Slice",), _sliced),
    (("Squeeze",), _squeezed),
    (("Unsqueeze",), _unsqueezed),
)
"""Operators, and the function that returns their result or refuses it."""
