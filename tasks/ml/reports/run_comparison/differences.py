"""In what runs differ: options, metrics with their intervals, and what their files say of the same rows. No torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.digests import check
from hallmark.tasks.ml.artifact import certificate, runtimes
from hallmark.tasks.ml.data.dataset_store import COLUMNS
from hallmark.tasks.ml.evaluation import intervals, paired_tests
from hallmark.tasks.ml.evaluation.intervals import Interval
from hallmark.tasks.ml.evaluation.promotion import compare_files

ALPHA = 0.05
FIRST = ("test/accuracy", "test/log_loss", "test/loss")
"""Metrics that stand above all others."""
CURVES = ("val/loss", "train/loss")

Curve = tuple[list[int], list[float]]
"""Epochs and values."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a run's shipped file says of the run's own test rows."""

    classes: tuple[str, ...]
    rows: NDArray[np.bytes_]
    """`(N,)` digest of each row."""
    y: NDArray[np.int64]
    """`(N,)` true class."""
    right: NDArray[np.bool_]
    losses: NDArray[np.float64]
    """`(N,)` log-loss of each row; their mean is `test/log_loss`."""
    seen: NDArray[np.bytes_]
    """Digests of the rows that the run was trained on or chosen by."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the runs."""

    given: str
    """How it was named on the command line."""
    run_id: str
    name: str
    status: str
    model: str
    """`iris version 3`, or nothing if none was registered."""
    dataset: str
    """Digest."""
    about: dict[str, Any]
    """Every option, and what else the result depends on."""
    metrics: dict[str, float]
    """Those of the test split, as recorded."""
    curves: dict[str, Curve]
    """By metric, of `CURVES`."""
    answers: Answers | None
    lacking: str
    """Why there are no answers, if so."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric of one run."""

    value: float | None
    """None if it was not recorded, or is not finite."""
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Pair:
    """A run against the first one, on the same test rows."""

    run: int
    """Which, counted from 1."""
    rows: int
    wins: int
    """Rows on which it alone is right."""
    losses: int
    """Rows on which the first run alone is right."""
    p: float
    """Of the exact McNemar test."""
    accuracy: float
    """Difference, this run's minus the first's."""
    interval: tuple[float, float]
    """Of that difference, Tango's."""
    log_loss: float
    """Difference of the log-losses: below 0 this run's is the better."""
    log_loss_interval: Interval | None


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two runs or more, beside each other."""

    sides: tuple[Side, ...]
    differences: dict[str, list[Any]]
    """A value for each run, None where it has none; equal values are left out."""
    metrics: dict[str, list[Measured]]
    pairs: list[Pair]
    notes: list[str]
    """What cannot be shown or must be known, in words."""


def ask(file: Path, folder: Path) -> Answers:
    """Let a shipped file predict the test rows of the dataset that it was trained on.

    Args:
        file: the shipped one.
        folder: of the dataset.

    Raises:
        DamagedError: a file of the dataset is not the one that was written.
    """
    about = json.loads((folder / "dataset.json").read_text())
    x, y, rows = (
        np.load(check(folder / name, about["files"][name]), allow_pickle=False)
        for name in ("test.x.npy", "test.y.npy", "test.rows.npy")
    )
    run = runtimes.runner(runtimes.open_session(certificate.load(file)))
    given = runtimes.feeds(tuple(about["columns"]), x, _values(folder, about["files"]))
    said = runtimes.ask(run, given, runtimes.ROWS_AT_ONCE)
    return Answers(
        classes=tuple(about["classes"]),
        rows=compare_files.as_values(rows),
        y=y.astype(np.int64),
        right=said.label == y,
        losses=row_losses(y, said.probabilities),
        seen=compare_files.as_values(compare_files.seen(folder, about["files"])),
    )


def _values(folder: Path, files: dict[str, str]) -> dict[str, list[str]]:
    """All values of each column of text, where the dataset is a table of one's own."""
    if COLUMNS not in files:
        return {}
    columns = json.loads(check(folder / COLUMNS, files[COLUMNS]).read_bytes())["columns"]
    return {one["name"]: one["values"] for one in columns if one["kind"] == "categorical"}


