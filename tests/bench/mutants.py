"""Mutants of an honest file, each with one defect that an exporter, a converter or a person could cause.

`mutants` changes a graph. `edits` changes a shipped file: its certificate and its bytes. Neither needs torch, and the
same file gives the same mutants.
"""

import copy
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hallmark.tasks.ml.artifact import certificate

NUDGES = (1e-2, 1e-3, 1e-4, 1e-5)
"""Relative changes of weights."""
LAYERS = ("Gemm", "Conv")
REPLACEMENTS = {
    "Relu": ("Identity", "LeakyRelu", "Elu"),
    "Sigmoid": ("Identity", "HardSigmoid", "Tanh"),
    "Softmax": ("Identity", "LogSoftmax", "Hardmax"),
}
"""Replacements for each activation. ONNX has suitable defaults for omitted attributes."""
FLAGS = ("transA", "transB", "keepdims", "select_last_index", "allowzero", "ceil_mode", "storage_order")
"""Attributes whose only values are 0 and 1."""
SPECIALISED = (1, 3)
"""Numbers of rows that a graph is fixed to: that of a usual example, and the exporter's."""
FLIPS = 12
CUTS = 6
DIGEST = "hallmark.digest"

Graph = onnx.ModelProto
Change = Callable[[Graph], None]
Array = NDArray[Any]
Found = Iterator[tuple[str, str, Change]]
"""Kind, name, and the change to a copy of the graph."""


def mutants(model: Graph) -> Iterator[tuple[str, str, Graph]]:
    """Yield kind, name and graph of every mutant of an honest export, each graph once."""
    seen = {_bytes(model)}
    for find in (
        *(nudges, classes, biases, normalisations, orders, halves),
        *(activations, softmaxes, batches, nans, attributes, labels),
    ):
        for kind, name, change in find(model):
            mutant = copy.deepcopy(model)
            change(mutant)
            if (content := _bytes(mutant)) not in seen:
                seen.add(content)
                yield kind, name, onnx.load_model_from_string(content)


def nudges(model: Graph) -> Found:
    """Scale weights of the first and the last layer and the last bias, one weight or the whole tensor."""
    first, last = (model.graph.node[_layers(model)[index]] for index in (0, -1))
    for name in dict.fromkeys((first.input[1], *last.input[1:])):
        place = _anywhere(_array(model, name))
        for size in NUDGES:
            yield f"tensor times 1 + {size:.0e}", name, partial(_edit, name, _scale, slice(None), 1 + size)
            if _array(model, name).size > 1:
                yield f"weight times 1 + {size:.0e}", name, partial(_edit, name, _scale, place, 1 + size)


def classes(model: Graph) -> Found:
    """Swap two neighbouring classes, in weights and bias of the last layer or where one unit becomes two."""
    last = model.graph.node[_layers(model)[-1]]
    units = len(_array(model, last.input[2]))
    for first in sorted({0, units - 2}) if units > 1 else ():
        order = np.arange(units)
        order[[first, first + 1]] = order[[first + 1, first]]
        yield "two classes swapped", f"{first} and {first + 1}", partial(_permute, list(last.input[1:]), order)
    if units == 1:
        yield "two classes swapped", "the only ones", partial(_swap_inputs, _index(model, "Concat")[-1])


def biases(model: Graph) -> Found:
    for index in _layers(model):
        yield "bias dropped", model.graph.node[index].name, partial(_drop_input, index, 2)


def normalisations(model: Graph) -> Found:
    """Omit or double shift and scale, one by one and together, if the network has them."""
    steps = [at for at, node in enumerate(model.graph.node) if any("scaling" in name for name in node.input)]
    for chosen in [[index] for index in steps] + ([steps] if len(steps) > 1 else []):
        names = " and ".join(model.graph.node[index].op_type for index in chosen)
        yield "normalisation left out", names, partial(_bypass, chosen)
        yield "normalisation doubled", names, partial(_double, chosen)


