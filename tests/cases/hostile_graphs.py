"""Hostile changes of an honest graph: each can crash, block or deceive a program that opens, checks or runs it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tests.cases.hostile_certificates import Verdict, edit

Graph = onnx.ModelProto
Change = Callable[[Graph], object]
Array = NDArray[Any]

_ONES, _IMAGE = np.ones((2, 2), np.float32), np.ones((1, 1, 3, 3), np.float32)


def _whole(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def _externalise(model: Graph, name: str = "", **entries: str) -> None:
    """Say that a weight lies in another file."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.name = name or tensor.name
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def _externalise_attribute(model: Graph) -> None:
    tensor = TensorProto(name="evil", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    node = helper.make_node("Constant", [], ["evil"])
    node.attribute.append(helper.make_attribute("value", tensor))
    model.graph.node.insert(0, node)


def _add_initializers(model: Graph, **arrays: Array) -> None:
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())


def _branch(name: str) -> onnx.GraphProto:
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
    return helper.make_graph([helper.make_node("Identity", ["x"], [name])], "branch", [], outputs)


def _nest(model: Graph, depth: int) -> None:
    """Add an If in an If in an If."""
    graph = _branch("y0")
    for level in range(1, depth + 1):
        node = helper.make_node("If", ["cond"], [f"y{level}"], then_branch=graph, else_branch=_branch(f"e{level}"))
        outputs = [helper.make_tensor_value_info(f"y{level}", TensorProto.FLOAT, None)]
        graph = helper.make_graph([node], "nested", [], outputs)
    _add_initializers(model, cond=np.bool_(1), x=np.array([1.0], np.float32))
    model.graph.node.extend(graph.node)


def _add_to_scores(model: Graph, name: str) -> None:
    """Add a value to the input of the Softmax, so that it has to be computed."""
    index = next(index for index, node in enumerate(model.graph.node) if node.op_type == "Softmax")
    scores = model.graph.node[index].input[0]
    model.graph.node.insert(index, helper.make_node("Add", [scores, name], ["changed_scores"]))
    model.graph.node[index + 1].input[0] = "changed_scores"
    del model.graph.value_info[:]


def _exhaust_memory(model: Graph) -> None:
    """Make and sum up 32 GB of zeros."""
    _add_initializers(model, big=_whole(2**18, 2**15))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["big"], ["bomb"]))
    model.graph.node.insert(1, helper.make_node("ReduceSum", ["bomb"], ["sum"], keepdims=0))
    _add_to_scores(model, "sum")


def _loop_forever(model: Graph) -> None:
    kinds = {"i": TensorProto.INT64, "c": TensorProto.BOOL, "v": TensorProto.FLOAT}
    taken = [helper.make_tensor_value_info(name, kind, []) for name, kind in kinds.items()]
    given = [helper.make_tensor_value_info(f"{name}2", kinds[name], []) for name in "cv"]
    nodes = [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["v", "nothing"], ["v2"])]
    body = helper.make_graph(nodes, "body", taken, given)
    zero = np.array(0.0, np.float32)
    _add_initializers(model, yes=np.bool_(1), start=zero, nothing=zero)
    model.graph.node.insert(0, helper.make_node("Loop", ["", "yes", "start"], ["never"], body=body))
    _add_to_scores(model, "never")


def _add_node(model: Graph, node: NodeProto, arrays: dict[str, Array]) -> None:
    """Add a node that nothing uses: it is checked, its shape is inferred, and it may be run."""
    _add_initializers(model, ones=_ONES, image_=_IMAGE, **arrays)
    model.graph.node.append(node)


def _declare_huge(model: Graph) -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2**20]


def _close_circle(model: Graph) -> None:
    model.graph.node[1].input[0] = "label"


def _use_other_domain(model: Graph) -> None:
    model.graph.node.append(helper.make_node("Evil", ["label"], ["q"], domain="com.evil"))
    model.opset_import.add(domain="com.evil", version=1)


def _call_itself(model: Graph) -> None:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("loc", 1)]
    body = [helper.make_node("F", ["a"], ["b"], domain="loc")]
    model.functions.append(helper.make_function("loc", "F", ["a"], ["b"], body, opsets))
    model.opset_import.add(domain="loc", version=1)
    model.graph.node.append(helper.make_node("F", ["label"], ["fff"], domain="loc"))


def _set_opset(model: Graph) -> None:
    model.opset_import[0].version = 99


def _set_ir_version(model: Graph) -> None:
    model.ir_version = 999


def _colour_names(model: Graph) -> None:
    model.producer_name, model.graph.name = "\x1b[31mevil", "\x1b[31m"


def _argmax(model: Graph) -> NodeProto:
    return next(node for node in model.graph.node if node.op_type == "ArgMax")


def _choose_least(model: Graph) -> None:
    _argmax(model).op_type = "ArgMin"


def _shift_labels(model: Graph, by: int, *, golden: bool) -> None:
    _argmax(model).output[0] = "unshifted"
    _add_initializers(model, shift=np.array(by, np.int64))
    model.graph.node.append(helper.make_node("Add", ["unshifted", "shift"], ["label"]))
    if golden:
        edit(model, "golden", lambda value: value | {"label": [label + by for label in value["label"]]})


def _make_labels_float(model: Graph) -> None:
    _argmax(model).output[0] = "whole"
    model.graph.node.append(helper.make_node("Cast", ["whole"], ["label"], to=TensorProto.FLOAT))
    output = next(one for one in model.graph.output if one.name == "label")
    output.type.tensor_type.elem_type = TensorProto.FLOAT