def row_losses(y: NDArray[np.int64], probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """The log-loss of each row, `(N,)`, whose mean is that of `hallmark.tasks.ml.evaluation.metrics`."""
    p = probabilities.astype(np.float64)
    given = p[np.arange(len(y)), y] / p.sum(axis=1)
    losses: NDArray[np.float64] = -np.log(np.clip(given, np.finfo(np.float64).eps, 1))
    return losses


def contrast(sides: Sequence[Side]) -> Contrast:
    """Put runs beside each other; each is compared with the first on the rows that they are tested on."""
    first, *others = sides
    pairs, notes = [], [*_lacking(sides), *_exact(sides)]
    for number, side in enumerate(others, 2):
        if first.answers and side.answers:
            if found := pair(first.answers, side.answers, number):
                pairs.append(found)
            else:
                notes.append(_apart(first.answers, side.answers, number))
            if first.dataset != side.dataset:
                notes += [*_trained_on(first.answers, side.answers, 1, number)]
                notes += [*_trained_on(side.answers, first.answers, number, 1)]
    return Contrast(tuple(sides), differences([side.about for side in sides]), _metrics(sides), pairs, notes)


def differences(about: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What is not the same in all of several mappings, in the order of the first; None where one has no such key."""
    names = dict.fromkeys(name for each in about for name in each)
    values = {name: [each.get(name) for each in about] for name in names}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}


def pair(first: Answers, second: Answers, number: int) -> Pair | None:
    """Compare two runs on the same test rows, in whatever order they lie; None if the rows are not the same."""
    if first.classes != second.classes or len(first.y) != len(second.y):
        return None
    keys = _keys(first), _keys(second)
    ours, theirs = (np.argsort(each, kind="stable") for each in keys)
    if (keys[0][ours] != keys[1][theirs]).any():
        return None
    before, after = first.right[ours], second.right[theirs]
    rows, wins, losses = len(before), int((after & ~before).sum()), int((before & ~after).sum())
    change = second.losses[theirs] - first.losses[ours]
    return Pair(
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


def shared(first: Answers, second: Answers) -> int:
    """So many test rows two runs have in common, by content and class; one that occurs twice in both counts twice."""
    (ours, our_counts), (theirs, their_counts) = (
        np.unique(_keys(each), return_counts=True) for each in (first, second)
    )
    _, here, there = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
    return int(np.minimum(our_counts[here], their_counts[there]).sum())


def _metrics(sides: Sequence[Side]) -> dict[str, list[Measured]]:
    """Those that stand first where any run has them, the others where all have."""
    every = [name for name in sides[0].metrics if all(name in side.metrics for side in sides)]
    names = [name for name in FIRST if any(name in side.metrics for side in sides)]
    # Of one class alone, `test/recall/setosa`, below those of all.
    names += sorted(set(every) - set(FIRST), key=lambda name: (name.count("/"), name))
    return {name: [_measured(side, name) for side in sides] for name in names}


def _measured(side: Side, name: str) -> Measured:
    value = side.metrics.get(name)
    interval = None
    if side.answers and name == "test/accuracy":
        interval = intervals.share(side.answers.right)
    elif side.answers and name == "test/log_loss":
        interval = intervals.mean(side.answers.losses)
    return Measured(value if value is not None and np.isfinite(value) else None, interval)


def _lacking(sides: Sequence[Side]) -> list[str]:
    return [
        f"run {number}: no intervals and no paired test: {side.lacking}"
        for number, side in enumerate(sides, 1)
        if not side.answers
    ]


def _exact(sides: Sequence[Side]) -> list[str]:
    """Where rows drawn anew would all be alike."""
    notes = []
    for word, wanted in (("right", True), ("wrong", False)):
        alike = [
            str(number) for number, side in enumerate(sides, 1) if side.answers and (side.answers.right == wanted).all()
        ]
        if alike:
            notes.append(
                f"run{'s' * (len(alike) > 1)} {', '.join(alike)}: all test rows are {word}: the interval of the "
                "accuracy is the exact one of Clopper and Pearson, since rows drawn anew would all be alike"
            )
    return notes


def _apart(first: Answers, second: Answers, number: int) -> str:
    if first.classes != second.classes:
        why = "its classes are others than those of run 1"
    else:
        here, there = len(first.y), len(second.y)
        why = f"its {there:,} test rows are not the {here:,} of run 1, {shared(first, second):,} are in both"
    return f"run {number}: {why}: no paired test, and metrics of different rows beside each other"


def _trained_on(tested: Answers, other: Answers, number: int, by: int) -> list[str]:
    known = int(np.isin(tested.rows, other.seen).sum())
    if not known:
        return []
    return [
        f"run {by} was trained on {known:,} of the {len(tested.y):,} test rows of run {number}, or chosen by them: "
        "asked about those it would be favoured"
    ]


def _keys(answers: Answers) -> NDArray[np.bytes_]:
    """Row and class as one value: `(N,)`. Rows of equal content may have been given different classes."""
    rows, y = answers.rows.view(np.uint8).reshape(-1, 32), np.ascontiguousarray(answers.y)[:, None].view(np.uint8)
    return np.concatenate([rows, y], axis=1).view("S40").ravel()
