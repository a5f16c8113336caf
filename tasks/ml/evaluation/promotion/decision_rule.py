"""The decision between champion and challenger, from their predictions for the same test rows.

1. Hard gates. One that fails rejects the challenger, whatever it predicts.
2. The exact McNemar test on the rows where exactly one of the two models is right. A *win* is a row on which only the
   challenger is right, a *loss* one on which only the champion is. If both models were equally good, each such row
   would be a win or a loss with the same chance, so that the wins follow Binomial(wins + losses, 1/2).
   McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12 (1947).
3. In the mode `non_inferior`, also the lower bound of the difference's confidence interval.

A champion that is disqualified by a finding is not compared with: see `replace`.

Rows are assumed to be independent of each other, and alpha is the risk of one judgement: of a hundred challengers that
are exactly as good as the champion, alpha = 0.05 promotes two or three at most, and rejects as many.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.fields import FLOAT32, Part
from hallmark.tasks.ml.evaluation.paired_tests import (
    fewest_disagreements,
    mcnemar,
    paired_interval,
    smallest_detectable,
)

Labels = NDArray[np.int64]
Verdict = Literal["PROMOTE", "REJECT", "HOLD"]


class Rule(Part):
    """The conditions under which a challenger replaces the champion."""

    mode: Literal["better", "non_inferior"] = Field(
        default="better",
        description="better: promote a challenger that is significantly better; non_inferior: also one for which the "
        "confidence interval excludes a loss of accuracy of delta or more",
    )
    alpha: float = Field(
        default=0.05,
        ge=1e-9,
        le=0.5,
        description="significance level of the two-sided test; the confidence level of the interval is 1 - alpha",
    )
    delta: float = Field(
        default=0.01, gt=0, lt=1, description="loss of accuracy that mode non_inferior must exclude, as a fraction"
    )
    accuracy_floor: float = Field(default=0.0, ge=0, le=1, description="minimum accuracy of the challenger")
    recall_drop: float = Field(
        default=0.1, ge=0, le=1, description="largest accepted fall of a class's recall below the champion's"
    )
    size_budget: int | None = Field(default=None, ge=1, description="maximum file size in bytes; default: no limit")
    latency_budget: float | None = Field(
        default=None,
        gt=0,
        le=FLOAT32,
        description="maximum time for one row, in milliseconds; default: no limit",
    )


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition that the challenger must meet before it is compared."""

    name: str
    passed: bool
    found: str
    """Measured value and requirement."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The decision and its reasons. Shares are of all rows."""

    verdict: Verdict
    reason: str
    """One sentence."""
    gates: tuple[Gate, ...]
    rows: int
    wins: int
    """Rows on which only the challenger is right."""
    losses: int
    """Rows on which only the champion is right."""
    p: float
    """P-value of the exact two-sided McNemar test."""
    difference: float
    """The challenger's accuracy minus the champion's: `(wins - losses) / rows`."""
    interval: tuple[float, float]
    """Lower and upper bound of the difference; see `paired_interval`."""
    smallest_detectable: float | None
    """The smallest difference that could have been significant, None if none could; see `smallest_detectable`."""
    champion_accuracy: float | None
    """None if the champion is disqualified, so that it was not compared with."""
    challenger_accuracy: float
    disqualified: str = ""
    """Reason in words why the champion is disqualified; empty if the two were compared."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    """The counts that the decision depends on."""

    rows: int
    wins: int
    losses: int
    p: float
    low: float
    smallest: float | None


def judge(
    y: Labels, champion: Labels, challenger: Labels, rule: Rule, gates: tuple[Gate, ...], classes: tuple[str, ...]
) -> Judgement:
    """Decide whether the challenger replaces the champion.

    REJECT if a gate fails or the challenger is significantly worse (`losses > wins` and `p < alpha`); PROMOTE if it is
    significantly better (`wins > losses` and `p < alpha`); otherwise HOLD. The mode `non_inferior` promotes, instead of
    holding, a challenger whose interval has a lower bound above `-delta`, unless it has more losses than wins:
    otherwise a chain of promotions, each a little worse than the last but within delta, would end far below the first
    champion. So neither mode promotes a challenger that is right on fewer of these rows.

    In the mode `better`, exchanging the models exchanges PROMOTE and REJECT if no gate fails.

    Args:
        y: `(N,)` class index of the test rows.
        champion: `(N,)` class index that the champion predicts.
        challenger: `(N,)` class index that the challenger predicts.
        rule: the bounds.
        gates: measured elsewhere (proof, loss, size, latency, signature); those of `label_gates` are added.
        classes: the C names.

    Raises:
        InputError: there are no rows, or an array does not hold one of the C classes for each row.
    """
    _check(y, champion, challenger, classes)
    by_champion, by_challenger, rows = champion == y, challenger == y, len(y)
    wins, losses = int((by_challenger & ~by_champion).sum()), int((by_champion & ~by_challenger).sum())
    every = (*gates, *label_gates(y, champion, challenger, rule, classes))
    p, interval = mcnemar(wins, losses), paired_interval(wins, losses, rows, rule.alpha)
    smallest = smallest_detectable(wins + losses, rows, rule.alpha)
    verdict, reason = _decide(_Comparison(rows, wins, losses, p, interval[0], smallest), rule, every)
    return Judgement(
        verdict=verdict,
        reason=reason,
        gates=every,
        rows=rows,
        wins=wins,
        losses=losses,
        p=p,
        difference=(wins - losses) / rows,
        interval=interval,
        smallest_detectable=smallest,
        champion_accuracy=int(by_champion.sum()) / rows,
        challenger_accuracy=int(by_challenger.sum()) / rows,
    )


def replace(
    y: Labels, challenger: Labels, rule: Rule, gates: tuple[Gate, ...], classes: tuple[str, ...], disqualified: str
) -> Judgement:
    """Decide whether the challenger replaces a champion that is disqualified, without a comparison of the two.

    PROMOTE if all gates pass. In place of the champion's, the accuracy must reach that of the most frequent class.

    Args:
        y: `(N,)` class index of the test rows.
        challenger: `(N,)` class index that the challenger predicts.
        rule: the bounds.
        gates: measured elsewhere; the accuracy floor is added.
        classes: the C names.
        disqualified: the reason, in words.

    Raises:
        InputError: as `judge`.
    """
    _check(y, challenger, challenger, classes)
    rows, right, counts = len(y), int((challenger == y).sum()), np.bincount(y, minlength=len(classes)).tolist()
    most = max(counts)
    found = f"{right} of {rows} rows are right; {most} have the most frequent class '{classes[counts.index(most)]}'"
    prior = Gate("no worse than one class", right >= most, found)
    every = (*gates, _floor(right, rows, rule), prior)
    verdict: Verdict = "REJECT" if (failed := _failed(every)) else "PROMOTE"
    reason = failed or (
        f"the champion is disqualified: {disqualified}. The challenger has no such finding and passes all gates, with "
        f"{right} of {rows} test rows right, so it need not be more accurate"
    )
    return Judgement(
        verdict=verdict,
        reason=reason,
        gates=every,
        rows=rows,
        wins=0,
        losses=0,
        p=1.0,
        difference=0.0,
        interval=(0.0, 0.0),
        smallest_detectable=None,
        champion_accuracy=None,
        challenger_accuracy=right / rows,
        disqualified=disqualified,
    )


def label_gates(
    y: Labels, champion: Labels, challenger: Labels, rule: Rule, classes: tuple[str, ...]
) -> tuple[Gate, Gate]:
    """Return the gates that depend on labels alone: the accuracy floor and the recall of each class.

    The second compares the recall of both models for each class that has rows. It does not allow for chance: in a class
    of ten rows, one more error is a fall of 0.1.

    Args:
        y: `(N,)` class index, N > 0.
        champion: `(N,)` class index that the champion predicts.
        challenger: `(N,)` class index that the challenger predicts.
        rule: the bounds.
        classes: the C names.
    """
    floor = _floor(int((challenger == y).sum()), len(y), rule)
    rows, by_champion, by_challenger = (
        np.bincount(y[chosen], minlength=len(classes)) for chosen in (slice(None), champion == y, challenger == y)
    )
    fall = np.where(rows > 0, (by_champion - by_challenger) / np.maximum(rows, 1), -np.inf)
    worst = int(fall.argmax())
    counts = f"of the {rows[worst]} rows of class '{classes[worst]}', the champion finds {by_champion[worst]}"
    guard = Gate(
        "recall of each class",
        bool(fall[worst] <= rule.recall_drop),
        f"{counts} and the challenger {by_challenger[worst]}, the largest fall of any class; "
        f"allowed is {rule.recall_drop:g}",
    )
    return floor, guard


def _floor(right: int, rows: int, rule: Rule) -> Gate:
    # A correctly rounded quotient can equal a bound written in decimals; a product may not.
    is_reached = right / rows >= rule.accuracy_floor
    return Gate("accuracy floor", is_reached, f"{right} of {rows} rows are right; the floor is {rule.accuracy_floor:g}")


def _failed(gates: tuple[Gate, ...]) -> str:
    """Describe the gates that failed; empty if all passed."""
    failed = [f"{gate.name} ({gate.found})" for gate in gates if not gate.passed]
    return f"the challenger fails {' and '.join(failed)}" if failed else ""


def _decide(counts: _Comparison, rule: Rule, gates: tuple[Gate, ...]) -> tuple[Verdict, str]:
    if failed := _failed(gates):
        return "REJECT", failed
    counted = f"only the challenger is right on {counts.wins} rows, only the champion on {counts.losses}"
    tested = f"{counted}: p = {counts.p:.4g}"
    if counts.p < rule.alpha:
        better = counts.wins > counts.losses
        verdict: Verdict = "PROMOTE" if better else "REJECT"
        return verdict, f"the challenger is {'better' if better else 'worse'}: {tested}, below {rule.alpha:g}"
    limit = _limit(counts, rule.alpha)
    if rule.mode == "better":
        return "HOLD", f"not enough evidence: {tested}, not below {rule.alpha:g}; {limit}"
    bound = f"the lower bound of the difference in accuracy is {_percent(counts.low)}"
    if counts.low <= -rule.delta:
        return "HOLD", f"not enough evidence: {bound}, not above {_percent(-rule.delta)}; {limit}"
    if counts.losses > counts.wins:
        return "HOLD", f"a challenger that is right on fewer rows is never promoted: {counted}; {limit}"
    return "PROMOTE", f"the challenger is no worse: {bound}, above {_percent(-rule.delta)}"


def _limit(counts: _Comparison, alpha: float) -> str:
    """Describe the smallest difference that these rows can show."""
    disagreements = counts.wins + counts.losses
    few = disagreements < fewest_disagreements(alpha)
    why = f"{disagreements} disagreements are too few for a significant result, and " if few else ""
    smallest = "none" if counts.smallest is None else _percent(counts.smallest)
    return f"{why}the smallest difference that {counts.rows} rows can show is {smallest}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _check(y: Labels, champion: Labels, challenger: Labels, classes: tuple[str, ...]) -> None:
    if not len(y):
        raise InputError("there is no test row to judge champion and challenger on: at least one is needed")
    for name, labels in (("test rows", y), ("champion", champion), ("challenger", challenger)):
        if labels.shape != (len(y),) or labels.dtype != np.int64:
            expected = f"one int64 label for each of the {len(y)} test rows"
            raise InputError(f"{name}: expected {expected}, found {labels.dtype} of shape {labels.shape}")
        if strange := set(labels.tolist()) - set(range(len(classes))):
            known = f"classes 0 to {len(classes) - 1} ({', '.join(classes)})"
            raise InputError(f"{name}: expected {known}, found {min(strange)}: judge models of the same classes")