def orders(model: Graph) -> Found:
    """Transpose pixels, move channels last instead of first, and swap columns of a table."""
    kind, nodes = "order transposed", model.graph.node
    if model.graph.input[0].name == "image":
        yield kind, "pixels", partial(_before, 0, 0, "Transpose", perm=[0, 2, 1])
    elif nodes[0].op_type == "Concat" and len(nodes[0].input) > 1:
        yield kind, "columns", partial(_swap_inputs, 0)
    for index in _layers(model):
        yield from ((kind, f"{name} of {nodes[index].name}", change) for name, change in _of_weights(model, index))
    if convolutions := _index(model, "Conv"):
        flatten = next(index for index in _index(model, "Reshape") if index > convolutions[-1])
        yield kind, "channels before they are flattened", partial(_before, flatten, 0, "Transpose", perm=[0, 2, 3, 1])


def halves(model: Graph) -> Found:
    """Store weights in float16, or compute in it, for one layer or all."""
    layers, last = _layers(model), _index(model, "Softmax") or _index(model, "Sigmoid")
    for index in layers:
        node = model.graph.node[index]
        yield "float16, one layer's weights", node.name, partial(_round, list(node.input[1:]))
        yield "float16, one layer", node.name, partial(_halve, [index])
    if len(layers) > 1:
        weights = [name for index in layers for name in model.graph.node[index].input[1:]]
        yield "float16, all weights", "all", partial(_round, weights)
    yield "float16, all layers", "all", partial(_halve, [*layers, *last])


def activations(model: Graph) -> Found:
    for index, node in enumerate(model.graph.node):
        for other in REPLACEMENTS.get(node.op_type, ()):
            name = f"{other} for {node.name or node.op_type}"
            yield "activation replaced", name, partial(_replace, index, other)


def softmaxes(model: Graph) -> Found:
    for index in _index(model, "Softmax"):
        yield "softmax over the wrong axis", "axis 0", partial(_set, index, "axis", 0)
        yield "softmax taken twice", "axis 1", partial(_after, index, "Softmax", axis=1)


def batches(model: Graph) -> Found:
    """Fix the number of rows, declared or not, or let predictions depend on the other rows of the batch."""
    kind, last = "batch specialised", _layers(model)[-1]
    for rows in SPECIALISED:
        yield kind, f"declared for {rows}", partial(_declare, rows)
        units = len(_array(model, model.graph.node[last].input[2]))
        yield kind, f"logits of {rows}", partial(_reshape, last, (rows, units))
    yield kind, "mean of the batch taken off", partial(_centre, last)


def nans(model: Graph) -> Found:
    for index in _layers(model):
        for name in model.graph.node[index].input[1:]:
            yield "NaN weight", name, partial(_edit, name, _put, _anywhere(_array(model, name)), np.nan)


def attributes(model: Graph) -> Found:
    """Change every attribute of every operator by one, once, and the scale of pixels, which acts like one."""
    seen = set()
    for index, node in enumerate(model.graph.node):
        for attribute in node.attribute:
            if (key := f"{node.op_type}.{attribute.name}") not in seen:
                seen.add(key)
                for value in _neighbours(attribute.name, helper.get_attribute_value(attribute)):
                    yield "attribute off by one", f"{key} {value}", partial(_set, index, attribute.name, value)
    for tensor in model.graph.initializer:
        if "scale" in tensor.name and not tensor.dims:
            yield "attribute off by one", tensor.name, partial(_edit, tensor.name, _add, (), 1)


def labels(model: Graph) -> Found:
    """Make only the label wrong."""
    yield "label alone", "the least probable", partial(_replace, _index(model, "ArgMax")[-1], "ArgMin")
    yield "label alone", "counted from one", partial(_count_from_one, _index(model, "ArgMax")[-1])


