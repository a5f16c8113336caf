"""What Hallmark tells MLflow of a run. Beside `store` and `registry` no other module imports mlflow.

Whatever writes holds signals back until it is done: an interrupt inside a database transaction leaves the database
locked, and the run could not be closed.
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.errors import without_secrets
from hallmark.tasks.common.records import Attempt, Dataset, Evaluation, Finding, Fit, Member, Run
from hallmark.tasks.ml.config import toml
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training.history import Log
from hallmark.tasks.runtime import provenance, settings
from hallmark.tasks.runtime.signals import held, interrupted
from hallmark.tasks.tracking.client import connect, is_network_failure, tried_once
from hallmark.tasks.tracking.run_queries import CARD_SHA256

logger = logging.getLogger(__name__)

_ATTEMPT = "hallmark.attempt"
_ERROR = "hallmark.error"
_BATCH = 1000
"""MLflow takes at most so many metrics in one request."""
_FLUSH_SECONDS = 2.0
_FLUSH_SHARE = 0.02
"""What sending points may take of the time of a training."""


@contextmanager
def open_run(
    experiment: Experiment, dataset: Dataset, attempt: Attempt, name: str, tags: dict[str, str]
) -> Iterator[Run]:
    """Open the one MLflow run of an attempt, anew or again, and close it in its true state, whatever happens between.

    It ends FINISHED, FAILED by an error, or KILLED by a signal or an interrupt.

    Args:
        experiment: its fields become parameters.
        dataset: its name is that of the MLflow experiment.
        attempt: whose run it is; one that was interrupted has it already.
        name: name of the run.
        tags: further tags, beside digests and provenance.
    """
    about = {
        "hallmark.name": experiment.name,
        "hallmark.experiment_digest": experiment.digest,
        "mlflow.source.name": f"hallmark train {experiment.name}",
    }
    with _open(dataset, attempt, name, about | tags) as run:
        _log_inputs(run, experiment, dataset)
        yield run


@contextmanager
def open_sweep(
    dataset: Dataset, attempt: Attempt, name: str, axes: Sequence[str], tags: dict[str, str]
) -> Iterator[Run]:
    """Open the run that is the parent of a sweep's members, and close it as `open_run` does.

    Args:
        dataset: its name is that of the MLflow experiment.
        attempt: whose run it is.
        name: name of the run.
        axes: the options that vary.
        tags: further tags.
    """
    about = {"hallmark.name": attempt.name, "hallmark.sweep": ", ".join(axes), "mlflow.source.name": "hallmark sweep"}
    with _open(dataset, attempt, name, about | tags) as run:
        yield run


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
            with held(), _second_to(error):
                _close(client, run, "KILLED" if interrupted(error) else "FAILED", _one_line(error))
        raise


@held()
def fail(run: Run, why: str) -> None:
    """Close a run as failed while others go on."""
    _close(connect(), run, "FAILED", why)


def _close(client: MlflowClient, run: Run, status: str, error: str = "") -> None:
    """Close a run, unless it is closed."""
    if client.get_run(run.id).info.status == "RUNNING":
        client.set_terminated(run.id, status)
        if error:
            client.set_tag(run.id, _ERROR, error[:5000])


def status(attempt: Attempt) -> str | None:
    """How the attempt's run stands, if it has one."""
    run = _run_of(connect(), attempt)
    return str(run.info.status) if run else None


@held()
def give_up(attempt: Attempt) -> None:
    """Close the runs of an attempt that nobody goes on with, those of a sweep's members among them."""
    client = connect()
    for run in _runs_of(client, f"LIKE '{attempt.id}%'") if attempt.id else []:
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, "KILLED")


@held()
def log_choice(run: Run, members: Sequence[Member], chosen: int, picture: Path, clock: int) -> None:
    """Log to a sweep's run its table, its picture, and which member was chosen, with its loss at this clock."""
    client = connect()
    columns = {
        **{axis: [member.values[axis] for member in members] for axis in members[0].values},
        "val/loss": [member.loss for member in members],
        "chosen": [index == chosen for index in range(len(members))],
        "way": [member.way for member in members],
        "failed": [member.failed for member in members],
        "run": [member.run.id for member in members],
    }
    # What the UI shows as a table; MLflow's own `log_table` would append to it when a sweep is resumed.
    table = {"columns": list(columns), "data": [list(row) for row in zip(*columns.values(), strict=True)]}
    client.log_dict(run.id, table, "members.json")
    client.set_tag(run.id, "mlflow.loggedArtifacts", json.dumps([{"path": "members.json", "type": "table"}]))
    client.log_artifact(run.id, str(picture))
    tags = {"chosen": members[chosen].label, "chosen_run": members[chosen].run.id, "members": str(len(members))}
    metrics = [Metric("val/loss", members[chosen].loss, clock, 0)]
    client.log_batch(run.id, metrics, tags=[RunTag(f"hallmark.{name}", value) for name, value in tags.items()])


