"""Scoring: the predictions of a shipped file for many rows."""

from functools import partial
from pathlib import Path

from prefect import task

from tasks import progress
from tasks.ml import scoring, writers
from tasks.ml.records import Scored


@task(task_run_name="score {source}")
def score(model: Path, source: str, output: Path) -> Scored:
    """Write the predictions, whole or not at all; see `tasks.ml.scoring.score`."""
    form = writers.choose(output, None)
    scored = scoring.score(model, source, output, form, partial(progress.rows, "score"))
    progress.say("score", f"{scored.rows:,} rows, {scored.outside_training_range:,} outside the training range")
    return scored
