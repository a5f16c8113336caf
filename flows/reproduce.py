"""Repeat a recorded training, and compare the results bit for bit."""

from prefect import flow

from hallmark.flows.ship import make_file
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.files import temporary_folder
from hallmark.tasks.common.results import Recorded, Reproduction
from hallmark.tasks.evaluate import evaluate
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import devices
from hallmark.tasks.prepare import prepare
from hallmark.tasks.refit import refit
from hallmark.tasks.reproduce import reproduce as compare
from hallmark.tasks.runtime import flow_artifacts, settings
from hallmark.tasks.runtime.running_commands import tag_flow_run
from hallmark.tasks.tracking import run_queries


@flow(name="reproduce", flow_run_name="reproduce {run_id}", on_running=[tag_flow_run])
def reproduce(run_id: str) -> Reproduction:
    """Repeat the training that an MLflow run recorded, export the model, and compare weights and file.

    Nothing is logged or registered, and the new files are removed.

    Args:
        run_id: id, or its first digits, of a run that shipped a file.
    """
    recorded, experiment = run_queries.recorded(run_id)
    dataset = prepare(experiment)
    experiment = _on_available_device(experiment, recorded)
    with temporary_folder(settings.read().home) as folder:
        fitted = refit(recorded, experiment, dataset, folder)
        evaluation = evaluate(experiment, dataset, fitted, run=None)
        artifact, _ = make_file(experiment, dataset, fitted, evaluation, run=None)
        return flow_artifacts.finished(compare(recorded, dataset, fitted, artifact))


def _on_available_device(experiment: Experiment, recorded: Recorded) -> Experiment:
    """Return the experiment on the recorded kind of device, or on what this machine has instead."""
    try:
        device = devices.choose(recorded.conditions["device"]).type  # type: ignore[arg-type]
    except InputError:
        device = "auto"
    training = experiment.training.model_copy(update={"device": device})
    return experiment.model_copy(update={"training": training})