@contextmanager
def metric_logs(runs: Sequence[Run]) -> Iterator[list[Log]]:
    """A `metric_log` for each of several runs."""
    with ExitStack() as stack:
        yield [stack.enter_context(metric_log(run)) for run in runs]


@contextmanager
def metric_log(run: Run) -> Iterator[Log]:
    """Yield a `log(step, metrics, clock)` that sends points in batches, every two seconds or as often as is cheap.

    A training goes on while MLflow is away, such as for a restart: its points are kept and sent later. The last ones
    are insisted on, for as long as MLflow's client tries.
    """
    points = _Points(connect(), run)
    try:
        yield points.log
    except BaseException as error:
        with _second_to(error):
            points.flush()  # also what a failed training had reached is worth seeing
        raise
    points.flush()


class _Points:
    """What has been logged and not been sent yet."""

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self.client, self.run = client, run
        self.waiting: list[Metric] = []
        self.tried, self.pause = time.monotonic(), _FLUSH_SECONDS
        self.is_away = False

    def log(self, step: int, metrics: dict[str, float], clock: int) -> None:
        self.waiting.extend(Metric(name, value, clock, step) for name, value in metrics.items())
        is_full = len(self.waiting) >= _BATCH and not self.is_away
        if is_full or time.monotonic() - self.tried > self.pause:
            self._try()

    @held()
    def flush(self) -> None:
        for start in range(0, len(self.waiting), _BATCH):
            self.client.log_batch(self.run.id, metrics=self.waiting[start : start + _BATCH])
        self.waiting.clear()

    def _try(self) -> None:
        started = time.monotonic()
        try:
            with tried_once():
                self.flush()
            self.is_away = False
        except MlflowException as error:
            if not is_network_failure(error):
                raise
            if not self.is_away:
                text = _one_line(error)[:200]
                logger.warning(
                    "%s: training goes on, its points are kept until MLflow answers: %s", self.run.name, text
                )
            self.is_away = True
        self.tried = time.monotonic()
        self.pause = max(_FLUSH_SECONDS, (self.tried - started) / _FLUSH_SHARE)


@held()
def log_fit(run: Run, fit: Fit) -> None:
    """Log history file, device and where the training stopped."""
    client = connect()
    client.log_artifact(run.id, str(fit.history))
    tags = {
        "device": fit.device,
        "epochs": fit.epochs,
        "best_epoch": fit.best_epoch,
        "stopped": fit.stopped,
        "threads": fit.threads,
        "networks": fit.networks,
        "weights_sha256": fit.weights_sha256,
        "initial_seed": fit.initial_seed,
        "fit_seconds": f"{fit.seconds:.3f}",
        "fingerprint": json.dumps(fit.fingerprint),
    }
    client.log_batch(run.id, tags=[RunTag(f"hallmark.{key}", str(value)) for key, value in tags.items()])


@held()
def log_evaluation(run: Run, evaluation: Evaluation, fit: Fit, clock: int) -> None:
    """Log test metrics, at the last epoch and with this clock, with the report and the pictures."""
    client = connect()
    # Where the test split was watched in training and the last weights were kept, their point is there already.
    there = fit.metrics if fit.best_epoch == fit.epochs else {}
    new = {name: value for name, value in evaluation.metrics.items() if name not in there}
    client.log_batch(run.id, [Metric(name, value, clock, fit.epochs) for name, value in new.items()])
    for file in evaluation.files:
        client.log_artifact(run.id, str(file), "pictures" if file.suffix == ".png" else None)


@held()
def log_files(run: Run, files: Sequence[Path], folder: str) -> None:
    """Log files into a folder of the run's artifacts."""
    for file in files:
        connect().log_artifact(run.id, str(file), folder)


@held()
def log_card(run: Run, card: Path) -> None:
    """Log a model's card, and the digest by which it is known again."""
    client = connect()
    client.log_artifact(run.id, str(card))
    client.set_tag(run.id, CARD_SHA256, file_digest(card))


