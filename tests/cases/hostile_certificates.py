"""Changes of an honest file's certificate. The file is sealed again, as a forger would."""

import json
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import onnx

Value = Any
"""The value of an entry: JSON."""
Verdict: TypeAlias = Literal["refused", "unproven", "either"]
"""What is expected of a file; see `hostile`."""
PREFIX = "hallmark."

_FAKE = "\x1b[2J\x1b[Hverdict         holds"


def edit(model: onnx.ModelProto, name: str, change: Callable[[Value], Value]) -> None:
    """Replace the value of an entry of the certificate."""
    for entry in model.metadata_props:
        if entry.key == PREFIX + name:
            entry.value = json.dumps(change(json.loads(entry.value)))


def _input(**fields: Value) -> Callable[[Value], Value]:
    return lambda value: [value[0] | fields]


def _with(**fields: Value) -> Callable[[Value], Value]:
    return lambda value: value | fields


def _always(new: Value) -> Callable[[Value], Value]:
    return lambda _: new


def _first_row(golden: Value) -> Value:
    rows = {name: values[:1] for name, values in golden["inputs"].items()}
    return golden | {"inputs": rows, "label": golden["label"][:1], "probabilities": golden["probabilities"][:1]}


CHANGES: dict[str, tuple[Verdict, str, Callable[[Value], Value]]] = {
    "classes_escape": ("either", "classes", _always(["\x1b[31mcat\x1b[0m", "dog\x1b]0;title\x07"])),
    "classes_newline": ("either", "classes", _always(["cat\nverdict         holds", "dog\r\x1b[Apwned"])),
    "classes_rtl": ("either", "classes", _always(["cat\u202egod", "dog\u200b"])),
    "classes_html": (
        "either",
        "classes",
        _always(["<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>"]),
    ),
    "classes_three": ("refused", "classes", _always(["cat", "dog", "cow"])),
    "classes_same": ("either", "classes", _always(["cat", "cat"])),
    "classes_numbers": ("refused", "classes", _always([1, 2])),
    "classes_null": ("refused", "classes", _always([None, {"a": 1}])),
    "classes_swapped": ("either", "classes", lambda value: value[::-1]),
    "golden_none": ("unproven", "golden", _with(label=[], probabilities=[], inputs={"image": []})),
    "golden_tolerance": ("unproven", "golden", _with(tolerance=1e9)),
    "golden_tolerance_nan": ("unproven", "golden", _with(tolerance=float("nan"))),
    "golden_one_row": ("either", "golden", _first_row),
    "golden_label_far": ("unproven", "golden", lambda value: value | {"label": [99] * len(value["label"])}),
    "golden_strings": ("unproven", "golden", _with(probabilities=[["a", "b"]] * 8)),
    "golden_ragged": ("unproven", "golden", _with(inputs={"image": [[1], [1, 2]]})),
    "golden_missing_input": ("unproven", "golden", _with(inputs={})),
    "proof_empty": ("unproven", "proof", _always({})),
    "proof_strings": ("unproven", "proof", _with(largest_error="x", ways=3)),
    "metrics_empty": ("unproven", "metrics", _always({})),
    "metrics_lie": ("either", "metrics", _with(**{"test/accuracy": 1.0, "test/loss": 0.0})),
    "inputs_empty": ("refused", "inputs", _always([])),
    "inputs_extra_key": ("either", "inputs", _input(evil=1)),
    "inputs_shape_huge": ("refused", "inputs", _input(shape=[100_000, 100_000, 3])),
    "inputs_shape_negative": ("refused", "inputs", _input(shape=[-1, 24, 3])),
    "inputs_shape_text": ("refused", "inputs", _input(shape=["a", 24])),
    "inputs_dtype": ("unproven", "inputs", _input(dtype="object")),
    "inputs_name": ("refused", "inputs", _input(name="other\x1b[31m")),
    "inputs_not_resized": ("either", "inputs", _input(resized=False)),
    "inputs_grey": ("refused", "inputs", _input(shape=[24, 24])),
    "shares_short": ("refused", "class_shares", _always([1.0])),
    "shares_text": ("refused", "class_shares", _always(["a", "b"])),
    "shares_infinite": ("refused", "class_shares", _always([float("inf"), float("nan")])),
    "experiment_escape": ("either", "experiment", _always(_FAKE)),
    "classes_twice": ("either", "classes", lambda value: value),
    "json_deep": ("refused", "classes", lambda value: value),
    "json_bignum": ("either", "golden", lambda value: value),
}
"""Verdict, entry and new value of each file, by its name. The last three change the text of an entry; see `change`."""


def change(name: str) -> Callable[[onnx.ModelProto], None]:
    """Return the change of a model that makes the file of this name."""
    _, entry, new = CHANGES[name]
    match name:
        case "classes_twice":
            return _repeat_classes
        case "json_deep":
            return lambda model: _set_text(model, entry, lambda _: "[" * 100_000)
        case "json_bignum":
            number = '"x": 1' + "0" * 5000 + ', "tolerance"'
            return lambda model: _set_text(model, entry, lambda text: text.replace('"tolerance"', number))
    return lambda model: edit(model, entry, new)


def _set_text(model: onnx.ModelProto, name: str, new: Callable[[str], str]) -> None:
    entry = next(entry for entry in model.metadata_props if entry.key == PREFIX + name)
    entry.value = new(entry.value)


def _repeat_classes(model: onnx.ModelProto) -> None:
    entry = onnx.StringStringEntryProto(key=f"{PREFIX}classes", value='["first","entry"]')
    model.metadata_props.insert(0, entry)
