"""Compare challenger and champion on test rows that neither was trained on."""

from dataclasses import asdict

from hallmark.tasks.common.records import Dataset
from hallmark.tasks.common.results import Judged
from hallmark.tasks.ml.evaluation.promotion import compare_files, disqualification
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Gate, Rule
from hallmark.tasks.promotion import champions
from hallmark.tasks.runtime import progress
from hallmark.tasks.runtime.steps import step
from hallmark.tasks.tracking import training_rows
from hallmark.tasks.tracking.registry import model_registry


@step("judge", "{name} version {challenger}")
def judge(name: str, champion: int, challenger: int, dataset: Dataset, rule: Rule) -> Judged:
    """Judge two registered versions by their files; see `compare_files`. Nothing is decided or recorded.

    A champion that is disqualified is not compared with; see `disqualification`.
    """
    before, after = champions.findings(name, champion), champions.findings(name, challenger)
    replaceable = disqualification.allows_replacement(before, after)
    compared = [challenger] if replaceable else [champion, challenger]
    rows = compare_files.unseen(dataset, [training_rows.find(name, version) for version in compared])
    gates = [_not_rolled_back(name, challenger), _no_new_finding(before, after)]
    files = {version: f"models:/{name}/{version}" for version in (champion, challenger)}  # downloaded and checked above
    challenging = model_registry.fetch(files[challenger])
    if replaceable:
        # The inputs of a broken file are not known for sure.
        in_service = None if disqualification.BROKEN_PROOF in before else model_registry.fetch(files[champion])
        words = disqualification.describe(before - after)
        judgement = compare_files.replace(in_service, challenging, dataset, rows, rule, gates, disqualified=words)
    else:
        in_service = model_registry.fetch(files[champion])
        judgement = compare_files.compare(in_service, challenging, dataset, rows, rule, gates)
    skipped = f" ({rows.refused} test rows skipped: one of the models was trained on them)" * bool(rows.refused)
    progress.report(f"{judgement.verdict}: {judgement.reason}{skipped}")
    return Judged(
        verdict=judgement.verdict,
        reason=judgement.reason,
        champion=champion,
        challenger=challenger,
        rule=rule.model_dump(mode="json"),
        judgement=asdict(judgement),
        refused_rows=rows.refused,
    )


def _not_rolled_back(name: str, challenger: int) -> Gate:
    demoted = champions.demoted_version(name, challenger)
    rolled_back = f"version {demoted}, which has the same file, was rolled back"
    return Gate(
        "not rolled back", demoted is None, "this file was never rolled back" if demoted is None else rolled_back
    )


def _no_new_finding(champion: frozenset[str], challenger: frozenset[str]) -> Gate:
    """Check that a challenger does not win by a leak that the champion does not have."""
    new = disqualification.describe(challenger - champion)
    return Gate("no new disqualifying finding", not new, new or "none")
