import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binomtest

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Gate, Judgement, Rule, judge, label_gates
from tests.unit.ml.evaluation.test_paired_tests import alphas, outcomes, steadily

CLASSES = ("a", "b", "c")
RANK = ("REJECT", "HOLD", "PROMOTE")
OPPOSITE = {"PROMOTE": "REJECT", "HOLD": "HOLD", "REJECT": "PROMOTE"}
Labels = tuple[np.ndarray, np.ndarray, np.ndarray]

rules = st.builds(
    Rule,
    mode=st.sampled_from(["better", "non_inferior"]),
    alpha=alphas,
    delta=st.floats(1e-4, 0.9),
    accuracy_floor=st.sampled_from([0.0, 0.5]),
    recall_drop=st.sampled_from([0.05, 1.0]),
)

measured = st.builds(Gate, name=st.just("size"), passed=st.booleans(), found=st.just("9 bytes"))


def labels(wins: int, losses: int, both: int = 0, neither: int = 0) -> Labels:
    """Return labels of test rows of class 0 with these counts of each outcome: 0 is right, 1 is wrong."""
    champion = np.repeat([1, 0, 0, 1], [wins, losses, both, neither])
    challenger = np.repeat([0, 1, 0, 1], [wins, losses, both, neither])
    return np.zeros(len(champion), dtype=np.int64), champion.astype(np.int64), challenger.astype(np.int64)


def judged(wins: int, losses: int, both: int = 0, neither: int = 0, **rule: float | str) -> Judgement:
    rule = {"recall_drop": 1.0} | rule
    return judge(*labels(wins, losses, both, neither), Rule.model_validate(rule), (), CLASSES)


