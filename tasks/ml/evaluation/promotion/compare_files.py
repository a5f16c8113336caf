"""Comparison of two shipped files on test rows that neither was trained on. Imports no torch, Prefect or MLflow."""

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
from hallmark.tasks.ml.artifact.certificate import Certificate
from hallmark.tasks.ml.artifact.runtimes import Feeds, Predict, Predicted
from hallmark.tasks.ml.data.dataset_store import category_values, open_split
from hallmark.tasks.ml.evaluation.promotion import decision_rule
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Gate, Judgement, Rule

CALLS = 101
"""Number of timed predictions of one row; the latency is their median."""
WARM = 10
"""Number of predictions before those that are timed."""
SEEN = ("train", "validation")
"""Splits that influence a model: training, and validation, which chooses the weights."""

Digests = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Unseen:
    """The test rows on which both models may be compared."""

    rows: NDArray[np.int64]
    """Positions in the test split."""
    refused: int
    """Number of the other test rows, on which one of the models was trained or by which it was chosen."""


def seen(folder: Path, files: dict[str, str] | None = None) -> Digests:
    """Return the digests of the rows that a model was trained on or chosen by: `(N, 32) uint8`.

    Args:
        folder: holds `train.rows.npy` and `validation.rows.npy`.
        files: their SHA-256 by name; not checked if not given.

    Raises:
        DamagedError: a file has another digest, or does not hold digests.
    """
    digests = []
    for split in SEEN:
        path = folder / f"{split}.rows.npy"
        if files is not None:
            check(path, files[path.name])
        rows = np.load(path, allow_pickle=False)
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 32:
            raise DamagedError(f"{path}: expected (N, 32) uint8, found {rows.shape} {rows.dtype}")
        digests.append(rows)
    return np.concatenate(digests)


def unseen(dataset: Dataset, models: Sequence[Digests]) -> Unseen:
    """Return the test rows of a dataset that none of the models was trained on.

    Args:
        dataset: the prepared splits.
        models: digests of the rows that each model was trained on or chosen by.

    Raises:
        InputError: there are no such rows.
    """
    test = np.load(dataset.folder / "test.rows.npy", allow_pickle=False)
    known = np.isin(as_values(test), np.concatenate([as_values(rows) for rows in models]))
    if known.all():
        raise InputError(
            f"dataset {dataset.name}: all {len(test)} test rows were used to train one of the two models, so the "
            "models cannot be compared: split by content (--data.split.method content), or add rows"
        )
    return Unseen(np.flatnonzero(~known), int(known.sum()))


def compare(
    champion: Path, challenger: Path, dataset: Dataset, rows: Unseen, rule: Rule, more: Sequence[Gate] = ()
) -> Judgement:
    """Predict the same test rows with two files, check the gates of the challenger, and decide.

    Args:
        champion: the file in service.
        challenger: the file that may replace it.
        dataset: its test split is predicted.
        rows: the test rows that neither was trained on.
        rule: the conditions of a promotion.
        more: gates that were checked elsewhere.

    Raises:
        DamagedError: the champion fails its checks, so nothing can be compared with it.
        InputError: the dataset has other inputs or classes than the champion.
    """
    first, second = certificate.check(champion), certificate.check(challenger)
    if not first.holds or first.certificate is None:
        raise DamagedError(f"{champion}: the champion's own proof does not hold: {certificate.failures(first)}")
    test = open_split(dataset, "test")
    x, y = test.x[rows.rows], np.asarray(test.y[rows.rows], dtype=np.int64)
    given = runtimes.feeds(dataset.columns, x, category_values(dataset), dataset.wide)
    refuse_others(first.certificate, dataset, champion)
    found = certificate.failures(second) or "; ".join(f"{one.name}: {one.found}" for one in second.checks)
    gates = [Gate("proof holds", second.holds, found), _signature(first.certificate, second.certificate)]
    by_champion = _predict(_open(champion), _as_taken(given, first.certificate))
    if not all(gate.passed for gate in gates):
        # The challenger cannot predict these rows, or has other classes: its predictions cannot be compared.
        return decision_rule.judge(y, by_champion.label, by_champion.label, rule, (*gates, *more), dataset.classes)
    predict, given = _open(challenger), _as_taken(given, second.certificate)
    by_challenger = _predict(predict, given)
    gates += [_loss(by_challenger, y), _size(challenger, rule), _latency(predict, given, rule)]
    return decision_rule.judge(y, by_champion.label, by_challenger.label, rule, (*gates, *more), dataset.classes)


def replace(
    champion: Path | None,
    challenger: Path,
    dataset: Dataset,
    rows: Unseen,
    rule: Rule,
    more: Sequence[Gate] = (),
    *,
    disqualified: str,
) -> Judgement:
    """Check the gates of a challenger and decide whether it replaces a champion that is disqualified.

    Only the challenger predicts. It may lack inputs of the champion, such as the column that gave the target away.

    Args:
        champion: the file in service; None if it is broken.
        challenger: the file that may replace it.
        dataset: its test split is predicted.
        rows: the test rows that the challenger was not trained on.
        rule: the conditions of a promotion.
        more: gates that were checked elsewhere.
        disqualified: the reason, in words.

    Raises:
        InputError: the dataset has other inputs or classes than the challenger.
        DamagedError: the challenger's proof does not hold.
    """
    second = certificate.check(challenger)
    if not second.holds or second.certificate is None:
        raise DamagedError(f"{challenger}: its proof does not hold: {certificate.failures(second)}")
    refuse_others(second.certificate, dataset, challenger)
    test = open_split(dataset, "test")
    x, y = test.x[rows.rows], np.asarray(test.y[rows.rows], dtype=np.int64)
    given = runtimes.feeds(dataset.columns, x, category_values(dataset), dataset.wide)
    predict, given = _open(challenger), _as_taken(given, second.certificate)
    predicted = _predict(predict, given)
    gates = [
        Gate("proof holds", second.holds, "; ".join(f"{one.name}: {one.found}" for one in second.checks)),
        _no_new_inputs(certificate.check(champion).certificate if champion else None, second.certificate),
        _loss(predicted, y),
        _size(challenger, rule),
        _latency(predict, given, rule),
    ]
    return decision_rule.replace(y, predicted.label, rule, (*gates, *more), dataset.classes, disqualified)