def edits(content: bytes) -> Iterator[tuple[str, str, bytes]]:
    """Yield kind, name and bytes of a shipped file whose certificate was edited, or whose bytes were damaged."""
    model = onnx.load_model_from_string(content)
    for index, entry in enumerate(model.metadata_props):
        changed = copy.deepcopy(model)
        changed.metadata_props[index].value = _another(entry.value)
        yield "entry edited", entry.key, changed.SerializeToString()
        if entry.key != DIGEST:
            yield "entry edited, resealed", entry.key, sealed(changed)
        del changed.metadata_props[index]
        yield "entry removed", entry.key, changed.SerializeToString()
    changed = copy.deepcopy(model)
    changed.metadata_props.add(key="note", value="mine")
    yield "entry added", "note", changed.SerializeToString()
    random = np.random.default_rng(0)
    for place in random.integers(0, 8 * len(content), FLIPS).tolist():
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        yield "bit flipped", str(place), bytes(flipped)
    for size in (0, len(content) // 2, len(content) - 1, *random.integers(1, len(content), CUTS).tolist()):
        yield "truncated", str(size), content[:size]
    yield "byte added", "at the end", content + b"\0"


def with_certificate(mutant: Graph, shipped: Graph, *, reseal: bool) -> bytes:
    """Return a mutant with the certificate of the honest file, resealed or with its seal, which is broken."""
    mutant = copy.deepcopy(mutant)
    del mutant.metadata_props[:]
    mutant.metadata_props.extend(shipped.metadata_props)
    return sealed(mutant) if reseal else mutant.SerializeToString()


def sealed(model: Graph) -> bytes:
    """Keep the certificate and add a valid seal, as a forger would."""
    model = copy.deepcopy(model)
    kept = [entry for entry in model.metadata_props if entry.key != DIGEST]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    body = model.SerializeToString(deterministic=True)
    return body + certificate._seal(body)


def _bytes(model: Graph) -> bytes:
    """Serialise without the shapes of intermediate values, because those of the honest graph would reveal mutants."""
    bare = copy.deepcopy(model)
    del bare.graph.value_info[:]
    return bare.SerializeToString(deterministic=True)


def _index(model: Graph, *operators: str) -> list[int]:
    return [index for index, node in enumerate(model.graph.node) if node.op_type in operators]


def _layers(model: Graph) -> list[int]:
    return _index(model, *LAYERS)


def _tensor(model: Graph, name: str) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def _array(model: Graph, name: str) -> Array:
    return numpy_helper.to_array(_tensor(model, name))


def _anywhere(array: Array) -> tuple[int, ...]:
    """Draw a position in the array."""
    return tuple(np.random.default_rng(0).integers(0, array.shape).tolist())


def _of_weights(model: Graph, index: int) -> Iterator[tuple[str, Change]]:
    """Yield the transpositions of a layer's weights that keep the shape."""
    name = model.graph.node[index].input[1]
    weights = _array(model, name)
    *_, before, after = weights.shape
    if before == after > 1:
        yield "weights", partial(_edit, name, lambda array: array.swapaxes(-1, -2).copy())
    if weights.ndim == 4 and weights.shape[1] > 1:
        yield "channels", partial(_edit, name, lambda array: array[:, ::-1].copy())


def _another(value: str) -> str:
    """Return the same text with another last letter or digit."""
    *_, last = re.finditer("[A-Za-z0-9]", value)
    other = {"9": "8", "z": "y", "Z": "Y"}.get(last[0], chr(ord(last[0]) + 1))
    return value[: last.start()] + other + value[last.end() :]


def _neighbours(name: str, value: Any) -> Iterator[Any]:  # noqa: ANN401 - any value of an attribute
    match value:
        case int() if name in FLAGS:
            yield 1 - value
        case int():
            yield from (value - 1, value + 1)
        case float():
            yield value + 1
        case [int(first), *others]:
            yield [first + 1, *others]


def _edit(name: str, how: Callable[..., Array], *arguments: Any) -> None:  # noqa: ANN401 - the graph is the last
    *given, model = arguments
    array = how(_array(model, name).copy(), *given)
    _tensor(model, name).CopyFrom(numpy_helper.from_array(array, name))


def _scale(array: Array, place: Any, factor: float) -> Array:  # noqa: ANN401 - any index
    array[place] *= np.float32(factor)
    return array


def _add(array: Array, place: Any, value: float) -> Array:  # noqa: ANN401 - any index
    array[place] += np.float32(value)
    return array


def _put(array: Array, place: Any, value: float) -> Array:  # noqa: ANN401 - any index
    array[place] = value
    return array


def _permute(names: list[str], order: Array, model: Graph) -> None:
    for name in names:
        _edit(name, lambda array: array[order], model)


def _round(names: list[str], model: Graph) -> None:
    for name in names:
        _edit(name, lambda array: array.astype(np.float16).astype(np.float32), model)


def _swap_inputs(index: int, model: Graph) -> None:
    node = model.graph.node[index]
    node.input[0], node.input[1] = node.input[1], node.input[0]


def _drop_input(index: int, position: int, model: Graph) -> None:
    del model.graph.node[index].input[position]


def _bypass(indices: list[int], model: Graph) -> None:
    for index in indices:
        node = model.graph.node[index]
        node.op_type = "Identity"
        del node.input[1:]


def _double(indices: list[int], model: Graph) -> None:
    for index in reversed(indices):
        node = model.graph.node[index]
        _after(index, node.op_type, model, node.input[1])


def _replace(index: int, operator: str, model: Graph) -> None:
    node = model.graph.node[index]
    node.op_type = operator
    if operator == "Identity":
        del node.attribute[:]


def _set(index: int, name: str, value: Any, model: Graph) -> None:  # noqa: ANN401 - any value of an attribute
    attribute = next(one for one in model.graph.node[index].attribute if one.name == name)
    attribute.CopyFrom(helper.make_attribute(name, value))


def _after(index: int, operator: str, model: Graph, *others: str, **given: Any) -> None:  # noqa: ANN401 - attributes
    """Insert another node between a node and all that use its value."""
    node = model.graph.node[index]
    name = node.output[0]
    node.output[0] = f"{name}_before"
    model.graph.node.insert(index + 1, helper.make_node(operator, [node.output[0], *others], [name], **given))


def _before(index: int, position: int, operator: str, model: Graph, **given: Any) -> None:  # noqa: ANN401 - attributes
    """Insert another node between a node and one of its inputs."""
    node = model.graph.node[index]
    name = f"{node.input[position]}_for_{index}"
    node_before = helper.make_node(operator, [node.input[position]], [name], **given)
    node.input[position] = name
    model.graph.node.insert(index, node_before)


def _halve(indices: list[int], model: Graph) -> None:
    """Cast inputs of nodes to float16, and outputs back to float32."""
    for index in reversed(indices):
        _after(index, "Cast", model, to=TensorProto.FLOAT)
        node = model.graph.node[index]
        for position in range(len(node.input)):
            # Every insertion moves the node by one.
            _before(index + position, position, "Cast", model, to=TensorProto.FLOAT16)


def _declare(rows: int, model: Graph) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = rows


def _reshape(index: int, shape: tuple[int, ...], model: Graph) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array(shape), "fixed"))
    _after(index, "Reshape", model, "fixed")


def _centre(index: int, model: Graph) -> None:
    """Subtract the mean over the rows of a batch, as a batch normalisation left in training mode would."""
    name = model.graph.node[index].output[0]
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "rows"))
    _after(index, "Sub", model, "mean")
    model.graph.node.insert(index + 1, _mean(f"{name}_before"))


def _mean(name: str) -> NodeProto:
    return helper.make_node("ReduceMean", [name, "rows"], ["mean"], keepdims=1)


def _count_from_one(index: int, model: Graph) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array(1), "one"))
    _after(index, "Add", model, "one")