@st.composite
def any_labels(draw: st.DrawFn) -> Labels:
    """Draw labels of three classes. One model may be much better than the other."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y = rng.integers(0, draw(st.integers(1, 3)), draw(st.integers(1, 120)))
    predicted = [np.where(rng.random(len(y)) < draw(st.floats(0, 1)), y, rng.integers(0, 3, len(y))) for _ in range(2)]
    return y, predicted[0], predicted[1]


@steadily
@given(counts=outcomes(), alpha=alphas)
def test_better_promotes_and_rejects_by_the_binomial_test_of_scipy(
    counts: tuple[int, int, int, int], alpha: float
) -> None:
    wins, losses = counts[:2]
    p = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    if abs(p - alpha) > 1e-9:
        significant = "PROMOTE" if wins > losses else "REJECT"
        assert judged(*counts, alpha=alpha).verdict == (significant if p < alpha else "HOLD")


@steadily
@given(case=any_labels(), alpha=alphas)
def test_better_is_symmetric_under_swapping_the_models(case: Labels, alpha: float) -> None:
    y, champion, challenger = case
    rule = Rule(alpha=alpha, recall_drop=1.0)
    one, other = judge(y, champion, challenger, rule, (), CLASSES), judge(y, challenger, champion, rule, (), CLASSES)
    assert other.verdict == OPPOSITE[one.verdict]
    assert (other.wins, other.losses, other.p) == (one.losses, one.wins, one.p)
    assert other.difference == -one.difference
    assert other.interval == (-one.interval[1], -one.interval[0])
    assert other.smallest_detectable == one.smallest_detectable
    assert (other.champion_accuracy, other.challenger_accuracy) == (one.challenger_accuracy, one.champion_accuracy)


@steadily
@given(case=any_labels(), rule=rules, gates=st.lists(measured, max_size=2))
def test_no_rule_promotes_with_more_losses_than_wins_or_a_failed_gate(
    case: Labels, rule: Rule, gates: list[Gate]
) -> None:
    found = judge(*case, rule, tuple(gates), CLASSES)
    if found.verdict == "PROMOTE":
        assert found.wins >= found.losses
        assert found.challenger_accuracy >= max(found.champion_accuracy, rule.accuracy_floor)
        assert all(gate.passed for gate in found.gates)
    if not all(gate.passed for gate in found.gates):
        assert found.verdict == "REJECT"
    assert found.gates[: len(gates)] == tuple(gates)
    assert found.reason
    assert "\n" not in found.reason


@steadily
@given(counts=outcomes(), alpha=alphas, delta=st.floats(1e-4, 0.9))
def test_non_inferior_promotes_and_rejects_all_that_better_does(
    counts: tuple[int, int, int, int], alpha: float, delta: float
) -> None:
    better = judged(*counts, alpha=alpha)
    found = judged(*counts, alpha=alpha, delta=delta, mode="non_inferior")
    if better.verdict == "HOLD":
        no_worse = found.interval[0] > -delta and found.wins >= found.losses
        assert found.verdict == ("PROMOTE" if no_worse else "HOLD")
    else:
        assert found.verdict == better.verdict


@steadily
@given(counts=outcomes(), rule=rules)
def test_one_more_correct_row_never_worsens_the_verdict(counts: tuple[int, int, int, int], rule: Rule) -> None:
    wins, losses, both, neither = counts
    rule = rule.model_copy(update={"recall_drop": 1.0})
    before = judge(*labels(*counts), rule, (), CLASSES)
    better = [(wins, losses - 1, both + 1, neither)] * (losses > 0)
    better += [(wins + 1, losses, both, neither - 1)] * (neither > 0)
    for after in better:
        assert RANK.index(judge(*labels(*after), rule, (), CLASSES).verdict) >= RANK.index(before.verdict)


@steadily
@given(case=any_labels(), rule=rules, seed=st.integers(0, 2**32))
def test_the_order_of_the_rows_does_not_matter(case: Labels, rule: Rule, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(case[0]))
    y, champion, challenger = case
    assert judge(y[order], champion[order], challenger[order], rule, (), CLASSES) == judge(*case, rule, (), CLASSES)


@steadily
@given(case=any_labels(), rule=rules)
def test_a_judgement_survives_a_json_round_trip(case: Labels, rule: Rule) -> None:
    found = judge(*case, rule, (), CLASSES)
    read = json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False))
    tuples = {"gates": tuple(Gate(**gate) for gate in read["gates"]), "interval": tuple(read["interval"])}
    assert Judgement(**read | tuples) == found
    assert Rule.model_validate_json(rule.model_dump_json()) == rule


def test_a_p_value_equal_to_alpha_is_not_significant() -> None:
    assert judged(5, 0, 25, alpha=0.0625).verdict == "HOLD"
    assert judged(5, 0, 25, alpha=0.063).verdict == "PROMOTE"
    assert judged(0, 5, 25, alpha=0.0625).verdict == "HOLD"


def test_non_inferior_promotes_a_newer_model_that_is_no_worse() -> None:
    assert judged(20, 20, 9960, mode="non_inferior").verdict == "PROMOTE"
    assert judged(0, 0, 10_000, mode="non_inferior").verdict == "PROMOTE"
    assert judged(20, 20, 9960).verdict == "HOLD"
    # Within delta, but right on fewer rows: repeated promotions of this kind would lower the accuracy.
    fewer = judged(19, 20, 9961, mode="non_inferior")
    assert fewer.interval[0] > -0.01
    assert fewer.verdict == "HOLD"
    assert "fewer rows" in fewer.reason


# What HOLD reports about the test rows.


@pytest.mark.parametrize(
    ("counts", "rule", "message"),
    [
        ((2, 1, 27), {}, "3 disagreements are too few for a significant result, and the smallest difference"),
        ((2, 1, 27), {}, "30 rows can show is 20%"),
        ((9, 4, 17), {}, "p = 0.2668, not below 0.05; the smallest difference that 30 rows can show is 30%"),
        (
            (5, 1, 24),
            {},
            "only the champion on 1: p = 0.2188, not below 0.05; the smallest difference that 30 rows can show is 20%",
        ),
        ((3, 0, 2), {}, "that 5 rows can show is none"),
        (
            (2, 1, 27),
            {"mode": "non_inferior"},
            "not enough evidence: the lower bound of the difference in accuracy is -11.3%, not above -1%;",
        ),
    ],
)
def test_hold_explains_what_the_test_rows_can_show(
    counts: tuple[int, int, int], rule: dict[str, Any], message: str
) -> None:
    found = judged(*counts, **rule)
    assert found.verdict == "HOLD"
    assert message in found.reason


# Gates.


def test_a_failed_gate_rejects_even_the_best_challenger_and_the_reason_names_every_failed_gate() -> None:
    gates = (Gate("proof", passed=True, found="holds"), Gate("size", passed=False, found="9 bytes of 8"))
    found = judge(*labels(50, 0, 0, 10), Rule(accuracy_floor=0.9), gates, CLASSES)
    assert found.verdict == "REJECT"
    assert "size (9 bytes of 8)" in found.reason
    assert "accuracy floor (50 of 60 rows are right; the floor is 0.9)" in found.reason
    assert "proof" not in found.reason


def test_rates_equal_to_a_bound_pass() -> None:
    # In float64, 0.29 * 100 is below 29 and 0.07 * 100 above 7.
    for right in range(101):
        bound = right / 100
        y, _, challenger = labels(right, 0, 0, 100 - right)
        assert label_gates(y, y, challenger, Rule(accuracy_floor=bound), CLASSES)[0].passed
        lost = labels(0, right, 100 - right)
        assert label_gates(*lost, Rule(recall_drop=bound), CLASSES)[1].passed
        if right:
            assert not label_gates(*lost, Rule(recall_drop=bound - 0.001), CLASSES)[1].passed


def test_the_recall_guard_sees_a_class_that_the_accuracy_hides() -> None:
    y = np.repeat([0, 2], [990, 10]).astype(np.int64)
    champion, challenger = y.copy(), y.copy()
    champion[:100] = 1
    challenger[-2:] = 0
    found = judge(y, champion, challenger, Rule(), (), CLASSES)
    assert (found.wins, found.losses, found.verdict) == (100, 2, "REJECT")
    assert "of the 10 rows of class 'c', the champion finds 10 and the challenger 8" in found.reason
    assert judge(y, champion, challenger, Rule(recall_drop=0.2), (), CLASSES).verdict == "PROMOTE"


def test_the_recall_guard_covers_only_classes_that_have_rows() -> None:
    y, champion, challenger = np.array([1, 1]), np.array([0, 0]), np.array([1, 1])
    guard = label_gates(y, champion, challenger, Rule(), CLASSES)[1]
    assert guard.passed
    assert "of the 2 rows of class 'b', the champion finds 0 and the challenger 2" in guard.found


# Bad input.


@pytest.mark.parametrize(
    ("champion", "message"),
    [
        (np.array([0, 1]), "champion: expected one int64 label for each of the 3 test rows, found int64 of shape (2,)"),
        (np.array([[0, 1, 2]]), "found int64 of shape (1, 3)"),
        (np.array([0, np.nan, 1]), "found float64 of shape (3,)"),
        (np.array([0, 1, 3]), "champion: expected classes 0 to 2 (a, b, c), found 3"),
        (np.array([0, 1, -1]), "found -1"),
    ],
)
def test_labels_that_cannot_be_judged_are_refused(champion: np.ndarray, message: str) -> None:
    y = np.array([0, 1, 2])
    with pytest.raises(InputError) as refused:
        judge(y, champion, y, Rule(), (), CLASSES)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_rows_are_refused() -> None:
    no_labels = np.zeros(0, dtype=np.int64)
    with pytest.raises(InputError, match="no test row"):
        judge(no_labels, no_labels, no_labels, Rule(), (), CLASSES)


@pytest.mark.parametrize(
    "values",
    [
        {"mode": "best"},
        {"alpha": 0},
        {"alpha": 0.6},
        {"alpha": math.nan},
        {"delta": 0},
        {"delta": math.nan},
        {"accuracy_floor": 1.1},
        {"accuracy_floor": math.nan},
        {"recall_drop": -0.1},
        {"size_budget": 0},
        {"latency_budget": 0},
        {"latency_budget": math.inf},
        {"latency_budget": math.nan},
        {"floor": 0.9},
    ],
)
def test_an_invalid_rule_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Rule(**values)
