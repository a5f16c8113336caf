"""Open and close MLflow runs.

Every function that writes holds signals back until it is done: an interrupt inside a database transaction would leave
the database locked, and the run could not be closed.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hallmark.tasks.common.errors import one_line, without_secrets
from hallmark.tasks.common.records import Attempt, Dataset, Run
from hallmark.tasks.ml.config import toml
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.runtime import provenance, settings
from hallmark.tasks.runtime.signals import held, interrupted
from hallmark.tasks.tracking import tags as tag
from hallmark.tasks.tracking.client import connect
from hallmark.tasks.tracking.run_queries import EXPERIMENT

logger = logging.getLogger(__name__)


@contextmanager
def open_run(
    experiment: Experiment, dataset: Dataset, attempt: Attempt, name: str, tags: dict[str, str]
) -> Iterator[Run]:
    """Open the one MLflow run of an attempt, or re-open it, and close it in its true state.

    It ends as FINISHED, as FAILED after an error, or as KILLED after a signal or an interrupt.

    Args:
        experiment: its fields become parameters.
        dataset: its name becomes the name of the MLflow experiment.
        attempt: the attempt that the run belongs to.
        name: name of the run.
        tags: further tags, besides digests and provenance; see `tags.origin`.
    """
    about = {
        tag.NAME: experiment.name,
        tag.EXPERIMENT_DIGEST: experiment.digest,
        tag.SOURCE_NAME: f"hallmark train {experiment.name}",
    }
    with _open(dataset, attempt, name, about | tags) as run:
        _log_inputs(run, experiment, dataset)
        yield run


@contextmanager
def open_sweep(
    dataset: Dataset, attempt: Attempt, name: str, axes: Sequence[str], tags: dict[str, str]
) -> Iterator[Run]:
    """Open the parent run of a sweep's members, and close it as `open_run` does.

    Args:
        dataset: its name becomes the name of the MLflow experiment.
        attempt: the attempt that the run belongs to.
        name: name of the run.
        axes: the options that vary.
        tags: further tags.
    """
    about = {tag.NAME: attempt.name, tag.SWEEP: ", ".join(axes), tag.SOURCE_NAME: "hallmark sweep"}
    with _open(dataset, attempt, name, about | tags) as run:
        yield run


@held()
def fail(run: Run, reason: str) -> None:
    """Close a run as failed while others go on."""
    _close(connect(), run, "FAILED", reason)


def status(attempt: Attempt) -> str | None:
    """Return the status of the attempt's run, or None if it has none."""
    run = _run_of(connect(), attempt)
    return str(run.info.status) if run else None


@held()
def give_up(attempt: Attempt) -> None:
    """Close as killed the runs of an attempt that will not be continued, with those of a sweep's members."""
    client = connect()
    for run in _runs_of(client, f"LIKE '{attempt.id}%'") if attempt.id else []:
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, "KILLED")


@contextmanager
def log_secondary_error(first: BaseException) -> Iterator[None]:
    """Log an error raised while another error is handled, instead of raising it in place of the first."""
    try:
        yield
    except Exception as second:  # noqa: BLE001 - the first error is the one to be raised
        logger.error("%s: %s, while closing after: %s", type(second).__name__, one_line(second), one_line(first))  # noqa: TRY400 - one line, it reaches the terminal


@contextmanager
def _open(dataset: Dataset, attempt: Attempt, name: str, tags: dict[str, str]) -> Iterator[Run]:
    client = connect()
    run: Run | None = None
    try:
        with held():
            run = _create(client, dataset, attempt, name, tags)
        yield run
        with held():
            _close(client, run, "FINISHED")
    except BaseException as error:
        if run:
            with held(), log_secondary_error(error):
                _close(client, run, "KILLED" if interrupted(error) else "FAILED", one_line(error))
        raise


def _create(client: MlflowClient, dataset: Dataset, attempt: Attempt, name: str, tags: dict[str, str]) -> Run:
    """Create the run of an attempt, or set it running again."""
    about = {tag.DATASET_DIGEST: dataset.digest, tag.ATTEMPT: str(attempt.id)}
    source = {tag.USER: provenance.user(), tag.SOURCE_TYPE: "LOCAL"}
    tags = tags | about | source | tag.of_code()
    if attempt.is_continued and (known := _run_of(client, attempt)):
        info = known.info
        client.update_run(info.run_id, status="RUNNING")
        if tag.ERROR in known.data.tags:
            client.delete_tag(info.run_id, tag.ERROR)
        client.log_batch(info.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    else:
        info = client.create_run(_experiment_id(client, dataset.name), run_name=name, tags=tags).info
    machine = settings.read()
    # A local store has no address; `hallmark ui` shows its runs.
    local = f"http://127.0.0.1:{machine.ui_port}"
    server = without_secrets(machine.tracking_uri).rstrip("/") if machine.tracking_uri.startswith("http") else local
    url = f"{server}/#/experiments/{info.experiment_id}/runs/{info.run_id}"
    return Run(id=info.run_id, name=name, url=url, attempt=attempt)


def _close(client: MlflowClient, run: Run, status: str, error: str = "") -> None:
    """Close a run, unless it is closed already."""
    if client.get_run(run.id).info.status == "RUNNING":
        client.set_terminated(run.id, status)
        if error:
            client.set_tag(run.id, tag.ERROR, error[:5000])


def _run_of(client: MlflowClient, attempt: Attempt) -> MlflowRun | None:
    """Return the run of an attempt that an earlier process began, if it opened one that was not deleted since."""
    runs = _runs_of(client, f"= '{attempt.id}'") if attempt.id else []
    return runs[0] if runs else None


def _runs_of(client: MlflowClient, attempts: str) -> list[MlflowRun]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`{tag.ATTEMPT}` {attempts}", max_results=10_000))


def _experiment_id(client: MlflowClient, name: str) -> str:
    """Find or create the MLflow experiment. A local store keeps its artifacts beside its database."""
    if existing := client.get_experiment_by_name(name):
        return existing.experiment_id
    database = settings.database(settings.read().tracking_uri)
    location = (database.absolute().parent / "artifacts" / name).as_uri() if database else None
    try:
        # Without this the UI would guess the kind of experiment.
        return client.create_experiment(name, location, {"mlflow.experimentKind": "custom_model_development"})
    except MlflowException:
        # Another process may have been faster.
        if existing := client.get_experiment_by_name(name):
            return existing.experiment_id
        raise


@held()
def _log_inputs(run: Run, experiment: Experiment, dataset: Dataset) -> None:
    client = connect()
    known = client.get_run(run.id).data.params  # of a continued run, whose device may be written in another way
    params = [Param(name, str(value)) for name, value in experiment.flat().items() if name not in known]
    client.log_batch(run.id, params=params)
    client.log_text(run.id, toml.dump(experiment), EXPERIMENT)
    logged = MlflowDataset(
        name=dataset.name,
        digest=dataset.digest[:32],  # MLflow takes at most 36 characters; the tag has all 64
        source_type="local",
        source=json.dumps({"uri": str(dataset.folder)}),
        profile=json.dumps({"rows": dataset.rows, "classes": dataset.classes}),
    )
    context = InputTag("mlflow.data.context", "training")
    client.log_inputs(run.id, [DatasetInput(logged, [context])])
