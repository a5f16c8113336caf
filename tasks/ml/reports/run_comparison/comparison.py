"""Compare runs: options that differ, test metrics with intervals, and paired tests on common rows. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.ml.artifact import certificate, runtimes
from hallmark.tasks.ml.data import dataset_store
from hallmark.tasks.ml.evaluation import intervals, paired_tests
from hallmark.tasks.ml.evaluation.intervals import Interval
from hallmark.tasks.ml.evaluation.metrics import METRICS, OfRows, Predictions
from hallmark.tasks.ml.evaluation.promotion import compare_files

ALPHA = 0.05
INTERVALS = {f"test/{metric.name}": metric.interval for metric in METRICS}
"""How the interval of each metric is computed, in the order in which a comparison lists them."""
CURVES = ("val/loss", "train/loss")
"""Metrics whose learning curves are compared."""

Curve = tuple[list[int], list[float]]
"""Epochs and values."""


@dataclass(frozen=True, slots=True)
class RowResults:
    """What a run's shipped file predicts for the run's own test rows."""

    classes: tuple[str, ...]
    rows: NDArray[np.bytes_]
    """`(N,)` digest of each row."""
    y: NDArray[np.int64]
    """`(N,)` true class index."""
    values: dict[str, NDArray[np.floating]]
    """`(N,)` value of each row, by name of each metric that is a mean over rows."""
    trained_on: NDArray[np.bytes_]
    """Digests of the training and validation rows of the run."""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """`(N,)` whether the prediction is correct."""
        return self.values["test/accuracy"].astype(bool)

    @property
    def losses(self) -> NDArray[np.floating]:
        """`(N,)` log-loss of each row. Their mean is `test/log_loss`."""
        return self.values["test/log_loss"]


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One of the compared runs."""

    given: str
    """Reference on the command line."""
    run_id: str
    name: str
    status: str
    model: str
    """Registered version, such as `iris version 3`; empty if none was registered."""
    dataset: str
    """Digest of the dataset."""
    about: dict[str, Any]
    """Options, and everything else that the result depends on."""
    metrics: dict[str, float]
    """Recorded metrics of the test split."""
    curves: dict[str, Curve]
    """Learning curves by metric; see `CURVES`."""
    results: RowResults | None
    """Predictions for the test rows; None if they cannot be computed."""
    missing: str
    """Reason why `results` is None."""


@dataclass(frozen=True, slots=True)
class MetricValue:
    """A metric of one run."""

    value: float | None
    """None if it was not recorded or is not finite."""
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """A run compared with the first one on the same test rows."""

    run: int
    """Number of the run, counted from 1."""
    rows: int
    wins: int
    """Rows that only this run classifies correctly."""
    losses: int
    """Rows that only the first run classifies correctly."""
    p: float
    """P-value of the exact McNemar test."""
    accuracy: float
    """Accuracy of this run minus that of the first."""
    interval: tuple[float, float]
    """Tango's interval of the difference in accuracy."""
    log_loss: float
    """Log-loss of this run minus that of the first. Negative values favour this run."""
    log_loss_interval: Interval | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two or more runs, compared."""

    runs: tuple[ComparedRun, ...]
    differences: dict[str, list[Any]]
    """Value for each run, None if it has none. Names with equal values are left out."""
    metrics: dict[str, list[MetricValue]]
    pairs: list[PairedComparison]
    notes: list[str]
    """Missing results and caveats, as sentences."""


def predict_test_rows(file: Path, folder: Path) -> RowResults:
    """Predict the test rows of the dataset that a shipped file was trained on.

    Args:
        file: the shipped file.
        folder: folder of the dataset.

    Raises:
        DamagedError: a file of the dataset does not have its recorded digest.
    """
    dataset = dataset_store.load(folder, ("test.x.npy", "test.y.npy", "test.rows.npy"))
    test = dataset_store.open_split(dataset, "test")
    y = np.asarray(test.y)
    predict = runtimes.runner(runtimes.open_session(certificate.load(file)))
    feeds = runtimes.feeds(dataset.columns, test.x, dataset_store.category_values(dataset), dataset.wide)
    predicted = runtimes.predict_in_batches(predict, feeds, runtimes.ROWS_AT_ONCE)
    return RowResults(
        classes=dataset.classes,
        rows=compare_files.as_values(np.load(folder / "test.rows.npy")),
        y=y,
        values=row_values(Predictions(y, predicted.probabilities, predicted.label)),
        trained_on=compare_files.as_values(compare_files.seen(folder, dataset_store.file_digests(folder))),
    )


def row_values(predictions: Predictions) -> dict[str, NDArray[np.floating]]:
    """Return the value of each row, `(N,)`, for each metric that is a mean over rows, by `test/<name>`."""
    return {name: kind.values(predictions) for name, kind in INTERVALS.items() if isinstance(kind, OfRows)}


def compare(runs: Sequence[ComparedRun]) -> Comparison:
    """Compare runs, each with the first one on the test rows that they have in common."""
    first, *others = runs
    pairs, notes = [], [*_missing_notes(runs), *_exact_notes(runs)]
    for number, run in enumerate(others, 2):
        if first.results and run.results:
            if paired := pair(first.results, run.results, number):
                pairs.append(paired)
            else:
                notes.append(_unpaired_note(first.results, run.results, number))
            if first.dataset != run.dataset:
                notes += [*_leakage_notes(first.results, run.results, 1, number)]
                notes += [*_leakage_notes(run.results, first.results, number, 1)]
    return Comparison(tuple(runs), differences([run.about for run in runs]), _metrics(runs), pairs, notes)


def differences(about: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the entries that are not equal in all mappings, with None for a missing key."""
    names = dict.fromkeys(name for each in about for name in each)
    values = {name: [each.get(name) for each in about] for name in names}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}


