"""Remove runs from MLflow: with a local store for good, including their artifacts and logged models."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Run as MlflowRun
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking._tracking_service.utils import _get_store
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from hallmark.tasks.common import files
from hallmark.tasks.runtime import settings
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.tracking import tags
from hallmark.tasks.tracking.client import connect

_PAGE = 1000
"""Number of runs of one request to MLflow."""


@dataclass(frozen=True, slots=True)
class EndedRun:
    """What is needed to decide about a run."""

    id: str
    title: str
    is_open: bool
    """Whether it is running."""
    changed: float
    """When it ended, or else started, in seconds since the epoch."""
    tags: dict[str, str]
    models: tuple[str, ...]
    """Ids of its logged models."""
    location: str
    """Address of its artifacts."""


def runs() -> list[EndedRun]:
    """Return all runs that Hallmark opened, also those that were deleted in the UI."""
    return [_ended(run) for run in _all()]


def names() -> list[str]:
    """Return the names of all registered models."""
    found, token = list[str](), None
    while True:
        page = connect().search_registered_models(max_results=_PAGE, page_token=token)
        found += [model.name for model in page]
        if not (token := page.token):
            return found


def size(run: EndedRun) -> int:
    """Return the number of bytes of a run's artifacts, and of its logged models, in local folders."""
    return sum(files.size(folder) for folder in map(_folder, _locations(run)) if folder)


def is_for_good() -> bool:
    """Return whether `remove` frees the space. A tracking server only hides runs; `mlflow gc` frees it there."""
    return settings.database(settings.from_environment().tracking_uri) is not None


@held()
def remove_version(name: str, number: int) -> None:
    """Remove a registered version. Its file belongs to its run."""
    connect().delete_model_version(name, str(number))


@held()
def remove(run: EndedRun) -> None:
    """Remove a run. An interrupted removal is completed by the next one: the run is marked as deleted first."""
    client, locations = connect(), _locations(run)
    if client.get_run(run.id).info.lifecycle_stage == "active":
        client.delete_run(run.id)
    for model in run.models:
        with suppress(MlflowException):  # removed before
            client.delete_logged_model(model)
    if not is_for_good():
        return
    for location in locations:
        get_artifact_repository(location).delete_artifacts()
        if folder := _folder(location):
            with suppress(OSError):
                folder.parent.rmdir()  # the folder of the run, which held nothing else
    # MLflow's command `gc` does the same, and would also remove what else was deleted in the UI.
    store = _get_store(settings.from_environment().tracking_uri)
    for model in run.models:
        with suppress(MlflowException):
            store._hard_delete_logged_model(model)
    store._hard_delete_run(run.id)


def _all() -> Iterator[MlflowRun]:
    client, token = connect(), None
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    while experiments:
        query = f"tags.`{tags.ATTEMPT}` != ''"
        page = client.search_runs(experiments, query, ViewType.ALL, max_results=_PAGE, page_token=token)
        yield from page
        if not (token := page.token):
            return


def _ended(run: MlflowRun) -> EndedRun:
    info = run.info
    return EndedRun(
        id=info.run_id,
        title=info.run_name,
        is_open=info.status == "RUNNING",
        changed=(info.end_time or info.start_time) / 1000,
        tags=run.data.tags,
        models=tuple(one.model_id for one in run.outputs.model_outputs) if run.outputs else (),
        location=info.artifact_uri,
    )


def _locations(run: EndedRun) -> list[str]:
    """Return the addresses of a run's artifacts and of its logged models."""
    found = [run.location]
    for model in run.models:
        with suppress(MlflowException):  # removed before
            found.append(connect().get_logged_model(model).artifact_location)
    return found


def _folder(location: str) -> Path | None:
    return Path(local_file_uri_to_path(location)) if is_local_uri(location) else None
