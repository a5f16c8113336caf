"""Write the model card."""

from datetime import UTC, datetime

from hallmark.tasks.common.files import whole_file
from hallmark.tasks.common.records import CARD
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.runtime import progress
from hallmark.tasks.runtime.steps import step
from hallmark.tasks.tracking import run_logger


@step("card", "{experiment.name}")
def card(experiment: Experiment, outcome: Outcome) -> None:
    """Write `card.html` and log it to the run; see `hallmark.tasks.ml.reports.model_card.build`."""
    from hallmark.tasks.ml.reports import model_card

    path = outcome.fit.weights.parent / CARD
    with whole_file(path) as temporary:
        temporary.write_text(model_card.build(experiment, outcome, datetime.now(UTC)), encoding="utf-8")
    run_logger.log_card(outcome.run, path)
    progress.report(f"{path.stat().st_size:,} bytes")
