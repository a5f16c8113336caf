"""What runs have recorded: read, and never written."""

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hallmark.tasks.common.digests import check
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import RecentRun, Recorded
from hallmark.tasks.ml.config import toml
from hallmark.tasks.ml.config.experiment import NAME, Experiment
from hallmark.tasks.tracking.client import connect

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

CARD = "card.html"
"""Where a run's artifacts have its card."""
CARD_SHA256 = "hallmark.card_sha256"
"""Tag of a run: the digest of its card."""

_NEEDED = (
    "dataset_digest",
    "weights_sha256",
    "onnx_sha256",
    "initial_seed",
    "fingerprint",
    "versions",
    "networks",
    "code_digest",
)
"""Tags of a run that shipped a file, by which it is reproduced."""


def recent_runs(name: str | None, limit: int) -> list[RecentRun]:
    """The most recent runs, newest first, of one experiment name if `name` is given; of a sweep, the parent alone."""
    if name and not re.fullmatch(NAME, name):
        return []  # no experiment can bear it, and MLflow's filter could not hold it
    client = connect()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = f"= '{name}'" if name else "!= ''"
    runs = client.search_runs(
        experiments,
        filter_string=f"tags.`hallmark.name` {wanted} AND tags.`mlflow.parentRunId` IS NULL",
        order_by=["attributes.start_time DESC"],
        max_results=limit,
    )
    return [
        RecentRun(
            id=run.info.run_id,
            experiment=run.data.tags["hallmark.name"],
            name=run.info.run_name,
            status=run.info.status,
            started=run.info.start_time / 1000,
            accuracy=run.data.metrics.get("test/accuracy"),
            loss=run.data.metrics.get("test/loss"),
            kind=run.data.tags.get("hallmark.preset_kind", ""),
            model_version=run.data.tags.get("hallmark.model_version"),
        )
        for run in runs
    ]


def recorded(run_id: str) -> tuple[Recorded, Experiment]:
    """Read what a run that shipped a file has recorded; the first digits of its id will do.

    Raises:
        InputError: there is no such run, or it shipped nothing.
    """
    run = find(run_id)
    tags, prefix = run.data.tags, "hallmark."
    if missing := [name for name in _NEEDED if prefix + name not in tags]:
        raise InputError(f"{run_id}: has no {prefix}{missing[0]}: only a run that shipped a file can be reproduced")
    said = {name: tags[prefix + name] for name in _NEEDED}
    found = Recorded(
        run=run.info.run_id,
        dataset=said["dataset_digest"],
        weights_sha256=said["weights_sha256"],
        onnx_sha256=said["onnx_sha256"],
        initial_seed=int(said["initial_seed"]),
        marks=marks(run),
    )
    return found, experiment(run)


def experiment(run: "MlflowRun") -> Experiment:
    """The experiment that a run has recorded."""
    with TemporaryDirectory() as folder:
        return Experiment.model_validate(
            toml.load(Path(connect().download_artifacts(run.info.run_id, "experiment.toml", folder)))
        )


def card(run: "MlflowRun") -> bytes:
    """The card of the model that a run shipped, as it was written.

    Raises:
        InputError: it has none.
        DamagedError: the store has another file.
    """
    expected = run.data.tags.get(CARD_SHA256)
    if not expected or CARD not in [file.path for file in connect().list_artifacts(run.info.run_id)]:
        name = run.data.tags.get("hallmark.name", "NAME")
        raise InputError(
            f"run {run.info.run_id[:8]} has no card: only a run that shipped a file has one: train {name} again"
        )
    with TemporaryDirectory() as folder:
        return check(Path(connect().download_artifacts(run.info.run_id, CARD, folder)), expected).read_bytes()


def marks(run: "MlflowRun") -> dict[str, str]:
    """What the bits of a run's result depend on beside experiment and data, as far as it came."""
    tags = {name.removeprefix("hallmark."): value for name, value in run.data.tags.items()}
    found = json.loads(tags.get("versions", "{}")) | json.loads(tags.get("fingerprint", "{}"))
    named = {"networks": tags.get("networks"), "code": tags.get("code_digest")}
    return found | {name: value for name, value in named.items() if value}


def find(run_id: str) -> "MlflowRun":
    """The one run whose id begins so.

    Raises:
        InputError: there is none, or more than one.
    """
    client = connect()
    if not re.fullmatch("[0-9a-f]{4,32}", run_id):
        raise InputError(f"{run_id}: is no run's id: expected up to 32 hex digits, of which `hallmark runs` shows 8")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"attributes.run_id LIKE '{run_id}%'", max_results=2)
    if len(runs) != 1:
        raise InputError(
            f"{run_id}: {'several runs begin' if runs else 'no run begins'} so: `hallmark runs` lists them"
        )
    return runs[0]
