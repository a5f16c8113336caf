"""Open and close MLflow runs.

Every function that writes holds signals back until it is done: an interrupt inside a database transaction would leave
the database locked, and the run could not be closed.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag, LifecycleStage, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hallmark.tasks.common.errors import UnavailableError, one_line, without_secrets
from hallmark.tasks.common.records import Attempt, Dataset, Run
from hallmark.tasks.ml.config import toml
from hallmark.tasks.ml.config.data import Own
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data.tables.formats import web_file
from hallmark.tasks.runtime import progress, provenance, settings
from hallmark.tasks.runtime.signals import held, interrupted
from hallmark.tasks.tracking import heartbeat, store_calls
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
    if isinstance(experiment.data, Own) and (downloaded := web_file.describe(experiment.data.path)):
        about[tag.SOURCE] = downloaded
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
    """Return the status of the attempt's run, or None if it has none.

    An attempt that has registered a version, itself or in a member of a sweep, has not failed: it is to be completed.
    """
    client = connect()
    run = _run_of(client, attempt)
    if run and run.info.status == "FAILED" and any(map(_has_shipped, _runs_of(client, f"LIKE '{attempt.id}%'"))):
        return "KILLED"
    return str(run.info.status) if run else None


@held()
def give_up(attempt: Attempt) -> list[str]:
    """Close as killed the runs of an attempt that will not be continued, with those of a sweep's members.

    Returns:
        ids of the runs that were open.
    """
    client = connect()
    found = _runs_of(client, f"LIKE '{attempt.id}%'") if attempt.id else []
    open_runs = [run.info.run_id for run in found if run.info.status == "RUNNING"]
    for run_id in open_runs:
        client.set_terminated(run_id, "KILLED")
    return open_runs


@contextmanager
def log_secondary_error(first: BaseException) -> Iterator[None]:
    """Log an error raised while another error is handled, instead of raising it in place of the first.

    What is written to the store inside the block waits only if there is hope; see `store_calls.after_error`.
    """
    try:
        with store_calls.after_error(first):
            yield
    except Exception as second:  # noqa: BLE001 - the first error is the one to be raised
        if isinstance(first, UnavailableError) and isinstance(second, UnavailableError):
            return  # the first says the same
        logger.error("%s: %s, while closing after: %s", type(second).__name__, one_line(second), one_line(first))  # noqa: TRY400 - one line, it reaches the terminal


@contextmanager
def _open(dataset: Dataset, attempt: Attempt, name: str, tags: dict[str, str]) -> Iterator[Run]:
    client = connect()
    run: Run | None = None
    try:
        with held():
            run = store_calls.until_answered(_create, client, dataset, attempt, name, tags)
        # A sweep's run beats for its members.
        with nullcontext() if tag.PARENT_RUN in tags else heartbeat.renewed(run.id):
            yield run
    except BaseException as error:
        if run:
            with held(), log_secondary_error(error):
                _close(client, run, "KILLED" if interrupted(error) else "FAILED", one_line(error))
        raise
    # If this fails, the run stays open: all its work is done, and the same command closes it.
    with held():
        _close(client, run, "FINISHED")


def _create(client: MlflowClient, dataset: Dataset, attempt: Attempt, name: str, tags: dict[str, str]) -> Run:
    """Create the run of an attempt, or set it running again. Can be repeated: it looks for the run first."""
    about = {tag.DATASET_DIGEST: dataset.digest, tag.ATTEMPT: str(attempt.id), tag.HEARTBEAT: heartbeat.now()}
    source = {tag.USER: provenance.user(), tag.SOURCE_TYPE: "LOCAL"}
    tags = tags | about | source | tag.of_code()
    if known := _run_of(client, attempt):
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
    """Close a run, unless it is closed already.

    A run that has registered its version is never called FAILED: the same command completes it. One that finishes may
    have been closed as killed, by a machine whose clock differs: this process knows better.
    """
    known = client.get_run(run.id)
    current = known.info.status
    if current == "RUNNING" or (current, status) == ("KILLED", "FINISHED"):
        client.set_terminated(run.id, "KILLED" if status == "FAILED" and _has_shipped(known) else status)
        if status == "FINISHED" and tag.ERROR in known.data.tags:
            client.delete_tag(run.id, tag.ERROR)
        if error:
            client.set_tag(run.id, tag.ERROR, error[:5000])


def _has_shipped(run: MlflowRun) -> bool:
    return tag.MODEL_VERSION in run.data.tags


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
        if existing.lifecycle_stage == LifecycleStage.DELETED:  # it refuses runs, and keeps its name
            client.restore_experiment(existing.experiment_id)
            progress.line("restored", f"the MLflow experiment {name} with its runs: it was deleted")
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
