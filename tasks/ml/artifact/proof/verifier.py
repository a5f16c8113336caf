"""Proof that an exported file gives the same predictions as the PyTorch model.

The tolerance is relative to the model's own rounding: the error of torch in float32 compared with float64
(`float64_reference`). A runtime's error of that size is rounding; a larger one is a defect. The runtimes run in a
process that has not imported torch (`hallmark.tasks.ml.artifact.runtimes`), at the same time as torch in this one.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from hallmark.tasks.common.digests import check, file_digest
from hallmark.tasks.common.errors import ParityError
from hallmark.tasks.common.files import temporary_folder, whole_file
from hallmark.tasks.common.records import Artifact, Dataset, Proof
from hallmark.tasks.ml.artifact import graph_form, runtimes
from hallmark.tasks.ml.artifact.certificate_schema import FACTOR, FLOOR, MAX_TOLERANCE
from hallmark.tasks.ml.artifact.exporter import input_types
from hallmark.tasks.ml.artifact.proof import first_difference
from hallmark.tasks.ml.artifact.proof.batch_sizes import batch_sizes
from hallmark.tasks.ml.artifact.proof.float64_reference import TorchReference
from hallmark.tasks.ml.artifact.proof.further_rows import texts
from hallmark.tasks.ml.artifact.proof.probe_rows import Probes, probes
from hallmark.tasks.ml.artifact.proof.row_verdicts import WayResult, judge
from hallmark.tasks.ml.artifact.runtimes import Asked, Predicted
from hallmark.tasks.ml.models.networks import Classifier

SECONDS = 600
"""Time limit of the runtimes."""


@dataclass(frozen=True, slots=True)
class ProofComparison:
    """All predictions of a file and of torch."""

    rows: Probes
    reference: TorchReference
    results: list[WayResult]
    """One for each way of predicting."""
    problem: str
    """How the graph violates the contract, or the error of a runtime; empty if all predictions could be compared."""
    dependence: str
    """How the form of the graph lets the prediction of a row depend on the other rows of its batch; empty if not."""
    gpu_error: str
    """The error of a runtime on a GPU, which is reported but does not fail the proof."""

    @property
    def on_cpu(self) -> list[WayResult]:
        """The ways on a CPU, which decide and are listed in the certificate."""
        return [one for one in self.results if not one.way.startswith(runtimes.CUDA)]

    @property
    def refused(self) -> WayResult | None:
        """The first way with a wrong row."""
        return next((one for one in self.on_cpu if one.is_wrong.any()), None)


def verify(artifact: Artifact, classifier: Classifier, dataset: Dataset, report: Path) -> Proof:
    """Prove a file, or refuse it, and write a report in both cases.

    Args:
        artifact: the exported file.
        classifier: the torch model that was exported, on the CPU.
        dataset: its test split is predicted; its training split gives the range of the inputs.
        report: the JSON file to write, whole.

    Raises:
        ParityError: a prediction differs; the message names the way, the worst row, and the first node that differs.
        DamagedError: the file has changed since it was written.
    """
    file = check(artifact.path, artifact.sha256)
    comparison = compare(file, classifier, dataset)
    problem, numbers, refused = comparison.problem, _describe(comparison), comparison.refused
    if refused and not problem:
        x = comparison.rows.x[refused.rows[refused.worst[:1]]]
        node = first_difference.first(onnx.load(file, load_external_data=False), classifier, dataset, x)
        numbers |= {"node": node, "worst_rows": [show(refused, int(row), comparison) for row in refused.worst]}
        problem = f"{_complain(refused, comparison)}; {node['sentence']}"
    problem = problem or comparison.dependence or _inexact(comparison.reference)
    content = {"verdict": "failed" if problem else "passed", "message": problem} | numbers
    with whole_file(report) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    if problem:
        raise ParityError(f"parity: {problem} (evidence: {report})")
    return _proof(comparison, report)


def compare(file: Path, classifier: Classifier, dataset: Dataset) -> ProofComparison:
    """Compare the predictions of the runtimes with those of torch.

    onnxruntime predicts the whole test split with an optimised graph, in batches of many sizes (`batch_sizes`). At
    least 512 rows (test rows, extremes, changed rows, noise) are also predicted without optimisation, all at once, and
    by onnx's reference evaluator. A row passes if

    - each probability is within `FLOOR + FACTOR * e` of float64, where `e` is the largest error of torch's own
      float32 on rows of the same kind (test, synthetic, or beyond the training range);
    - its label is that of float64, or that of a class with the same probability within twice the measured error;
    - its label is the class with the largest probability, and the probabilities are finite and sum to 1.

    Test rows with small errors are compared only with float32.

    Args:
        file: the exported file; its digest is not checked.
        classifier: the torch model that was exported, on the CPU.
        dataset: its test split is predicted; its training split gives the range of the inputs.

    Raises:
        ParityError: the process of the runtimes fails, or exceeds its time limit.
    """
    rows = probes(dataset)
    model = onnx.load(file, load_external_data=False)
    violation, dependence = contract_violation(model, dataset), graph_form.form_violation(model)
    with _runtimes(file, dataset, rows) as wait_for_predictions, _one_thread():
        reference = TorchReference(classifier, dataset, rows)
        predictions = wait_for_predictions()
    failure, on_gpu = (str(predictions.pop(name, "")) for name in ("error", "gpu_error"))
    results = [judge(asked, reference) for asked in _ways(predictions)]
    return ProofComparison(rows, reference, results, violation or failure, dependence, on_gpu)


def contract_violation(model: onnx.ModelProto, dataset: Dataset) -> str:
    """Describe how names, types and shapes of inputs and outputs differ from the contract; empty if they do not.

    Args:
        model: the exported graph.
        dataset: gives the expected names, types and shapes.
    """
    row = (1,) if dataset.columns else dataset.shape
    names = runtimes.input_names(dataset.columns)
    inputs = [(name, dtype, row) for name, dtype in zip(names, input_types(dataset), strict=True)]
    return graph_form.interface_violation(model, inputs, len(dataset.classes))


def show(result: WayResult, position: int, comparison: ProofComparison) -> dict[str, Any]:
    """Return all predictions for a row, and the margin of its class, as JSON values.

    Args:
        result: the predictions of one way.
        position: position of the row among those that were predicted in this way.
        comparison: holds the row and torch's predictions for it.
    """
    row, reference, predicted = int(result.rows[position]), comparison.reference, result.predicted
    expected = reference.probabilities[row]
    best = np.sort(expected)
    is_predicted = predicted.probabilities.ndim == 2 and position < len(predicted.probabilities)
    return {
        "row": comparison.rows.name(row),
        "way": result.way,
        "batch": int(result.sizes[position]),
        "error": _number(result.error[position]),
        "tolerance": _number(reference.tolerance[row]),
        "margin": _number(best[-1] - best[-2]),
        "label": int(predicted.label[position]) if is_predicted else None,
        "torch_label": int(expected.argmax()),
        "probabilities": _numbers(predicted.probabilities[position]) if is_predicted else None,
        "torch_float32": _numbers(reference.float32.probabilities[row]),
        "torch_float64": _numbers(expected) if reference.is_exact[row] else None,
    }


@contextmanager
def _runtimes(file: Path, dataset: Dataset, rows: Probes) -> Iterator[Callable[[], dict[str, NDArray[Any]]]]:
    """Start the runtimes in a process of their own; yield a function that waits for the predictions and reads them."""
    with temporary_folder() as folder:
        np.save(folder / "x.npy", rows.x, allow_pickle=False)
        np.save(folder / "rows.npy", rows.chosen, allow_pickle=False)
        sizes = batch_sizes(dataset, len(rows.x), file_digest(file))
        (folder / "asked.json").write_text(json.dumps([dataset.columns, texts(dataset), dataset.wide, sizes]))
        command = [sys.executable, "-P", "-m", "hallmark.tasks.ml.artifact.runtimes", str(file), str(folder)]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:

            def wait() -> dict[str, NDArray[Any]]:
                try:
                    _, output = process.communicate(timeout=SECONDS)
                except subprocess.TimeoutExpired as error:
                    raise ParityError(f"parity: the runtimes did not finish within {SECONDS} seconds") from error
                if process.returncode:
                    raise ParityError(
                        f"parity: the runtimes ended with exit code {process.returncode}: {output.strip()[-300:]}"
                    )
                with np.load(folder / "predictions.npz", allow_pickle=False) as stored:
                    return dict(stored)

            try:
                yield wait
            finally:
                process.kill()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Leave a core to the other process: threads that wait for each other would take many times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _ways(predictions: dict[str, NDArray[Any]]) -> Iterator[Asked]:
    for key, label in predictions.items():
        way, _, what = key.rpartition("/")
        if what == "label":
            probabilities, rows, sizes = (predictions[f"{way}/{part}"] for part in ("probabilities", "rows", "sizes"))
            yield Asked(way, Predicted(label, probabilities), rows, sizes)


def _describe(comparison: ProofComparison) -> dict[str, Any]:
    """Return all numbers of the comparison."""
    results, errors, rows = comparison.results, comparison.reference.float32_error, comparison.rows
    largest = [float(one.error.max()) for one in results]
    return {
        "rows": {"test": rows.test, "made": len(rows.x) - rows.test, "in_every_way": len(rows.chosen)},
        "rule": f"error of a probability <= {FLOOR:g} + {FACTOR:g} * own_float32_error, and every label but ties",
        "own_float32_error": {name: _number(error) for name, error in errors.items()},
        "tolerance": {name: _number(FLOOR + FACTOR * error) for name, error in errors.items()},
        "smallest_tolerance": _number(_largest_error(comparison)),
        "form": comparison.dependence,
        "ways": [
            {
                "way": one.way,
                "rows": len(one.rows),
                "sizes": np.unique(one.sizes).tolist(),
                "wrong": int(one.is_wrong.sum()),
                "largest_error": _number(most),
            }
            for one, most in zip(results, largest, strict=True)
        ],
        "gpu_error": comparison.gpu_error,
        "ties": [show(one, int(row), comparison) for one in results for row in np.flatnonzero(one.is_tie)],
    }


def _largest_error(comparison: ProofComparison) -> float:
    """Return the largest error of a runtime on rows within the training range."""
    far = comparison.rows.far
    errors = [one.error[(one.rows < far.start) | (one.rows >= far.stop)] for one in comparison.on_cpu]
    return max((float(error.max(initial=0.0)) for error in errors), default=0.0)


def _inexact(reference: TorchReference) -> str:
    """Describe a model whose own rounding is so large that nothing can be proven; empty for any other."""
    own = reference.float32_error["test"]
    if FLOOR + FACTOR * own <= MAX_TOLERANCE:
        return ""
    return (
        f"the model's own rounding changes a probability of a test row by {own:.1e}, so that its predictions cannot be "
        "proven: scale the inputs, or train with a lower learning rate"
    )


def _proof(comparison: ProofComparison, report: Path) -> Proof:
    reference, rows = comparison.reference, comparison.rows
    cpu = comparison.on_cpu
    apart = [np.abs(one.predicted.probabilities - reference.float32.probabilities[one.rows]).max() for one in cpu]
    return Proof(
        max_abs_diff=float(max(apart)),
        rows=rows.test,
        rows_made=len(rows.x) - rows.test,
        rows_in_every_way=len(rows.chosen),
        ways=tuple(one.way for one in cpu),
        own_error=max(reference.float32_error[name] for name in ("test", "made")),
        largest_error=_largest_error(comparison),
        tolerance=FLOOR + FACTOR * reference.float32_error["test"],
        ties=sum(int(one.is_tie.sum()) for one in cpu),
        report=report,
    )


def _complain(result: WayResult, comparison: ProofComparison) -> str:
    row = show(result, int(result.worst[0]), comparison)
    found_scores, expected = (_scores(row[name]) for name in ("probabilities", "torch_float32"))
    allowed = comparison.reference.tolerance[result.rows[result.worst[0]]]
    return (
        f"{result.way}: {int(result.is_wrong.sum())} of {len(result.rows)} rows disagree; the worst is {row['row']} "
        f"in a batch of {row['batch']}: "
        f"torch predicts label {row['torch_label']} from {expected}, the file predicts label {row['label']} from "
        f"{found_scores}; the allowed deviation is {allowed:.1e} with the same label"
    )


def _scores(values: Sequence[float | None] | None) -> str:
    return f"[{', '.join('nan' if value is None else f'{value:.7g}' for value in values or [])}]"


def _numbers(values: NDArray[np.floating]) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    """Return None for NaN and infinity, which JSON does not have."""
    return float(value) if np.isfinite(value) else None
