"""Step 10: write the card of the registered model, for people."""

from datetime import UTC, datetime

from prefect import task

from tasks import progress, tracking
from tasks.ml.config import Experiment
from tasks.ml.files import whole_file
from tasks.ml.records import Outcome


@task(task_run_name="card {experiment.name}")
def card(experiment: Experiment, outcome: Outcome) -> None:
    """Write `card.html` and keep it with the run; see `tasks.ml.card.build`."""
    from tasks.ml import card as cards

    path = outcome.fit.weights.parent / "card.html"
    with whole_file(path) as temporary:
        temporary.write_text(cards.build(experiment, outcome, datetime.now(UTC)), encoding="utf-8")
    tracking.log_card(outcome.run, path)
    progress.say("card", f"{path.stat().st_size:,} bytes")
