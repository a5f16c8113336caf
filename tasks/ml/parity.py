"""The proof that the file onnxruntime loads predicts what torch predicts."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from tasks.ml.data import open_split
from tasks.ml.digests import check
from tasks.ml.errors import ParityError
from tasks.ml.models import Classifier
from tasks.ml.onnx_export import OUTPUTS, Served, inputs
from tasks.ml.records import Artifact, Dataset, Proof
from tasks.ml.sources import Raw
from tasks.ml.splits import Indices

ABSOLUTE = 1e-5
RELATIVE = 1e-5
BATCH_SIZES = (1, 2, 7)
BATCHED_ROWS = 64
"""So many rows are run at each of the batch sizes; a shorter test split is gone through again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a runtime says of some rows."""

    label: NDArray[np.int64]
    """`(N,)`."""
    probabilities: NDArray[np.float32]
    """`(N, C)`."""

    def take(self, rows: Indices) -> "Answer":
        """The answers at these positions."""
        return Answer(self.label[rows], self.probabilities[rows])


def verify(artifact: Artifact, classifier: Classifier, dataset: Dataset) -> Proof:
    """Load the file anew and compare it with torch, first on the whole test split, then in small batches.

    Every probability must satisfy `|onnx - torch| <= ABSOLUTE + RELATIVE * |torch|`, and every label be equal.

    Args:
        artifact: the file as written.
        classifier: the torch model it was exported from.
        dataset: whose test split is used.

    Raises:
        ParityError: shapes, types, finiteness, a probability or a label differ; the message names the worst row.
        DamagedError: the file is not the one that was written.
    """
    session = open_session(str(check(artifact.path, artifact.sha256)))
    x = open_split(dataset, "test").x
    expected = _ask_torch(classifier, dataset, x)
    everything = np.arange(len(x))
    where = "whole test split"
    largest = _compare(_ask_onnx(session, dataset, x, where), expected, everything, where)
    rows = np.arange(BATCHED_ROWS) % len(x)
    for size in BATCH_SIZES:
        where = f"batches of {size}"
        answers = [_ask_onnx(session, dataset, x[batch], where) for batch in _cut(rows, size)]
        found = Answer(
            np.concatenate([answer.label for answer in answers]),
            np.concatenate([answer.probabilities for answer in answers]),
        )
        largest = max(largest, _compare(found, expected.take(rows), rows, where))
    return Proof(max_abs_diff=largest, rows=len(x))


def open_session(path: str) -> onnxruntime.InferenceSession:
    """Open an ONNX file on the CPU, on one thread that does not spin: right for models this small."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _cut(rows: Indices, size: int) -> Iterator[Indices]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _ask_torch(classifier: Classifier, dataset: Dataset, x: Raw) -> Answer:
    with torch.no_grad():
        label, probabilities = Served(classifier)(*map(torch.tensor, inputs(dataset, x).values()))
    return Answer(label.numpy(), probabilities.numpy())


def _ask_onnx(session: onnxruntime.InferenceSession, dataset: Dataset, x: Raw, where: str) -> Answer:
    try:
        return Answer(*session.run(OUTPUTS, inputs(dataset, x)))
    except Exception as error:
        raise ParityError(f"parity ({where}): the ONNX file cannot be run: {error}") from error


def _compare(found: Answer, expected: Answer, rows: Indices, where: str) -> float:
    """Return the largest absolute difference of a probability, or raise and name the worst row."""
    _compare_form(found.label, expected.label, f"{where}, output 'label'")
    _compare_form(found.probabilities, expected.probabilities, f"{where}, output 'probabilities'")
    difference = np.abs(found.probabilities - expected.probabilities)
    excess = difference - (ABSOLUTE + RELATIVE * np.abs(expected.probabilities))
    # A NaN is neither within nor beyond a tolerance, and a wrong label is beyond any.
    excess = np.where(np.isfinite(excess), excess, np.inf).max(axis=1)
    excess = np.where(found.label == expected.label, excess, np.inf)
    worst = int(excess.argmax())
    if excess[worst] > 0:
        raise ParityError(
            f"parity ({where}): {np.count_nonzero(excess > 0)} of {len(rows)} rows disagree; the worst is test row "
            f"{rows[worst]}: torch says {_show(expected, worst)}, the ONNX file says {_show(found, worst)}; "
            f"allowed is {ABSOLUTE:g} + {RELATIVE:g} * |torch| and no other label"
        )
    return float(difference.max())


def _compare_form(found: NDArray[np.generic], expected: NDArray[np.generic], where: str) -> None:
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        raise ParityError(
            f"parity ({where}): expected {expected.dtype} {expected.shape}, "
            f"the ONNX file gives {found.dtype} {found.shape}"
        )


def _show(answer: Answer, row: int) -> str:
    scores = ", ".join(f"{value:.7g}" for value in answer.probabilities[row])
    return f"label {answer.label[row]} of [{scores}]"
