"""Checks that run a graph: onnx's checker, its form, and golden vectors. In this process, or in one with limits.

A hostile file may crash a library, loop for ever or take all memory. `examine_apart` therefore starts this module in a
process of its own; the file and what is expected of it arrive on stdin, and the results leave on stdout.
"""

import hashlib
import json
import resource
import struct
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hallmark.tasks.ml.artifact import graph_form, runtimes
from hallmark.tasks.ml.artifact.runtimes import Feeds, Predicted

BATCH_SIZES = (1, 2, 7)
"""Batch sizes in which golden vectors are run, besides all rows at once."""
ENOUGH = 14
"""Number of rows to which golden vectors are repeated: two batches of seven."""
SECONDS = 60
"""Time limit of the process with limits."""
MEMORY = 8 * 2**30
"""Limit of its address space, in bytes."""
GRAPH, GOLDEN = "ONNX checker", "golden vectors"
"""Names of the checks."""

Result = tuple[str, bool, str]
"""Name, whether the check passed, and what was found."""

_examined: dict[str, list[Result]] = {}
"""Results of `examine_apart` in this process, by SHA-256 of the file and of what is expected of it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a certificate says about its graph, as JSON values."""

    inputs: list[tuple[str, str, list[int]]]
    """Name, type and shape of one row of each input."""
    classes: int
    rows: dict[str, list[Any]]
    """Golden rows by input name."""
    label: list[int]
    probabilities: list[list[float]]
    tolerance: float


def examine(content: bytes, expected: Expected | None) -> list[Result]:
    """Check a graph in this process.

    Args:
        content: the file.
        expected: what its certificate says; None if it cannot be read, then only the graph is checked.
    """
    model = onnx.load_model_from_string(content)
    found = form(model, expected) or _checker(model)
    if found:
        return [(GRAPH, False, found), *([(GOLDEN, False, "not run, because of the graph")] if expected else [])]
    opset = next((entry.version for entry in model.opset_import if not entry.domain), 0)
    checked: Result = (GRAPH, True, f"well-formed, opset {opset}, predicts each row by itself")
    return [checked, *([_golden(content, expected)] if expected else [])]


def examine_apart(content: bytes, expected: Expected | None) -> list[Result]:
    """Check a graph in a process with a limit of time and memory; see `examine`. Its end is a failure of the file."""
    given = [expected.inputs, expected.classes, expected.rows, expected.label, expected.probabilities,
             expected.tolerance] if expected else None  # fmt: skip
    header = json.dumps(given).encode()
    key = hashlib.sha256(header + content).hexdigest()
    if key in _examined:
        return _examined[key]
    command = [sys.executable, "-P", "-m", "hallmark.tasks.ml.artifact.graph_checks"]
    try:
        done = subprocess.run(
            command, input=struct.pack("<Q", len(header)) + header + content, capture_output=True, timeout=SECONDS,
            check=False,
        )  # fmt: skip
        results: list[Result] = [tuple(one) for one in json.loads(done.stdout.splitlines()[-1])]
    except subprocess.TimeoutExpired:
        return [(GOLDEN, False, f"cannot be run: it did not end within {SECONDS} seconds")]
    except (ValueError, IndexError):
        return [(GOLDEN, False, f"cannot be run: the runtime ended with exit code {done.returncode}")]
    _examined[key] = results
    return results


def form(model: onnx.ModelProto, expected: Expected | None) -> str:
    """Describe how a graph differs from its interface or from the form that Hallmark writes; empty if it does not."""
    if expected:
        inputs = [(name, dtype, tuple(shape)) for name, dtype, shape in expected.inputs]
        if found := graph_form.interface_violation(model, inputs, expected.classes):
            return found
    return graph_form.form_violation(model)


def _checker(model: onnx.ModelProto) -> str:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # noqa: BLE001 - the checker and shape inference have errors of several kinds
        return " ".join(str(error).split())[:300]
    return ""


def _golden(content: bytes, expected: Expected) -> Result:
    """Run the golden vectors, with the graph as it is and as optimised by onnxruntime."""
    count, tolerance = len(expected.label), expected.tolerance
    rows = np.arange(max(ENOUGH, count)) % count
    answers = Predicted(np.array(expected.label), np.array(expected.probabilities)).take(rows)
    largest = 0.0
    try:
        feeds = {name: value[rows] for name, value in golden_feeds(expected.inputs, expected.rows).items()}
        for optimise in (False, True):
            predict = runtimes.runner(runtimes.open_session(content, optimise=optimise))
            for size in (*BATCH_SIZES, len(rows)):
                where = f"batches of {size}" if size < len(rows) else "all at once"
                predicted = runtimes.predict_in_batches(predict, feeds, size)
                if wrong := difference(predicted, answers, tolerance):
                    return GOLDEN, False, f"{where}: {wrong}"
                largest = max(largest, float(np.abs(predicted.probabilities - answers.probabilities).max()))
    except Exception as error:  # noqa: BLE001 - any error of a runtime is a failure of the file
        return GOLDEN, False, f"cannot be run: {' '.join(str(error).split())[:300]}"
    return GOLDEN, True, f"{count} rows as proven, maximum deviation {largest:.1e} (allowed: {tolerance:.1e})"


def golden_feeds(inputs: list[tuple[str, str, list[int]]], rows: dict[str, list[Any]]) -> Feeds:
    """Return golden rows as arrays that a runtime accepts."""
    return {name: np.array(rows[name], dtype=object if dtype == "string" else dtype) for name, dtype, _ in inputs}


def difference(found: Predicted, expected: Predicted, tolerance: float) -> str:
    """Describe how predictions differ from the expected ones; empty if they do not.

    A different label is accepted if both classes have the same probability within the tolerance: a tie.
    """
    if found.probabilities.shape != expected.probabilities.shape or found.label.shape != expected.label.shape:
        return f"expected shape {expected.probabilities.shape}, found {found.probabilities.shape}"
    apart = np.abs(found.probabilities - expected.probabilities).max(axis=1)
    bad = ~(apart <= tolerance) | _flipped(found, expected, tolerance)  # a NaN is not within a tolerance
    if not bad.any():
        return ""
    row = int(np.where(bad, np.where(np.isfinite(apart), apart, np.inf), -1.0).argmax())
    return (
        f"{bad.sum()} of {len(bad)} rows differ; row {row}: expected label {expected.label[row]}, "
        f"found {found.label[row]}, probabilities apart by {apart[row]:.1e}"
    )


def _flipped(found: Predicted, expected: Predicted, tolerance: float) -> NDArray[np.bool_]:
    rows, probabilities = np.arange(len(found.label)), expected.probabilities
    inside = (found.label >= 0) & (found.label < probabilities.shape[1])
    margin = np.abs(probabilities[rows, expected.label] - probabilities[rows, np.where(inside, found.label, 0)])
    flipped: NDArray[np.bool_] = (found.label != expected.label) & ~(inside & (margin <= tolerance))
    return flipped


def main() -> None:
    """Check the graph on stdin and print the results as JSON."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    if sys.platform == "linux":  # macOS refuses it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    given = sys.stdin.buffer.read()
    (length,) = struct.unpack("<Q", given[:8])
    expected = json.loads(given[8 : 8 + length])
    try:
        results = examine(given[8 + length :], Expected(*expected) if expected else None)
    except MemoryError:
        results = [(GOLDEN, False, f"cannot be run: it needs more than {MEMORY:,} bytes of memory")]
    sys.stdout.write(f"\n{json.dumps(results)}\n")


if __name__ == "__main__":
    main()
