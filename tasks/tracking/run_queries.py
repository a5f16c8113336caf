"""Queries for what runs have recorded. Nothing is written here."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from hallmark.tasks.common.digests import RUN_ID_DIGITS, check
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import CARD
from hallmark.tasks.common.results import RecentRun, Recorded
from hallmark.tasks.ml.config import toml
from hallmark.tasks.ml.config.experiment import NAME, Experiment
from hallmark.tasks.tracking import stored, tags
from hallmark.tasks.tracking.client import connect
from hallmark.tasks.tracking.stored import StoredRun

EXPERIMENT = "experiment.toml"
"""Path of the experiment among a run's artifacts."""

_NEEDED = (
    tags.DATASET_DIGEST,
    tags.WEIGHTS_SHA256,
    tags.ONNX_SHA256,
    tags.INITIAL_SEED,
    tags.FINGERPRINT,
    tags.VERSIONS,
    tags.NETWORKS,
    tags.CODE_DIGEST,
)
"""Tags of a run that shipped a file, without which it cannot be reproduced."""


def search(query: str, limit: int) -> list[StoredRun]:
    """Return the runs that match a query in MLflow's language, newest first.

    Args:
        query: filter, as MLflow's `search_runs` takes it.
        limit: maximum number of runs.

    Raises:
        InputError: the store cannot be reached.
    """
    client = connect()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, query, max_results=limit, order_by=["attributes.start_time DESC"])
    return [stored.run(one) for one in runs]


def recent_runs(name: str | None, limit: int) -> list[RecentRun]:
    """Return the most recent runs, newest first. Members of a sweep are left out.

    Args:
        name: name of the experiment; None means all.
        limit: maximum number of runs.
    """
    if name and not re.fullmatch(NAME, name):
        return []  # no experiment can have this name, and MLflow's query language could not express it
    wanted = f"= '{name}'" if name else "!= ''"
    return [
        RecentRun(
            id=run.id,
            experiment=run.experiment,
            name=run.title,
            status=run.status,
            started=run.started,
            accuracy=run.metrics.get("test/accuracy"),
            loss=run.metrics.get("test/loss"),
            kind=run.tags.get(tags.PRESET_KIND, ""),
            model_version=run.model_version,
        )
        for run in search(f"tags.`{tags.NAME}` {wanted} AND tags.`{tags.PARENT_RUN}` IS NULL", limit)
    ]


def recorded(run_id: str) -> tuple[Recorded, Experiment]:
    """Return what a run that shipped a file has recorded, and its experiment.

    Args:
        run_id: its id, or the first digits.

    Raises:
        InputError: there is no such run, it did not ship a file, or its experiment cannot be read.
    """
    run = find(run_id)
    if missing := [tag for tag in _NEEDED if tag not in run.tags]:
        raise InputError(f"{run_id}: has no {missing[0]}: only a run that shipped a file can be reproduced")
    record = Recorded(
        run=run.id,
        dataset=run.tags[tags.DATASET_DIGEST],
        weights_sha256=run.tags[tags.WEIGHTS_SHA256],
        onnx_sha256=run.tags[tags.ONNX_SHA256],
        initial_seed=int(run.tags[tags.INITIAL_SEED]),
        conditions=run.conditions,
    )
    return record, experiment(run)


def experiment(run: StoredRun) -> Experiment:
    """Return the experiment that a run has recorded.

    Raises:
        InputError: the store has no experiment of this run, or a version of Hallmark recorded it that had other fields.
    """
    shown = f"run {run.id[:RUN_ID_DIGITS]}"
    if EXPERIMENT not in artifacts(run):
        raise InputError(f"{shown}: its {EXPERIMENT} is not in the store")
    with TemporaryDirectory() as folder:
        values = toml.load(Path(connect().download_artifacts(run.id, EXPERIMENT, folder)))
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise InputError(
            f"{shown}: its experiment was recorded by another version of Hallmark: {where}: {problem['msg']}"
        ) from error


def artifacts(run: StoredRun) -> list[str]:
    """Return the paths of a run's artifacts, without the contents of folders."""
    return [file.path for file in connect().list_artifacts(run.id)]


def card(run: StoredRun) -> bytes:
    """Return the card of the model that a run shipped.

    Raises:
        InputError: the run has none.
        DamagedError: the stored file is not the one that was written.
    """
    expected = run.tags.get(tags.CARD_SHA256)
    if not expected or CARD not in artifacts(run):
        raise InputError(
            f"run {run.id[:RUN_ID_DIGITS]} has no card: only a run that shipped a file has one: "
            f"train {run.experiment or 'NAME'} again"
        )
    with TemporaryDirectory() as folder:
        return check(Path(connect().download_artifacts(run.id, CARD, folder)), expected).read_bytes()


def curve(run: StoredRun, metric: str) -> tuple[list[int], list[float]]:
    """Return the steps and values of a metric; if a step was logged twice, its last value."""
    points = {point.step: point.value for point in connect().get_metric_history(run.id, metric)}
    return sorted(points), [points[step] for step in sorted(points)]


def digests(run_id: str) -> dict[str, str]:
    """Return the digests of dataset, experiment and code that a run has recorded, as `digests_of` names them."""
    values = connect().get_run(run_id).data.tags
    return {name: values[tag] for name, tag in _DIGESTS.items() if tag in values}


def digests_of(dataset: str, experiment: str, code: str) -> dict[str, str]:
    """Return the digests that a run on this dataset, experiment and code would record."""
    return dict(zip(_DIGESTS, (dataset, experiment, code), strict=True))


_DIGESTS = {
    "dataset_digest": tags.DATASET_DIGEST,
    "experiment_digest": tags.EXPERIMENT_DIGEST,
    "code_digest": tags.CODE_DIGEST,
}


def get(run_id: str) -> StoredRun | None:
    """Return the run with this id; None if it was removed from the store, or the id is empty."""
    try:
        return stored.run(connect().get_run(run_id)) if run_id else None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def shipped(name: str, made_from: dict[str, str]) -> list[StoredRun]:
    """Return the finished runs that registered a version of a model from these digests, newest first.

    Args:
        name: the registered model.
        made_from: see `digests_of`.
    """
    wanted = {tags.NAME: name} | {tag: made_from[key] for key, tag in _DIGESTS.items()}
    query = " AND ".join(f"tags.`{tag}` = '{value}'" for tag, value in wanted.items())
    runs = search(f"{query} AND attributes.status = 'FINISHED'", 1000)
    return [run for run in runs if run.model_version]


def find(run_id: str) -> StoredRun:
    """Return the one run whose id begins with these digits.

    Raises:
        InputError: there is none, or more than one.
    """
    if not re.fullmatch("[0-9a-f]{4,32}", run_id):
        raise InputError(
            f"{run_id}: is not a run id: expected 4 to 32 hex digits; `hallmark runs` shows the first 8 of each run"
        )
    runs = search(f"attributes.run_id LIKE '{run_id}%'", 2)
    if len(runs) != 1:
        raise InputError(
            f"{run_id}: {'several run ids begin' if runs else 'no run id begins'} with it: `hallmark runs` lists them"
        )
    return runs[0]
