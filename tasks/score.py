"""Scoring: the predictions of a shipped file for many rows."""

from functools import partial
from pathlib import Path

from prefect import task

from hallmark.tasks.common.records import Scored
from hallmark.tasks.ml.predict import output_files, predictor
from hallmark.tasks.runtime import progress


@task(task_run_name="score {source}")
def score(model: Path, source: str, output: Path) -> Scored:
    """Write the predictions, whole or not at all; see `hallmark.tasks.ml.predict.predictor.score`."""
    form = output_files.choose(output, None)
    scored = predictor.score(model, source, output, form, partial(progress.rows, "score"))
    progress.say("score", f"{scored.rows:,} rows, {scored.outside_training_range:,} outside the training range")
    return scored
