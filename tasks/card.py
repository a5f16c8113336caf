"""Step 10: write the card of the registered model, for people."""

from datetime import UTC, datetime

from prefect import task

from hallmark.tasks.common.files import whole_file
from hallmark.tasks.common.records import Outcome
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.runtime import progress
from hallmark.tasks.tracking import run_logger


@task(task_run_name="card {experiment.name}")
def card(experiment: Experiment, outcome: Outcome) -> None:
    """Write `card.html` and keep it with the run; see `hallmark.tasks.ml.reports.model_card.build`."""
    from hallmark.tasks.ml.reports import model_card as cards

    path = outcome.fit.weights.parent / "card.html"
    with whole_file(path) as temporary:
        temporary.write_text(cards.build(experiment, outcome, datetime.now(UTC)), encoding="utf-8")
    run_logger.log_card(outcome.run, path)
    progress.say("card", f"{path.stat().st_size:,} bytes")
