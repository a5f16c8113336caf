"""Log the results of the steps to a run. Every function holds signals back until it is done; see `run_lifecycle`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mlflow.entities import Metric, RunTag

from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.records import Evaluation, Finding, Fit, Run
from hallmark.tasks.common.results import Member
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.tracking import tags
from hallmark.tasks.tracking.client import connect


@held()
def log_fit(run: Run, fit: Fit) -> None:
    """Log the history file, the device, and where the training stopped."""
    values = {
        tags.DEVICE: fit.device,
        tags.EPOCHS: fit.epochs,
        tags.BEST_EPOCH: fit.best_epoch,
        tags.STOPPED: fit.stopped,
        tags.THREADS: fit.threads,
        tags.NETWORKS: fit.networks,
        tags.WEIGHTS_SHA256: fit.weights_sha256,
        tags.INITIAL_SEED: fit.initial_seed,
        tags.FIT_SECONDS: f"{fit.seconds:.3f}",
        tags.FINGERPRINT: json.dumps(fit.fingerprint),
    }
    connect().log_artifact(run.id, str(fit.history))
    _log_tags(run, {key: str(value) for key, value in values.items()})


@held()
def log_choice(run: Run, members: Sequence[Member], chosen: int, picture: Path, clock: int) -> None:
    """Log to a sweep's run its table, its picture, and the chosen member with its loss at this clock."""
    client = connect()
    columns = {
        **{axis: [member.values[axis] for member in members] for axis in members[0].values},
        "val/loss": [member.loss for member in members],
        "chosen": [index == chosen for index in range(len(members))],
        "way": [member.way for member in members],
        "failed": [member.failed for member in members],
        "run": [member.run.id for member in members],
    }
    # The UI shows this as a table; MLflow's own `log_table` would append to it when a sweep is resumed.
    table = {"columns": list(columns), "data": [list(row) for row in zip(*columns.values(), strict=True)]}
    client.log_dict(run.id, table, "members.json")
    client.set_tag(run.id, tags.LOGGED_ARTIFACTS, json.dumps([{"path": "members.json", "type": "table"}]))
    client.log_artifact(run.id, str(picture))
    best = members[chosen]
    values = {tags.CHOSEN: best.label, tags.CHOSEN_RUN: best.run.id, tags.MEMBERS: str(len(members))}
    _log_tags(run, values)
    log_metrics(run, {"val/loss": best.loss}, 0, clock)


@held()
def log_evaluation(run: Run, evaluation: Evaluation, fit: Fit, clock: int) -> None:
    """Log test metrics, at the last epoch and with this clock, the report and the pictures."""
    # If the test split was watched during training and the last weights were kept, the points exist already.
    existing = fit.metrics if fit.best_epoch == fit.epochs else {}
    new = {name: value for name, value in evaluation.metrics.items() if name not in existing}
    log_metrics(run, new, fit.epochs, clock)
    for file in evaluation.files:
        connect().log_artifact(run.id, str(file), "pictures" if file.suffix == ".png" else None)


@held()
def log_files(run: Run, files: Sequence[Path], folder: str) -> None:
    """Log files into a folder of the run's artifacts."""
    for file in files:
        connect().log_artifact(run.id, str(file), folder)


@held()
def log_card(run: Run, card: Path) -> None:
    """Log a model card, and its digest as a tag."""
    connect().log_artifact(run.id, str(card))
    connect().set_tag(run.id, tags.CARD_SHA256, file_digest(card))


@held()
def log_findings(run: Run, findings: Sequence[Finding]) -> None:
    """Log all findings so far: their codes, or `none`, as a tag, their text as description and as a file."""
    codes = ", ".join(finding.code for finding in findings) or "none"
    lines = [finding.markdown for finding in findings]
    _log_tags(run, {tags.DIAGNOSIS: codes, tags.NOTE: "\n".join(lines)})
    connect().log_dict(run.id, {"findings": [asdict(finding) for finding in findings]}, "diagnosis.json")


@held()
def log_metrics(run: Run, metrics: Mapping[str, float], step: int, clock: int) -> None:
    """Log metrics at a step. MLflow drops those that were logged before with the same clock, in milliseconds."""
    connect().log_batch(run.id, [Metric(name, value, clock, step) for name, value in metrics.items()])


def _log_tags(run: Run, values: Mapping[str, str]) -> None:
    connect().log_batch(run.id, tags=[RunTag(key, value) for key, value in values.items()])
