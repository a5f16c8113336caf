"""Comparisons of runs against counts by hand, with reordered rows and with missing results."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from hallmark.tasks.common.digests import digest_of
from hallmark.tasks.ml.evaluation import metrics, paired_tests
from hallmark.tasks.ml.reports.formatting import number
from hallmark.tasks.ml.reports.run_comparison import comparison, comparison_tables
from hallmark.tasks.ml.reports.run_comparison.comparison import ComparedRun, RowResults


def digests(rows: list[int]) -> NDArray[np.bytes_]:
    return np.frombuffer(b"".join(bytes.fromhex(digest_of(row)) for row in rows), np.uint8).view("S32").ravel()


def results(
    rows: list[int], correct: list[int], losses: list[float] | None = None, trained_on: list[int] | None = None
) -> RowResults:
    return RowResults(
        classes=("a", "b"),
        rows=digests(rows),
        y=np.array(rows, dtype=np.int64) % 2,
        values={
            "test/accuracy": np.array(correct, dtype=np.float64),
            "test/log_loss": np.array(losses or [0.1 * (row + 1) for row in rows]),
        },
        trained_on=digests(trained_on or [100]),
    )


def run(found: RowResults | None, **changed: object) -> ComparedRun:
    plain = ComparedRun(
        given="x",
        run_id="0" * 32,
        name="x",
        status="FINISHED",
        model="",
        dataset="d",
        about={"training.lr": 0.1, "training.seed": 0},
        metrics={"test/accuracy": 0.5, "test/log_loss": 0.25},
        curves={},
        results=found,
        missing="" if found else "it shipped no file",
    )
    return replace(plain, **changed)  # type: ignore[arg-type]


def test_pair_agrees_with_counts_by_hand() -> None:
    first = results([0, 1, 2, 3, 4, 5, 6, 7], [1, 1, 1, 0, 0, 0, 0, 1], [1.0] * 8)
    second = results([7, 6, 5, 4, 3, 2, 1, 0], [0, 1, 1, 1, 1, 0, 1, 1], [1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    found = comparison.pair(first, second, 2)
    assert found is not None
    # Correct on rows 0 to 7: 1 1 1 0 0 0 0 1 before, 1 1 0 1 1 1 1 0 after.
    assert (found.rows, found.wins, found.losses) == (8, 4, 2)
    assert found.p == paired_tests.mcnemar(4, 2) == pytest.approx((2 * (1 + 6 + 15)) / 64)
    assert found.accuracy == pytest.approx(0.25)
    assert found.interval == paired_tests.paired_interval(4, 2, 8, 0.05)
    assert found.log_loss == pytest.approx(1 / 8)


def test_duplicate_rows_are_paired_by_content() -> None:
    found = comparison.pair(results([1, 2, 1], [0, 1, 0]), results([2, 1, 1], [1, 1, 1]), 2)
    assert found is not None
    assert (found.rows, found.wins, found.losses) == (3, 2, 0)


@pytest.mark.parametrize(
    "other",
    [
        results([0, 1, 2, 9], [1, 1, 1, 1]),
        results([0, 1, 2], [1, 1, 1]),
        results([0, 1, 2, 2], [1, 1, 1, 1]),
        replace(results([0, 1, 2, 3], [1] * 4), classes=("a", "c")),
        replace(results([0, 1, 2, 3], [1] * 4), y=np.array([1, 1, 0, 1])),
    ],
)
def test_different_rows_are_not_paired(other: RowResults) -> None:
    assert comparison.pair(results([0, 1, 2, 3], [1, 0, 1, 1]), other, 2) is None


def test_common_rows_are_counted() -> None:
    first, second = results([1, 1, 2, 3, 4], [1] * 5), results([1, 1, 1, 3, 9], [1] * 5)
    assert comparison.count_common_rows(first, second) == comparison.count_common_rows(second, first) == 3


def test_notes_name_different_rows_and_leakage() -> None:
    first = results([0, 1, 2], [1, 0, 1], trained_on=[5])
    second = results([2, 3, 4, 5], [1, 0, 1, 1], trained_on=[0, 1, 7])
    notes = comparison.compare([run(first), run(second, dataset="e")]).notes
    assert notes == [
        "run 2: no paired test, and its metrics are for different rows: its 4 test rows are not the 3 of run 1 "
        "(1 in common)",
        "run 2 used 2 of the 3 test rows of run 1 for training or validation: those rows would flatter it",
        "run 1 used 1 of the 4 test rows of run 2 for training or validation: those rows would flatter it",
    ]


def test_run_without_a_file_has_metrics_but_no_intervals() -> None:
    found = comparison.compare([run(results([0, 1], [1, 0])), run(None)])
    assert not found.pairs
    assert found.notes == ["run 2: no intervals and no paired test: it shipped no file"]
    with_file, without = found.metrics["test/accuracy"]
    assert with_file.interval
    assert (without.value, without.interval) == (0.5, None)
    cells = comparison_tables.metrics(found).rows
    assert [row[2] for row in cells] == ["0.5000", "none", "none", "0.2500", "none", "none"]


def test_values_that_are_not_finite_are_shown_as_none() -> None:
    broken = run(results([0], [1]), metrics={"test/accuracy": float("nan"), "test/loss": float("inf")})
    found = comparison.compare([broken, run(results([0], [0]))])
    assert found.metrics["test/accuracy"][0].value is None
    shown = [comparison_tables.metrics(found), comparison_tables.pairs(found)]
    cells = {cell for table in shown if table for row in table.rows for cell in row}
    assert not cells & {"nan", "inf"}
    assert found.notes[0].startswith("run 1: the interval of the accuracy is exact (Clopper-Pearson)")
    assert [note.split("resampling ")[1].split()[0] for note in found.notes] == ["all-correct", "all-wrong"]


def test_common_metrics_are_listed_main_metrics_first() -> None:
    recorded = {"test/recall/a": 1.0, "test/brier": 0.1, "test/loss": 0.3, "test/accuracy": 0.9}
    found = comparison.compare([run(None, metrics=recorded), run(None, metrics=recorded | {"test/other": 0.0})])
    assert list(found.metrics) == ["test/accuracy", "test/loss", "test/brier", "test/recall/a"]
    shown = [row[0] for row in comparison_tables.metrics(found).rows]
    assert shown == ["accuracy", "loss", "brier"]
    (recall,) = comparison_tables.classes(found)
    assert (recall.caption, recall.rows) == ("Test recall by class", (("a", "1.0000", "1.0000"),))


def test_only_differences_are_listed() -> None:
    first, second = run(None), run(None, about={"training.lr": 0.2, "training.seed": 0, "torch": "2.9"})
    found = comparison.compare([first, second])
    assert found.differences == {"training.lr": [0.1, 0.2], "torch": [None, "2.9"]}
    table = comparison_tables.options(found)
    assert table
    assert table.rows == (("training.lr", "0.1", "0.2"), ("torch", "none", "2.9"))
    assert comparison_tables.options(comparison.compare([first, first])) is None


def test_mean_of_row_losses_is_the_log_loss() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=(40, 3)).astype(np.float32) * 40  # some probabilities are 0
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    y = np.arange(40) % 3
    expected = metrics.score(y, p, ("a", "b", "c")).metrics["log_loss"]
    found = comparison.row_values(metrics.Predictions(y, p))["test/log_loss"]
    assert found.mean() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "none"), (0.0, "0.0000"), (0.96551, "0.9655"), (0.0004, "0.0004"), (3.2e-05, "3.2e-05"), (-1.0, "-1.0000")],
)
def test_numbers_are_short_but_never_rounded_to_zero(value: float | None, shown: str) -> None:
    assert number(value) == shown
