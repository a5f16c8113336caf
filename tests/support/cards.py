"""Trained models for tests of model cards."""

import uuid
from datetime import UTC, datetime
from pathlib import Path

from hallmark.flows.train import train
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.tracking.client import connect

WRITTEN_AT = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)
CITIES = ("Köln", '"Bonn"', "Aa</script>", "x;{{model}}")

Trained = tuple[Experiment, Outcome]


def train_for_card(experiment: Experiment) -> Trained:
    """Train 30 epochs on the CPU under a unique name; return the changed experiment and its outcome."""
    training = experiment.training.model_copy(update={"device": "cpu", "epochs": 30})
    changed = experiment.model_copy(update={"name": f"c{uuid.uuid4().hex[:12]}", "training": training})
    return changed, train(changed)


def download_card(outcome: Outcome, folder: Path) -> Path:
    """Download the card of a run from MLflow."""
    return Path(connect().download_artifacts(outcome.run.id, "card.html", str(folder)))