@held()
def log_findings(run: Run, findings: Sequence[Finding]) -> None:
    """Tag the run with the codes of all findings so far, or `none`, and say them in its description and a file."""
    client = connect()
    codes = ", ".join(finding.code for finding in findings) or "none"
    lines = [f"- **{finding.code}**: {finding.sentence}. Remedy: `{finding.remedy}`" for finding in findings]
    tags = {"hallmark.diagnosis": codes, "mlflow.note.content": "\n".join(lines)}
    client.log_batch(run.id, tags=[RunTag(key, value) for key, value in tags.items()])
    client.log_dict(run.id, {"findings": [asdict(finding) for finding in findings]}, "diagnosis.json")


@contextmanager
def _second_to(first: BaseException) -> Iterator[None]:
    """Log what fails while an error is being handled, so that it does not take the error's place."""
    try:
        yield
    except Exception as second:  # noqa: BLE001 - whatever it is, the first error is the one to be raised
        logger.error("%s: %s, while closing after: %s", type(second).__name__, _one_line(second), _one_line(first))  # noqa: TRY400 - one line, it reaches the terminal


def _create(client: MlflowClient, dataset: Dataset, attempt: Attempt, name: str, tags: dict[str, str]) -> Run:
    """Make the run of an attempt, or set it running again."""
    about = {"hallmark.dataset_digest": dataset.digest, _ATTEMPT: str(attempt.id)}
    source = {"mlflow.user": provenance.user(), "mlflow.source.type": "LOCAL"}
    tags = tags | about | source | provenance.tags()
    if attempt.is_continued and (known := _run_of(client, attempt)):
        info = known.info
        client.update_run(info.run_id, status="RUNNING")
        if _ERROR in known.data.tags:
            client.delete_tag(info.run_id, _ERROR)
        client.log_batch(info.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    else:
        info = client.create_run(_experiment_id(client, dataset.name), run_name=name, tags=tags).info
    machine = settings.read()
    # A local store has no address; its runs are seen where `hallmark ui` serves them.
    local = f"http://127.0.0.1:{machine.ui_port}"
    server = without_secrets(machine.tracking_uri).rstrip("/") if machine.tracking_uri.startswith("http") else local
    url = f"{server}/#/experiments/{info.experiment_id}/runs/{info.run_id}"
    return Run(id=info.run_id, name=name, url=url, attempt=attempt)


def _run_of(client: MlflowClient, attempt: Attempt) -> MlflowRun | None:
    """The run of an attempt that another process began, if it came so far and nobody has deleted it."""
    runs = _runs_of(client, f"= '{attempt.id}'") if attempt.id else []
    return runs[0] if runs else None


def _runs_of(client: MlflowClient, attempts: str) -> list[MlflowRun]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`{_ATTEMPT}` {attempts}", max_results=10_000))


def _experiment_id(client: MlflowClient, name: str) -> str:
    """Find or make the MLflow experiment. A local store keeps its artifacts beside its database."""
    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    database = settings.database(settings.read().tracking_uri)
    location = (database.absolute().parent / "artifacts" / name).as_uri() if database else None
    try:
        # The UI would guess the kind of experiment from what is in it.
        return client.create_experiment(name, location, {"mlflow.experimentKind": "custom_model_development"})
    except MlflowException:
        # Another process may have been faster.
        if found := client.get_experiment_by_name(name):
            return found.experiment_id
        raise


@held()
def _log_inputs(run: Run, experiment: Experiment, dataset: Dataset) -> None:
    client = connect()
    known = client.get_run(
        run.id
    ).data.params  # of a run that is continued, whose device may be asked for in other words
    params = [Param(name, str(value)) for name, value in experiment.flat().items() if name not in known]
    client.log_batch(run.id, params=params)
    client.log_text(run.id, toml.dump(experiment), "experiment.toml")
    logged = MlflowDataset(
        name=dataset.name,
        digest=dataset.digest[:32],  # MLflow takes at most 36 characters; the tag has all 64
        source_type="local",
        source=json.dumps({"uri": str(dataset.folder)}),
        profile=json.dumps({"rows": dataset.rows, "classes": dataset.classes}),
    )
    context = InputTag("mlflow.data.context", "training")
    client.log_inputs(run.id, [DatasetInput(logged, [context])])


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