def _drop_probabilities(model: Graph) -> None:
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]))


def _rename_input(model: Graph) -> None:
    model.graph.input[0].name = "other"
    model.graph.node[0].input[0] = "other"


def _fix_batch(model: Graph) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    del model.graph.value_info[:]


def _add_copy(model: Graph) -> None:
    model.graph.node.append(helper.make_node("Identity", ["label"], ["label_"]))


_NODES: dict[str, tuple[NodeProto, dict[str, Array]]] = {
    "resize": (helper.make_node("Resize", ["ones", "", "s"], ["eo"], mode="nearest"), {"s": np.float32([1e30, 1e30])}),
    "tile": (helper.make_node("Tile", ["ones", "r"], ["eo"]), {"r": _whole(2**62, 2**62)}),
    "pad": (helper.make_node("Pad", ["ones", "p"], ["eo"]), {"p": _whole(2**62, 0, 2**62, 0)}),
    "range": (
        helper.make_node("Range", ["r0", "r1", "r2"], ["eo"]),
        {"r0": np.array(0), "r1": np.array(2**62), "r2": np.array(1)},
    ),
    "range0": (
        helper.make_node("Range", ["r0", "r1", "r2"], ["eo"]),
        {"r0": np.array(0), "r1": np.array(5), "r2": np.array(0)},
    ),
    "split0": (helper.make_node("Split", ["ones"], ["eo", "ep"], num_outputs=0, axis=0), {}),
    "slice": (
        helper.make_node("Slice", ["ones", "s0", "s1", "s2", "s3"], ["eo"]),
        {"s0": _whole(0), "s1": _whole(9), "s2": _whole(0), "s3": _whole(0)},
    ),
    "conv_transpose": (
        helper.make_node(
            "ConvTranspose", ["image_", "kernel"], ["eo"], strides=[0, 0], output_padding=[-5, 9], group=0
        ),
        {"kernel": _IMAGE},
    ),
    "maxpool0": (helper.make_node("MaxPool", ["image_"], ["eo"], kernel_shape=[0, 0], strides=[0, 0]), {}),
    "space_to_depth0": (helper.make_node("SpaceToDepth", ["image_"], ["eo"], blocksize=0), {}),
    "reshape0": (helper.make_node("Reshape", ["ones", "sh"], ["eo"]), {"sh": _whole(-1, -1, 0, 2**62)}),
    "onehot": (
        helper.make_node("OneHot", ["oi", "od", "ov"], ["eo"], axis=99),
        {"oi": _whole(1), "od": np.array(2**40), "ov": np.float32([0, 1])},
    ),
    "gather_nd": (
        helper.make_node("GatherND", ["ones", "gi"], ["eo"], batch_dims=77),
        {"gi": np.array([[10**9, 10**9]])},
    ),
    "gather_far": (helper.make_node("Gather", ["ones", "gf"], ["eo"]), {"gf": _whole(10**12)}),
    "topk": (helper.make_node("TopK", ["ones", "k"], ["eo", "ep"]), {"k": _whole(2**60)}),
    "einsum": (helper.make_node("Einsum", ["ones"], ["eo"], equation="abcdefghijk->abcdefghijkl"), {}),
    "einsum2": (
        helper.make_node("Einsum", ["probabilities", "probabilities"], ["eo"], equation="...ij,...jk,kk->...ik..."),
        {},
    ),
}
"""Nodes with attributes or inputs that the checker, shape inference or a runtime may stumble over."""

CHANGES: dict[str, tuple[Verdict, Change]] = {
    "external_traversal": ("refused", partial(_externalise, location="../../../../../etc/passwd")),
    "external_escape": (
        "refused",
        partial(_externalise, name="w\x1b[5mblink", location="\x1b]0;OWNED\x07\x1b[31mred\x1b[2J"),
    ),
    "external_dev_zero": ("refused", partial(_externalise, location="/dev/zero", offset="0", length=str(2**40))),
    "external_in_constant": ("refused", _externalise_attribute),
    "nested20": ("either", partial(_nest, depth=20)),
    "nested28": ("either", partial(_nest, depth=28)),
    "huge_dims": ("refused", _declare_huge),
    "memory_32GB": ("refused", _exhaust_memory),
    "endless": ("refused", _loop_forever),
    **{
        f"op_{name}": ("either", partial(_add_node, node=node, arrays=arrays))
        for name, (node, arrays) in _NODES.items()
    },
    "cycle": ("refused", _close_circle),
    "custom_domain": ("refused", _use_other_domain),
    "opset99": ("refused", _set_opset),
    "ir999": ("refused", _set_ir_version),
    "recursive_function": ("either", _call_itself),
    "producer_escape": ("either", _colour_names),
    "argmin_sealed": ("unproven", _choose_least),
    "extra_node": ("either", _add_copy),
    "label_out_of_range": ("refused", partial(_shift_labels, by=7, golden=True)),
    "label_negative": ("refused", partial(_shift_labels, by=-5, golden=False)),
    "label_float": ("refused", _make_labels_float),
    "no_probabilities": ("refused", _drop_probabilities),
    "input_renamed": ("refused", _rename_input),
    "fixed_batch": ("refused", _fix_batch),
}
"""Verdict and change of each file, by its name."""
