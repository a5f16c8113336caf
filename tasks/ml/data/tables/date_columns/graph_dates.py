"""The parts of dates in the encoding's ONNX graph, by the rule of `date_parts`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from hallmark.tasks.common.records import Column
from hallmark.tasks.ml.data.tables.date_columns import date_parts

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class _Builder:
    """Nodes and constants that compute the parts of one date."""

    prefix: str
    nodes: "list[onnx.NodeProto]"
    constants: "dict[str, onnx.TensorProto]"

    def node(self, operator: str, *inputs: str) -> "_Value":
        """Append a node, and return its output."""
        from onnx import helper

        name = f"{self.prefix}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=f"{name}_node"))
        return _Value(name, self)

    def constant(self, number: float) -> str:
        """Return the name of a constant."""
        from onnx import TensorProto, helper

        name = f"number_{number}"
        self.constants[name] = helper.make_tensor(name, TensorProto.DOUBLE, (), [number])
        return name


@dataclass(frozen=True, slots=True)
class _Value:
    """A float64 value of the graph. Arithmetic appends nodes."""

    name: str
    builder: _Builder

    def __add__(self, other: "_Operand") -> "_Value":
        return self._node("Add", other)

    def __sub__(self, other: "_Operand") -> "_Value":
        return self._node("Sub", other)

    def __mul__(self, other: "_Operand") -> "_Value":
        return self._node("Mul", other)

    def __truediv__(self, other: "_Operand") -> "_Value":
        return self._node("Div", other)

    def _node(self, operator: str, other: "_Operand") -> "_Value":
        name = other.name if isinstance(other, _Value) else self.builder.constant(other)
        return self.builder.node(operator, self.name, name)


_Operand: TypeAlias = _Value | float


def compute_parts(graph: "onnx.GraphProto", columns: tuple[Column, ...]) -> None:
    """Make each date one input, from which nodes compute its parts.

    Args:
        graph: the encoding, with an input for each part of a date, in order. The last part, the seconds, is float64 and
            becomes the input; the others become results of nodes.
        columns: the columns before their dates were expanded.
    """
    import onnx
    from onnx import TensorProto, helper

    inputs, nodes, constants = list(graph.input), list[onnx.NodeProto](), dict[str, onnx.TensorProto]()
    for column in columns:
        of_column, inputs = inputs[: len(column.parts) or 1], inputs[len(column.parts) or 1 :]
        if not column.parts:
            continue
        *others, seconds = (one.name for one in of_column)
        builder = _Builder(f"{seconds}_date", nodes, constants)
        values = date_parts.of(_Value(seconds, builder), lambda value: value.builder.node("Floor", value.name))
        for name, value in zip(others, values[:-1], strict=True):
            nodes.append(helper.make_node("Cast", [value.name], [name], name=f"{name}_node", to=TensorProto.FLOAT))
        for one in of_column[:-1]:
            graph.input.remove(one)
    graph.initializer.extend(constants.values())
    for node in reversed(nodes):
        graph.node.insert(0, node)
