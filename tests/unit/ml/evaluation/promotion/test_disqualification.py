"""Which findings disqualify a champion, and the judgement without a comparison that follows from them."""

import dataclasses
import json

import numpy as np
import pytest

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.evaluation.findings import before_training, table_data
from hallmark.tasks.ml.evaluation.promotion import decision_rule, disqualification
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Gate, Rule

LEAK, TESTED_ON_TRAINING = "target_given_away", "accuracy_on_training_rows"
CLASSES = ("no", "yes")
Y = np.array([0] * 6 + [1] * 4)


def test_every_code_is_one_of_a_finding() -> None:
    checks = [*before_training.CHECKS, *table_data.COLUMN_CHECKS]
    codes = {check.__name__.removeprefix("_") for check in checks} | {disqualification.BROKEN_PROOF}
    assert disqualification.FINDINGS.keys() <= codes


def test_findings_that_say_nothing_about_new_rows_are_described_and_others_left_out() -> None:
    found = ["identifier_column", LEAK, "test_split_too_small", TESTED_ON_TRAINING]
    assert disqualification.disqualifying(found) == {LEAK, TESTED_ON_TRAINING}
    assert disqualification.describe(found) == (
        "a column gives the target away (target_given_away) and it was tested on the rows that it was trained on "
        "(accuracy_on_training_rows)"
    )
    assert not disqualification.describe(["overfits"])


@pytest.mark.parametrize(
    ("champion", "challenger", "allowed"),
    [
        ([LEAK], [], True),
        ([LEAK, "overfits"], ["identifier_column"], True),
        ([LEAK, disqualification.BROKEN_PROOF], [LEAK], True),
        ([LEAK], [LEAK], False),
        ([LEAK], [TESTED_ON_TRAINING], False),
        (["overfits"], [], False),
        ([], [LEAK], False),
    ],
)
def test_only_a_challenger_with_fewer_findings_need_not_be_better(
    champion: list[str], challenger: list[str], *, allowed: bool
) -> None:
    assert disqualification.allows_replacement(champion, challenger) == allowed


def replaced(wrong: int, *gates: Gate, rule: Rule | None = None) -> decision_rule.Judgement:
    """Judge a challenger that is wrong on the first rows."""
    labels = Y.copy()
    labels[:wrong] = 1 - labels[:wrong]
    judgement = decision_rule.replace(Y, labels, rule or Rule(), gates, CLASSES, "a column gives the target away")
    json.dumps(dataclasses.asdict(judgement))
    return judgement


def test_a_disqualified_champion_is_replaced_by_a_challenger_that_passes_all_gates() -> None:
    judgement = replaced(3, Gate("proof holds", passed=True, found="all checks passed"))
    assert (judgement.verdict, judgement.rows, judgement.challenger_accuracy) == ("PROMOTE", 10, 0.7)
    assert (judgement.champion_accuracy, judgement.disqualified) == (None, "a column gives the target away")
    assert judgement.reason.startswith("the champion is disqualified: a column gives the target away. The challenger")
    assert "7 of 10 test rows right" in judgement.reason
    assert [gate.name for gate in judgement.gates] == ["proof holds", "accuracy floor", "no worse than one class"]


def test_a_challenger_that_fails_a_gate_does_not_replace_a_disqualified_champion() -> None:
    failed = Gate("not rolled back", passed=False, found="version 2 was rolled back")
    for judgement, gate in (
        (replaced(0, failed), "not rolled back"),
        (replaced(3, rule=Rule(accuracy_floor=0.8)), "accuracy floor"),
        (replaced(5), "no worse than one class"),
    ):
        assert (judgement.verdict, judgement.reason.startswith(f"the challenger fails {gate} (")) == ("REJECT", True)


def test_labels_of_unknown_classes_are_refused() -> None:
    with pytest.raises(InputError, match="expected classes 0 to 1"):
        decision_rule.replace(Y, Y + 2, Rule(), (), CLASSES, "reason")
