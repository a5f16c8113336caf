"""The step `score`: predictions of a shipped file for all rows of a source."""

from functools import partial
from pathlib import Path

from hallmark.tasks.common.results import Scored
from hallmark.tasks.ml.predict import output_files, predictor
from hallmark.tasks.runtime import progress
from hallmark.tasks.runtime.steps import step


@step("score", "{source}")
def score(model: Path, source: str, output: Path, unreadable: float, *, apart: bool) -> Scored:
    """Score every row and write the predictions; see `hallmark.tasks.ml.predict.predictor.score`."""
    form = output_files.choose_format(output, None)
    show = partial(progress.rows, progress.current_step.get())
    scored = predictor.score(model, source, output, form, show, apart=apart, unreadable=unreadable)
    progress.report(f"{scored.rows:,} rows, {scored.outside_training_range:,} outside the training range")
    if scored.gaps:
        progress.report(scored.describe_gaps())
    return scored
