"""Train one experiment, and register the verified model."""

import prefect.runtime
from prefect import flow

from hallmark.flows.experiments import presets
from hallmark.flows.ship import train_and_ship
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.prepare import prepare
from hallmark.tasks.runtime import flow_artifacts
from hallmark.tasks.runtime.running_commands import tag_flow_run


def _run_name() -> str:
    return presets.run_name(prefect.runtime.flow_run.parameters["experiment"])


@flow(name="train", flow_run_name=_run_name, on_running=[tag_flow_run])
def train(experiment: Experiment, fresh: bool = False, strict: bool = False) -> Outcome:  # noqa: FBT001, FBT002 - Prefect calls by name
    """Train a classifier, track it in MLflow, export it to ONNX, verify the file and register it.

    Args:
        experiment: data, model, training and export.
        fresh: discard an interrupted attempt at the same experiment instead of resuming it.
        strict: refuse to train if the experiment or its data has findings.
    """
    return flow_artifacts.finished(train_and_ship(experiment, prepare(experiment), fresh=fresh, strict=strict))