def as_values(digests: Digests) -> NDArray[np.bytes_]:
    """View each row's digest as one value that NumPy can compare: `(N,)`."""
    return np.ascontiguousarray(digests).view("S32").ravel()


def _open(path: Path) -> Predict:
    return runtimes.runner(runtimes.open_session(certificate.load(path)))


def _predict(predict: Predict, given: Feeds) -> Predicted:
    return runtimes.predict_in_batches(predict, given, runtimes.ROWS_AT_ONCE)


def _as_taken(given: Feeds, shipped: Certificate | None) -> Feeds:
    """Return numbers in the type that a file takes: a column may have become float64 since it was shipped."""
    numbers = {one.name: one.dtype for one in shipped.inputs if one.dtype.startswith("float")} if shipped else {}
    numbers = {name: dtype for name, dtype in numbers.items() if given[name].dtype.kind == "f"}
    return given | {name: given[name].astype(dtype, copy=False) for name, dtype in numbers.items()}


def refuse_others(shipped: Certificate, dataset: Dataset, path: Path) -> None:
    """Check that a file takes the columns of a dataset and predicts its classes.

    Raises:
        InputError: it does not; the message names what is new and what is missing.
    """
    inputs, names = tuple(one.name for one in shipped.inputs), runtimes.input_names(dataset.columns)
    if inputs == names and shipped.classes == dataset.classes:
        return
    known, found = {*inputs, *shipped.classes}, {*names, *dataset.classes}
    changes = {"missing": sorted(known - found), "new": sorted(found - known)}
    words = "; ".join(f"{word}: {', '.join(map(repr, those))}" for word, those in changes.items() if those)
    raise InputError(
        f"{path}: the model has inputs {', '.join(inputs)} and classes {', '.join(shipped.classes)}, the rows have "
        f"{', '.join(names)} and {', '.join(dataset.classes)} ({words or 'in another order'}): use the former "
        "names, or train and promote a model of the new rows by hand"
    )


def _signature(champion: Certificate, challenger: Certificate | None) -> Gate:
    if challenger is None:
        return Gate("same inputs and classes", passed=False, found="the challenger's certificate cannot be read")
    expected, found = _form(champion), _form(challenger)
    is_same = found == expected
    return Gate("same inputs and classes", is_same, found if is_same else f"expected {expected}, found {found}")


def _no_new_inputs(champion: Certificate | None, challenger: Certificate) -> Gate:
    """Check that the challenger needs no input that the champion does not have, and has the same classes."""
    name = "same classes and no new input"
    if champion is None:
        return Gate(name, passed=True, found="the champion's file is broken, so it has no inputs to keep")
    before = {(one.name, one.dtype, str(one.shape)) for one in champion.inputs}
    new = [one.name for one in challenger.inputs if (one.name, one.dtype, str(one.shape)) not in before]
    missing = [one.name for one in champion.inputs if one.name not in {each.name for each in challenger.inputs}]
    if new or challenger.classes != champion.classes:
        return Gate(name, passed=False, found=f"expected {_form(champion)}, found {_form(challenger)}")
    return Gate(name, passed=True, found=f"{_form(challenger)}{'; without ' * bool(missing)}{', '.join(missing)}")


def _form(shipped: Certificate) -> str:
    inputs = ", ".join(f"{one.name} {one.dtype} {one.shape}" for one in shipped.inputs)
    return f"{inputs} to {', '.join(shipped.classes)}"


def _loss(predicted: Predicted, y: NDArray[np.int64]) -> Gate:
    """Check the log-loss, computed as by scikit-learn: probabilities are clipped to the type's epsilon; NaN stays."""
    given = predicted.probabilities[np.arange(len(y)), y]
    loss = float(-np.log(np.clip(given, np.finfo(given.dtype).eps, 1)).mean())
    is_finite = bool(np.isfinite(predicted.probabilities).all() and np.isfinite(loss))
    return Gate("loss finite", is_finite, f"{loss:.4f}")


def _size(path: Path, rule: Rule) -> Gate:
    size, budget = path.stat().st_size, rule.size_budget
    allowed = f" of {budget:,} allowed" if budget is not None else ""
    return Gate("file size", budget is None or size <= budget, f"{size:,} bytes{allowed}")


def _latency(predict: Predict, given: Feeds, rule: Rule) -> Gate:
    row = {name: value[:1] for name, value in given.items()}
    times = []
    for _ in range(WARM + CALLS):
        started = time.perf_counter()
        predict(row)
        times.append(time.perf_counter() - started)
    took, budget = statistics.median(times[WARM:]) * 1000, rule.latency_budget
    allowed = f" of {budget:g} ms allowed" if budget is not None else ""
    return Gate("latency of one row", budget is None or took <= budget, f"{took:.3f} ms{allowed}")
