"""Models trained for tests of their cards."""

import uuid
from datetime import UTC, datetime
from pathlib import Path

from hallmark.flows.train import train
from hallmark.tasks.common.records import Outcome
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.tracking.client import connect

WRITTEN = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)
CITIES = ("Köln", '"Bonn"', "Aa</script>", "x;{{model}}")

Trained = tuple[Experiment, Outcome]


def trained(experiment: Experiment) -> Trained:
    training = experiment.training.model_copy(update={"device": "cpu", "epochs": 30})
    changed = experiment.model_copy(update={"name": f"c{uuid.uuid4().hex[:12]}", "training": training})
    return changed, train(changed)


def stored(outcome: Outcome, folder: Path) -> Path:
    return Path(connect().download_artifacts(outcome.run.id, "card.html", str(folder)))
