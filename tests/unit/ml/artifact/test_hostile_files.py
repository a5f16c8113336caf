"""Files that somebody made to mislead or to harm: one line for each, in bounded time and memory."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.predict import predictor
from tests.bench.mutants import sealed
from tests.support import certified

Change = Callable[[onnx.ModelProto], None]


def entry(name: str, change: Callable[[Any], Any]) -> Change:
    """Return a function that changes an entry of the certificate."""

    def edit(model: onnx.ModelProto) -> None:
        found = next(one for one in model.metadata_props if one.key == f"hallmark.{name}")
        found.value = json.dumps(change(json.loads(found.value)))

    return edit


def text(name: str, value: str) -> Change:
    """Return a function that replaces the JSON text of an entry."""

    def edit(model: onnx.ModelProto) -> None:
        next(one for one in model.metadata_props if one.key == f"hallmark.{name}").value = value

    return edit


def twice(model: onnx.ModelProto) -> None:
    model.metadata_props.insert(0, onnx.StringStringEntryProto(key="hallmark.classes", value='["first"]'))


def loop(model: onnx.ModelProto) -> None:
    body = onnx.GraphProto(name="body")
    model.graph.node.append(helper.make_node("Loop", ["", "", "x"], ["never"], body=body))


def enormous_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2**20]


def seven_more(model: onnx.ModelProto) -> None:
    """Shift the label out of the range of the classes."""
    label = model.graph.node[-1]
    label.output[0] = "counted"
    model.graph.initializer.append(numpy_helper.from_array(np.array(7), "seven"))
    model.graph.node.append(helper.make_node("Add", ["counted", "seven"], ["label"]))


def much_memory(model: onnx.ModelProto) -> None:
    """Let the graph need 10^12 bytes for one row."""
    many = [
        helper.make_node("Concat", [name] * 40_000, [result], axis=1)
        for name, result in (("x", "many"), ("many", "more"))
    ]
    least = helper.make_node("ReduceMin", ["more", "columns"], ["least"], keepdims=1)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "columns"))
    place = next(index for index, node in enumerate(model.graph.node) if node.op_type == "Softmax")
    model.graph.node[place].input[0] = "scores and least"
    for node in reversed([*many, least, helper.make_node("Add", ["scores", "least"], ["scores and least"])]):
        model.graph.node.insert(place, node)


HOSTILE: dict[str, tuple[Change, str]] = {
    "class names that are null": (entry("classes", lambda _: [None, {}]), "classes: expected different names"),
    "three classes": (entry("classes", lambda names: [*names, "cow"]), "class_shares: expected 3 numbers"),
    "no golden rows": (
        entry("golden", lambda one: one | {"label": [], "probabilities": []}),
        "golden: expected labels",
    ),
    "a label out of range": (
        entry("golden", lambda one: one | {"label": [99] * 4}),
        "golden: expected labels from 0 to 1",
    ),
    "text for numbers": (
        entry("golden", lambda one: one | {"probabilities": [["a", "b"]] * 4}),
        "golden: expected 2 prob",
    ),
    "ragged rows": (
        entry("golden", lambda one: one | {"inputs": {"image": [[1], [1, 2]]}}),
        "expected 4 rows of 'image'",
    ),
    "a tolerance of 1e9": (entry("golden", lambda one: one | {"tolerance": 1e9}), "tolerance of at most 1.3e-06"),
    "a tolerance of NaN": (entry("golden", lambda one: one | {"tolerance": float("nan")}), "tolerance of at most"),
    "no proof": (entry("proof", lambda _: {}), "proof: expected the verdict"),
    "no metrics": (entry("metrics", lambda _: {}), "metrics: expected a test/accuracy"),
    "a colour input": (entry("inputs", lambda those: [those[0] | {"shape": [3, 4, 3]}]), "expected 4 rows of 'image'"),
    "an unknown field": (entry("inputs", lambda those: [those[0] | {"evil": 1}]), "does not know"),
    "a digest with an escape": (entry("experiment", lambda _: "\x1b[2J"), "expected a digest of 64 hex digits"),
    "deep JSON": (text("classes", "[" * 100_000), "RecursionError"),
    "an entry twice": (twice, "its metadata has 'hallmark.classes' twice"),
    "a loop": (loop, "Loop '': Loop is not among the operators|takes 'x'"),
    "enormous weights": (enormous_weights, "the weights 'weight' cannot be read"),
    "a label beyond the classes": (seven_more, "golden vectors: "),
    "too much memory": (much_memory, "golden vectors: cannot be run"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    change, message = HOSTILE[name]
    file = certified.images(tmp_path / "hostile.onnx")
    model = onnx.load(file)
    change(model)
    file.write_bytes(sealed(model))
    runs = change in (seven_more, much_memory)  # nothing but running it shows what is wrong
    with pytest.raises(InputError, match=message) as refused:
        predictor.score(file, "-", None, "csv", pytest.fail, apart=runs)
    assert str(refused.value).isprintable()
    if change is not twice:  # which `check` refuses too
        assert not certificate.check(file, apart=runs).holds


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    (tmp_path / "folder.onnx").mkdir()
    for name in ("pipe", "zero", "folder"):
        with pytest.raises(InputError, match=rf"{name}\.onnx: is not a regular file"):
            certificate.check(tmp_path / f"{name}.onnx")