def pair(first: RowResults, second: RowResults, number: int) -> PairedComparison | None:
    """Compare two runs row by row, in any order of the rows; return None if the test rows are not the same."""
    if first.classes != second.classes or len(first.y) != len(second.y):
        return None
    keys = _keys(first), _keys(second)
    ours, theirs = (np.argsort(each, kind="stable") for each in keys)
    if (keys[0][ours] != keys[1][theirs]).any():
        return None
    before, after = first.correct[ours], second.correct[theirs]
    rows, wins, losses = len(before), int((after & ~before).sum()), int((before & ~after).sum())
    change = second.losses[theirs] - first.losses[ours]
    return PairedComparison(
        run=number,
        rows=rows,
        wins=wins,
        losses=losses,
        p=paired_tests.mcnemar(wins, losses),
        accuracy=(wins - losses) / rows,
        interval=paired_tests.paired_interval(wins, losses, rows, ALPHA),
        log_loss=float(change.mean()),
        log_loss_interval=intervals.mean(change),
    )


def count_common_rows(first: RowResults, second: RowResults) -> int:
    """Count the test rows, by content and class, that two runs have in common.

    A row that occurs several times in both runs is counted as often as in the run with fewer.
    """
    (ours, our_counts), (theirs, their_counts) = (
        np.unique(_keys(each), return_counts=True) for each in (first, second)
    )
    _, here, there = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
    return int(np.minimum(our_counts[here], their_counts[there]).sum())


def _metrics(runs: Sequence[ComparedRun]) -> dict[str, list[MetricValue]]:
    """Return the metrics in `METRICS` that any run has, in their order, then the others that all runs have."""
    common = [name for name in runs[0].metrics if all(name in run.metrics for run in runs)]
    names = [name for name in INTERVALS if any(name in run.metrics for run in runs)]
    # Metrics of single classes, such as `test/recall/setosa`, come last.
    names += sorted(set(common) - INTERVALS.keys(), key=lambda name: (name.count("/"), name))
    return {name: [_metric(run, name) for run in runs] for name in names}


def _metric(run: ComparedRun, name: str) -> MetricValue:
    value = run.metrics.get(name)
    kind, interval = INTERVALS.get(name), None
    if run.results and isinstance(kind, OfRows):
        interval = kind.interval(run.results.values[name])
    return MetricValue(value if value is not None and np.isfinite(value) else None, interval)


def _missing_notes(runs: Sequence[ComparedRun]) -> list[str]:
    return [
        f"run {number}: no intervals and no paired test: {run.missing}"
        for number, run in enumerate(runs, 1)
        if not run.results
    ]


def _exact_notes(runs: Sequence[ComparedRun]) -> list[str]:
    """Explain the intervals of runs whose test rows are all correct or all wrong."""
    notes = []
    for word, expected in (("correct", True), ("wrong", False)):
        numbers = [
            str(number) for number, run in enumerate(runs, 1) if run.results and (run.results.correct == expected).all()
        ]
        if numbers:
            notes.append(
                f"run{'s' * (len(numbers) > 1)} {', '.join(numbers)}: the interval of the accuracy is exact "
                f"(Clopper-Pearson), because resampling all-{word} rows gives no spread"
            )
    return notes


def _unpaired_note(first: RowResults, second: RowResults, number: int) -> str:
    if first.classes != second.classes:
        why = "its classes differ from those of run 1"
    else:
        here, there, common = len(first.y), len(second.y), count_common_rows(first, second)
        why = f"its {there:,} test rows are not the {here:,} of run 1 ({common:,} in common)"
    return f"run {number}: no paired test, and its metrics are for different rows: {why}"


def _leakage_notes(tested: RowResults, other: RowResults, number: int, other_number: int) -> list[str]:
    known = int(np.isin(tested.rows, other.trained_on).sum())
    if not known:
        return []
    return [
        f"run {other_number} used {known:,} of the {len(tested.y):,} test rows of run {number} for training or "
        "validation: those rows would flatter it"
    ]


def _keys(results: RowResults) -> NDArray[np.bytes_]:
    """Return digest and class of each row as one value, `(N,)`: rows of equal content can have different classes."""
    rows, y = results.rows.view(np.uint8).reshape(-1, 32), np.ascontiguousarray(results.y)[:, None].view(np.uint8)
    return np.concatenate([rows, y], axis=1).view("S40").ravel()
