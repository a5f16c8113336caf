"""Check the JSON values of a certificate before anything uses them. A file may come from anywhere."""

import re
import sys
from collections.abc import Iterator
from typing import Any

from hallmark.tasks.ml.data.tables.date_columns.date_formats import FORMATS

FACTOR = 8.0
"""A probability may be off by this many times the largest error of torch's own float32 on rows of the same kind."""
FLOOR = 5e-7
"""Tolerance added to that: four steps of float32 just below 1."""
MAX_TOLERANCE = 0.5
"""Limit of a tolerance: a probability that may be off by so much says nothing about the class."""

ROUNDING = 1e-5
"""A probability may exceed 1 by this."""
DTYPES = ("float32", "float64", "uint8", "string")
KINDS = ("numeric", "boolean", "categorical", "date")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_OPTIONAL: dict[str, Any] = {
    "kind": None,
    "values": [],
    "mixed": False,
    "resized": False,
    "missing_text": [],
    "decimal": "",
    "unit": "",
    "joined": False,
    "date_form": "",
    "bits": 0,
    "on_black": False,
}


def violation(content: dict[str, Any]) -> str:
    """Describe the first value that is not as Hallmark writes it; empty if there is none.

    Args:
        content: the parsed value of each field of `Certificate`.
    """
    return next(_violations(content), "")


def _violations(content: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong. After the first one, the others may not be computable."""
    classes, inputs = content["classes"], content["inputs"]
    if not _is_list_of(str, classes) or not classes or len(set(classes)) != len(classes):
        yield "classes: expected different names"
    if not _are_probabilities(content["class_shares"], len(classes)):
        yield f"class_shares: expected {len(classes)} numbers from 0 to 1"
    for name in ("experiment", "dataset"):
        if not isinstance(content[name], str) or not _DIGEST.fullmatch(content[name]):
            yield f"{name}: expected a digest of 64 hex digits"
    yield from _of_metrics(content["metrics"])
    yield from _of_inputs(inputs)
    yield from _of_proof(content["proof"])
    yield from _of_golden(content["golden"], len(classes), FLOOR + FACTOR * content["proof"]["own_error"])
    yield from _of_golden_rows(content["golden"], inputs)


def _of_metrics(metrics: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    if not isinstance(metrics, dict) or not all(type(value) in (int, float) for value in metrics.values()):
        yield "metrics: expected numbers by name"
    if not 0 <= metrics.get("test/accuracy", -1) <= 1:
        yield "metrics: expected a test/accuracy from 0 to 1"


def _of_inputs(inputs: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    if not isinstance(inputs, list) or not inputs:
        yield "inputs: expected at least one input"
    for one in inputs:
        if not _is_input(one):
            yield f"inputs: expected name, type, shape, range and description, found {str(one)[:80]!r}"
    if len({one["name"] for one in inputs}) != len(inputs):
        yield "inputs: expected different names"


def _of_proof(proof: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    if not isinstance(proof, dict) or proof.get("verdict") != "passed":
        yield "proof: expected the verdict 'passed'"
    if not all(_is_whole(proof.get(name), 0) for name in ("rows", "rows_made")):
        yield "proof: expected numbers of rows"
    if not _is_list_of(str, proof.get("ways")):
        yield "proof: expected the ways of predicting"
    if not all(_is_number(proof.get(name)) and 0 <= proof[name] <= 1 for name in ("own_error", "largest_error")):
        yield "proof: expected own_error and largest_error from 0 to 1"


def _of_golden(golden: Any, classes: int, allowed: float) -> Iterator[str]:  # noqa: ANN401 - any JSON
    if not isinstance(golden, dict) or set(golden) != {"inputs", "label", "probabilities", "tolerance"}:
        yield "golden: expected inputs, label, probabilities and tolerance"
    label, probabilities, tolerance = golden["label"], golden["probabilities"], golden["tolerance"]
    if not isinstance(label, list) or not label or not all(_is_whole(one, 0) and one < classes for one in label):
        yield f"golden: expected labels from 0 to {classes - 1}"
    if not isinstance(probabilities, list) or len(probabilities) != len(label):
        yield f"golden: expected probabilities of {len(label)} rows"
    if not all(_are_probabilities(one, classes) for one in probabilities):
        yield f"golden: expected {classes} probabilities from 0 to 1 for each row"
    if not _is_number(tolerance) or not 0 <= tolerance <= min(MAX_TOLERANCE, allowed):
        yield f"golden: expected a tolerance of at most {min(MAX_TOLERANCE, allowed):.1e}, as the proof allows"


def _of_golden_rows(golden: dict[str, Any], inputs: list[dict[str, Any]]) -> Iterator[str]:
    if not isinstance(golden["inputs"], dict) or set(golden["inputs"]) != {one["name"] for one in inputs}:
        yield "golden: expected rows of each input"
    for one in inputs:
        shape = (len(golden["label"]), *one["shape"])
        if not _has_shape(golden["inputs"][one["name"]], shape, one):
            yield f"golden: expected {shape[0]} rows of '{one['name']}', {one['dtype']} {shape[1:]}"


def _is_input(one: Any) -> bool:  # noqa: ANN401 - any JSON
    if not isinstance(one, dict):
        return False
    required = {"name", "dtype", "shape", "lowest", "highest", "description"}
    if not required <= set(one):
        return False
    given = _OPTIONAL | one
    return all((
        _is_list_of(str, [given[name] for name in ("name", "description", "decimal", "unit", "date_form")]),
        given["date_form"] in ("", *FORMATS),
        _is_list_of(bool, [given[name] for name in ("mixed", "resized", "joined", "on_black")]),
        _is_list_of(str, given["values"]),
        _is_list_of(str, given["missing_text"]),
        _is_whole(given["bits"], 0),
        isinstance(given["dtype"], str) and given["dtype"] in DTYPES,
        given["kind"] is None or (isinstance(given["kind"], str) and given["kind"] in KINDS),
        isinstance(given["shape"], list) and all(_is_whole(size, 1) for size in given["shape"]),
        all(given[bound] is None or type(given[bound]) in (int, float) for bound in ("lowest", "highest")),
    ))  # fmt: skip


def _has_shape(rows: Any, shape: tuple[int, ...], one: dict[str, Any]) -> bool:  # noqa: ANN401 - any JSON
    if shape:
        return isinstance(rows, list) and len(rows) == shape[0] and all(_has_shape(row, shape[1:], one) for row in rows)
    match one["dtype"]:
        case "string":
            return isinstance(rows, str)
        case "uint8":
            return _is_whole(rows, 0) and rows <= 255
    return rows is None or _is_number(rows)


def _is_list_of(kind: type, value: Any) -> bool:  # noqa: ANN401 - any JSON
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)


def _are_probabilities(value: Any, count: int) -> bool:  # noqa: ANN401 - any JSON
    """Return whether these are `count` numbers from 0 to 1, up to rounding."""
    if not isinstance(value, list) or len(value) != count:
        return False
    return all(_is_number(one) and 0 <= one <= 1 + ROUNDING for one in value)


def _is_number(value: Any) -> bool:  # noqa: ANN401 - any JSON
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # false for NaN


def _is_whole(value: Any, lowest: int) -> bool:  # noqa: ANN401 - any JSON
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest
