"""Step 10 of a retraining: compare challenger and champion as files, on rows that neither has seen."""

from dataclasses import asdict

from prefect import task

from hallmark.tasks.common.records import Dataset, Judged
from hallmark.tasks.ml.evaluation.promotion import compare_files
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Gate, Rule
from hallmark.tasks.promotion import champions
from hallmark.tasks.runtime import progress
from hallmark.tasks.tracking import model_registry, training_rows


@task(task_run_name="judge {name} version {challenger}")
def judge(name: str, champion: int, challenger: int, dataset: Dataset, rule: Rule) -> Judged:
    """Judge two registered versions on the dataset's test rows; see `compare_files.compare`. Decides nothing."""
    versions = (champion, challenger)
    rows = compare_files.unseen(dataset, [training_rows.find(name, version) for version in versions])
    files = [model_registry.fetch(f"models:/{name}/{version}", anew=True) for version in versions]
    demoted = champions.is_demoted(name, challenger)
    found = "this file was never rolled back" if demoted is None else f"version {demoted}, the same file, was"
    gate = Gate("not rolled back", passed=demoted is None, found=found)
    said = compare_files.compare(*files, dataset, rows, rule, [gate])
    left_out = f" ({rows.refused} rows left out that one was trained on)" * bool(rows.refused)
    progress.say("judge", f"{said.verdict}: {said.reason}{left_out}")
    return Judged(
        said.verdict, said.reason, champion, challenger, rule.model_dump(mode="json"), asdict(said), rows.refused
    )
