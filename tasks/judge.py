"""Compare challenger and champion on test rows that neither was trained on."""

from dataclasses import asdict

from hallmark.tasks.common.records import Dataset
from hallmark.tasks.common.results import Judged
from hallmark.tasks.ml.evaluation.promotion import compare_files
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Gate, Rule
from hallmark.tasks.promotion import champions
from hallmark.tasks.runtime import progress
from hallmark.tasks.runtime.steps import step
from hallmark.tasks.tracking import model_registry, training_rows


@step("judge", "{name} version {challenger}")
def judge(name: str, champion: int, challenger: int, dataset: Dataset, rule: Rule) -> Judged:
    """Judge two registered versions by their files; see `compare_files.compare`. Nothing is decided or recorded."""
    versions = (champion, challenger)
    rows = compare_files.unseen(dataset, [training_rows.find(name, version) for version in versions])
    files = [model_registry.fetch(f"models:/{name}/{version}", refresh=True) for version in versions]
    demoted = champions.demoted_version(name, challenger)
    rolled_back = f"version {demoted}, which has the same file, was rolled back"
    found = "this file was never rolled back" if demoted is None else rolled_back
    gate = Gate("not rolled back", passed=demoted is None, found=found)
    judgement = compare_files.compare(*files, dataset, rows, rule, [gate])
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
