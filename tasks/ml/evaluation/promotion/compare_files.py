"""Two shipped files on the same rows, which neither has seen in training. Imports no torch, Prefect or MLflow."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.digests import check
from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.artifact import certificate, runtimes
from hallmark.tasks.ml.artifact.certificate import Certificate, Verdict
from hallmark.tasks.ml.artifact.runtimes import Answer, Feeds, Run
from hallmark.tasks.ml.data.dataset_store import category_values
from hallmark.tasks.ml.evaluation.promotion import decision_rule
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Gate, Judgement, Rule

CALLS = 101
"""One row is asked so often; the latency is the median."""
WARM = 10
"""After so many calls that do not count."""
SEEN = ("train", "validation")
"""Splits that have a say in what a model becomes: the second chooses its weights."""

Digests = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Unseen:
    """The test rows that both models may be asked about."""

    rows: NDArray[np.int64]
    """Positions in the test split."""
    refused: int
    """So many others were trained on, or chose the weights, of one of the models."""


def seen(folder: Path, files: dict[str, str] | None = None) -> Digests:
    """Digests of the rows that a model was trained on or chosen by: `(N, 32) uint8`.

    Args:
        folder: holds `train.rows.npy` and `validation.rows.npy`.
        files: their SHA-256 by name, if they are known.

    Raises:
        DamagedError: a file has another digest, or is no list of digests.
    """
    found = []
    for split in SEEN:
        path = folder / f"{split}.rows.npy"
        if files is not None:
            check(path, files[path.name])
        rows = np.load(path, allow_pickle=False)
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 32:
            raise DamagedError(f"{path}: expected (N, 32) uint8, found {rows.shape} {rows.dtype}")
        found.append(rows)
    return np.concatenate(found)


def unseen(dataset: Dataset, models: Sequence[Digests]) -> Unseen:
    """The test rows of a dataset that none of several models has seen, by the digests of what they were trained on.

    Raises:
        InputError: there are none.
    """
    test = np.load(dataset.folder / "test.rows.npy", allow_pickle=False)
    known = np.isin(as_values(test), np.concatenate([as_values(rows) for rows in models]))
    if known.all():
        raise InputError(
            f"dataset {dataset.name}: all {len(test)} test rows were trained on by one of the two models: they cannot "
            "be judged on them: split by content (--data.split.method content), or add rows"
        )
    return Unseen(np.flatnonzero(~known), int(known.sum()))


def compare(
    champion: Path, challenger: Path, dataset: Dataset, rows: Unseen, rule: Rule, more: Sequence[Gate] = ()
) -> Judgement:
    """Let two files predict the same test rows, look at the challenger's gates, and judge.

    Args:
        champion: the file in service.
        challenger: the file that would take its place.
        dataset: whose test split is asked.
        rows: those of them that neither has seen.
        rule: what decides.
        more: gates that were looked at elsewhere.

    Raises:
        DamagedError: the champion's own proof does not hold, so that nothing can be compared with it.
        InputError: the dataset is not what the champion takes.
    """
    first, second = certificate.check(champion), certificate.check(challenger)
    if not first.holds or first.certificate is None:
        raise DamagedError(f"{champion}: the champion's own proof does not hold: {certificate.failures(first)}")
    x, y = (np.load(dataset.folder / f"test.{part}.npy", mmap_mode="r") for part in ("x", "y"))
    x, y = x[rows.rows], np.asarray(y[rows.rows], dtype=np.int64)
    given = runtimes.feeds(dataset.columns, x, category_values(dataset))
    _refuse_others(first.certificate, dataset, champion)
    gates = [_proof(second), _signature(first.certificate, second.certificate)]
    theirs = _ask(_open(champion), given)
    if not all(gate.passed for gate in gates):
        # It cannot be asked, or its classes are others: whatever it says of a row, it says nothing to compare.
        return decision_rule.judge(y, theirs.label, theirs.label, rule, (*gates, *more), dataset.classes)
    run = _open(challenger)
    own = _ask(run, given)
    gates += [_loss(own, y), _size(challenger, rule), _latency(run, given, rule)]
    return decision_rule.judge(y, theirs.label, own.label, rule, (*gates, *more), dataset.classes)


def as_values(digests: Digests) -> NDArray[np.bytes_]:
    """View each row's digest as one value that NumPy can compare: `(N,)`."""
    return np.ascontiguousarray(digests).view("S32").ravel()


def _open(path: Path) -> Run:
    return runtimes.runner(runtimes.open_session(certificate.load(path)))


def _ask(run: Run, given: Feeds) -> Answer:
    return runtimes.ask(run, given, runtimes.ROWS_AT_ONCE)


def _refuse_others(said: Certificate, dataset: Dataset, path: Path) -> None:
    names = dataset.columns or ("image",)
    if tuple(one.name for one in said.inputs) != names or said.classes != dataset.classes:
        raise InputError(
            f"{path}: takes {', '.join(one.name for one in said.inputs)} and knows {', '.join(said.classes)}; the rows "
            f"have {', '.join(names)} and {', '.join(dataset.classes)}: promote a model of the new rows by hand"
        )


def _proof(verdict: Verdict) -> Gate:
    golden = "; ".join(f"{found.name}: {found.found}" for found in verdict.checks)
    return Gate("proof holds", verdict.holds, certificate.failures(verdict) or golden)


def _signature(first: Certificate, second: Certificate | None) -> Gate:
    if second is None:
        return Gate("same inputs and classes", passed=False, found="the challenger's certificate cannot be read")
    ours, theirs = _form(first), _form(second)
    found = ours if ours == theirs else f"expected {ours}, found {theirs}"
    return Gate("same inputs and classes", ours == theirs, found)


def _form(said: Certificate) -> str:
    inputs = ", ".join(f"{one.name} {one.dtype} {one.shape}" for one in said.inputs)
    return f"{inputs} to {', '.join(said.classes)}"


def _loss(own: Answer, y: NDArray[np.int64]) -> Gate:
    """The log-loss as scikit-learn has it: a probability of 0 counts as the smallest step of its type; a NaN stays."""
    given = own.probabilities[np.arange(len(y)), y]
    loss = float(-np.log(np.clip(given, np.finfo(given.dtype).eps, 1)).mean())
    return Gate("loss finite", bool(np.isfinite(own.probabilities).all()) and bool(np.isfinite(loss)), f"{loss:.4f}")


def _size(path: Path, rule: Rule) -> Gate:
    size, budget = path.stat().st_size, rule.size_budget
    allowed = f" of {budget:,} allowed" if budget is not None else ""
    return Gate("file size", budget is None or size <= budget, f"{size:,} bytes{allowed}")


def _latency(run: Run, given: Feeds, rule: Rule) -> Gate:
    row = {name: value[:1] for name, value in given.items()}
    times = []
    for _ in range(WARM + CALLS):
        started = time.perf_counter()
        run(row)
        times.append(time.perf_counter() - started)
    took, budget = statistics.median(times[WARM:]) * 1000, rule.latency_budget
    allowed = f" of {budget:g} ms allowed" if budget is not None else ""
    return Gate("latency of one row", budget is None or took <= budget, f"{took:.3f} ms{allowed}")
