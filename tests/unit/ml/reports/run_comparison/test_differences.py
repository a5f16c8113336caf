"""Runs beside each other: counted by hand, on rows that lie in another order, and without what they lack."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from hallmark.tasks.common.digests import digest_of
from hallmark.tasks.ml.evaluation import metrics, paired_tests
from hallmark.tasks.ml.reports.run_comparison import differences, tables
from hallmark.tasks.ml.reports.run_comparison.differences import Answers, Side


def words(rows: list[int]) -> NDArray[np.bytes_]:
    return np.frombuffer(b"".join(bytes.fromhex(digest_of(row)) for row in rows), np.uint8).view("S32").ravel()


def answers(
    rows: list[int], right: list[int], losses: list[float] | None = None, seen: list[int] | None = None
) -> Answers:
    return Answers(
        classes=("a", "b"),
        rows=words(rows),
        y=np.array(rows, dtype=np.int64) % 2,
        right=np.array(right, dtype=bool),
        losses=np.array(losses or [0.1 * (row + 1) for row in rows]),
        seen=words(seen or [100]),
    )


def side(said: Answers | None, **changed: object) -> Side:
    plain = Side(
        given="x",
        run_id="0" * 32,
        name="x",
        status="FINISHED",
        model="",
        dataset="d",
        about={"training.lr": 0.1, "training.seed": 0},
        metrics={"test/accuracy": 0.5, "test/log_loss": 0.25},
        curves={},
        answers=said,
        lacking="" if said else "it shipped no file",
    )
    return replace(plain, **changed)  # type: ignore[arg-type]


def test_two_runs_are_counted_by_hand() -> None:
    first = answers([0, 1, 2, 3, 4, 5, 6, 7], [1, 1, 1, 0, 0, 0, 0, 1], [1.0] * 8)
    second = answers([7, 6, 5, 4, 3, 2, 1, 0], [0, 1, 1, 1, 1, 0, 1, 1], [1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    found = differences.pair(first, second, 2)
    assert found is not None
    # Right of rows 0 to 7: before 1 1 1 0 0 0 0 1, after 1 1 0 1 1 1 1 0.
    assert (found.rows, found.wins, found.losses) == (8, 4, 2)
    assert found.p == paired_tests.mcnemar(4, 2) == pytest.approx((2 * (1 + 6 + 15)) / 64)
    assert found.accuracy == pytest.approx(0.25)
    assert found.interval == paired_tests.paired_interval(4, 2, 8, 0.05)
    assert found.log_loss == pytest.approx(1 / 8)


def test_rows_that_occur_twice_are_paired_by_content() -> None:
    found = differences.pair(answers([1, 2, 1], [0, 1, 0]), answers([2, 1, 1], [1, 1, 1]), 2)
    assert found is not None
    assert (found.rows, found.wins, found.losses) == (3, 2, 0)


@pytest.mark.parametrize(
    "other",
    [
        answers([0, 1, 2, 9], [1, 1, 1, 1]),
        answers([0, 1, 2], [1, 1, 1]),
        answers([0, 1, 2, 2], [1, 1, 1, 1]),
        replace(answers([0, 1, 2, 3], [1] * 4), classes=("a", "c")),
        replace(answers([0, 1, 2, 3], [1] * 4), y=np.array([1, 1, 0, 1])),
    ],
)
def test_other_rows_are_not_compared_row_by_row(other: Answers) -> None:
    assert differences.pair(answers([0, 1, 2, 3], [1, 0, 1, 1]), other, 2) is None


def test_rows_in_common_are_counted() -> None:
    first, second = answers([1, 1, 2, 3, 4], [1] * 5), answers([1, 1, 1, 3, 9], [1] * 5)
    assert differences.shared(first, second) == differences.shared(second, first) == 3


def test_where_rows_differ_it_is_said_and_who_was_trained_on_them() -> None:
    first = answers([0, 1, 2], [1, 0, 1], seen=[5])
    second = answers([2, 3, 4, 5], [1, 0, 1, 1], seen=[0, 1, 7])
    notes = differences.contrast([side(first), side(second, dataset="e")]).notes
    assert notes == [
        "run 2: its 4 test rows are not the 3 of run 1, 1 are in both: no paired test, and metrics of different rows "
        "beside each other",
        "run 2 was trained on 2 of the 3 test rows of run 1, or chosen by them: asked about those it would be favoured",
        "run 1 was trained on 1 of the 4 test rows of run 2, or chosen by them: asked about those it would be favoured",
    ]


def test_a_run_without_a_file_has_metrics_and_no_interval() -> None:
    found = differences.contrast([side(answers([0, 1], [1, 0])), side(None)])
    assert not found.pairs
    assert found.notes == ["run 2: no intervals and no paired test: it shipped no file"]
    with_file, without = found.metrics["test/accuracy"]
    assert with_file.interval
    assert (without.value, without.interval) == (0.5, None)
    cells = tables.metrics(found).rows
    assert [row[2] for row in cells] == ["0.5000", "none", "none", "0.2500", "none", "none"]


def test_no_number_is_shown_that_is_none() -> None:
    broken = side(answers([0], [1]), metrics={"test/accuracy": float("nan"), "test/loss": float("inf")})
    found = differences.contrast([broken, side(answers([0], [0]))])
    assert found.metrics["test/accuracy"][0].value is None
    shown = [tables.metrics(found), tables.pairs(found)]
    cells = {cell for table in shown if table for row in table.rows for cell in row}
    assert not cells & {"nan", "inf"}
    assert "run 1: all test rows are right" in found.notes[0]
    assert "run 2: all test rows are wrong" in found.notes[1]


def test_metrics_of_all_runs_are_shown_those_that_matter_first() -> None:
    more = {"test/recall/a": 1.0, "test/brier": 0.1, "test/loss": 0.3, "test/accuracy": 0.9}
    found = differences.contrast([side(None, metrics=more), side(None, metrics=more | {"test/other": 0.0})])
    assert list(found.metrics) == ["test/accuracy", "test/loss", "test/brier", "test/recall/a"]
    shown = [row[0] for row in tables.metrics(found).rows]
    assert shown == ["accuracy", "loss", "brier"]
    (recall,) = tables.classes(found)
    assert (recall.caption, recall.rows) == ("Test recall of each class", (("a", "1.0000", "1.0000"),))


def test_only_what_differs_is_named() -> None:
    first, second = side(None), side(None, about={"training.lr": 0.2, "training.seed": 0, "torch": "2.9"})
    found = differences.contrast([first, second])
    assert found.differences == {"training.lr": [0.1, 0.2], "torch": [None, "2.9"]}
    table = tables.options(found)
    assert table
    assert table.rows == (("training.lr", "0.1", "0.2"), ("torch", "none", "2.9"))
    assert tables.options(differences.contrast([first, first])) is None


def test_the_mean_of_the_rows_is_the_log_loss() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=(40, 3)).astype(np.float32) * 40  # some probabilities are 0
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    y = np.arange(40) % 3
    expected = metrics.score(y, p, ("a", "b", "c")).metrics["log_loss"]
    assert differences.row_losses(y, p).mean() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "none"), (0.0, "0.0000"), (0.96551, "0.9655"), (0.0004, "0.0004"), (3.2e-05, "3.2e-05"), (-1.0, "-1.0000")],
)
def test_a_number_is_short_and_never_rounded_away(value: float | None, shown: str) -> None:
    assert tables.number(value) == shown
