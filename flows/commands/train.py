"""`hallmark train`: refuse what cannot be done, run the flow, print the outcome."""

import importlib
import json as jsonlib
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

from flows import options, server
from tasks import settings, signals
from tasks.ml import files
from tasks.ml.config import Experiment
from tasks.ml.errors import HallmarkError, InputError
from tasks.settings import ROOT

if TYPE_CHECKING:
    from tasks.ml.records import Outcome

STEPS = ("prepare", "examine", "fit", "evaluate", "diagnose", "export", "verify", "register")

USED_LATER = ("sklearn.metrics", "sklearn.model_selection", "torch._dynamo", "onnxscript", "mlflow.onnx")
"""What the steps import when they need it; imported here while the embedded server boots on another core."""

command = App(name="train", help_epilogue=options.describe())


@command.default
def train(
    source: str,
    /,
    *tokens: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    strict: Annotated[bool, Parameter(negative="")] = False,
    fresh: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Train, evaluate, export, verify and register an experiment, as a Prefect flow tracked in MLflow.

    What was interrupted, even by kill -9, goes on where it stopped when the same command is given again.

    Parameters
    ----------
    source
        Name of a preset, or a file that ends in .toml.
    strict
        Refuse an experiment with mistakes that are known before training.
    fresh
        Begin anew instead of resuming what was interrupted.
    json
        End with one line of JSON on stdout instead of a table.
    """
    try:
        experiment = options.experiment(source, tokens)
        if strict:
            _refuse_mistakes(experiment)
        with signals.as_interrupt():
            outcome = _run(experiment, fresh=fresh)
    except (HallmarkError, KeyboardInterrupt) as error:
        if json:
            _print_json(_failure(error))
        raise
    if json:
        _print_json(_result(experiment, outcome))
    else:
        _print_table(outcome)


def _refuse_mistakes(experiment: Experiment) -> None:
    from tasks.ml import diagnosis

    if known := diagnosis.beforehand(experiment):
        said = "; ".join(f"{found.code}: {found.sentence} (remedy: {found.remedy})" for found in known)
        raise InputError(f"{experiment.name}: refused by --strict: {said}")


def _run(experiment: Experiment, *, fresh: bool) -> "Outcome":
    """Refuse what cannot be done, cheapest checks first, and run the flow."""
    home = settings.read().home
    if not files.is_writable(home):
        raise InputError(f"HALLMARK_HOME: {home} cannot be written: make it writable or choose another folder")
    log = home / "logs" / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{experiment.name}-{os.getpid()}.log"
    # The progress lines are for people; Prefect's own go to the log file.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    log.parent.mkdir(exist_ok=True)
    wait = server.provide(log.with_name("server.log"))
    from flows.train import train as flow
    from tasks import tracking
    from tasks.ml import data, devices, sources

    devices.choose(experiment.training.device)
    if sources.is_local(experiment.data):  # else after the download, in the first step
        table = sources.read(experiment.data, home)
        data.refuse_impossible(table, experiment.data.split, experiment.model, experiment.training)
    tracking.connect()
    for module in USED_LATER:
        importlib.import_module(module)
    wait()
    with _logged(log):
        return flow(experiment, fresh=fresh)


@contextmanager
def _logged(log: Path) -> Iterator[None]:
    """Write the log to a file, warnings of our own to stderr too; make of a step's failure one line that names it."""
    file = logging.FileHandler(log)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s  %(message)s"))
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)
    handlers = [("prefect", file), ("tasks", file), ("tasks", terminal)]
    for name, handler in handlers:
        logging.getLogger(name).addHandler(handler)
    logging.getLogger("tasks").setLevel(logging.INFO)
    try:
        yield
    except Exception as error:
        if signals.interrupted(error):
            raise KeyboardInterrupt from error
        text = f"{_failed_step(error)} failed: {error or type(error).__name__} (log: {log})"
        raise (type(error) if isinstance(error, HallmarkError) else HallmarkError)(text) from error
    finally:
        for name, handler in handlers:
            logging.getLogger(name).removeHandler(handler)
        file.close()


def _failed_step(error: BaseException) -> str:
    """The step whose module the error passed through on its way up."""
    passed = {Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)}
    return next((step for step in STEPS if ROOT / "tasks" / f"{step}.py" in passed), "train")


def _result(experiment: Experiment, outcome: "Outcome") -> dict[str, Any]:
    version = outcome.model_version
    return {
        "status": "finished",
        "name": experiment.name,
        "run_id": outcome.run.id,
        "experiment_digest": experiment.digest,
        "dataset_digest": outcome.dataset.digest,
        "onnx": str(outcome.artifact.path),
        "sha256": outcome.artifact.sha256,
        "metrics": outcome.fit.metrics | outcome.evaluation.metrics,
        "parity": {"passed": True, "max_abs_diff": outcome.proof.max_abs_diff, "rows": outcome.proof.rows},
        "diagnosis": [asdict(finding) for finding in outcome.findings],
        "model_version": version.version,
        "resumed_from": _resumed_from(outcome),
    }


def _resumed_from(outcome: "Outcome") -> dict[str, int] | None:
    """Epochs that were complete, and updates of the next; None if no earlier process began this run."""
    if not (outcome.run.attempt.is_continued or outcome.fit.resumed_from):
        return None
    epoch, step = outcome.fit.resumed_from or (0, 0)
    return {"epoch": epoch, "step": step}


def _failure(error: BaseException) -> dict[str, Any]:
    match error:
        case InputError():
            return {"status": "refused", "error": str(error)}
        case KeyboardInterrupt():
            return {"status": "interrupted", "error": "interrupted"}
        case _:
            return {"status": "failed", "error": str(error)}


def _print_json(result: dict[str, Any]) -> None:
    sys.stdout.write(jsonlib.dumps(result) + "\n")


def _print_table(outcome: "Outcome") -> None:
    metrics, version = outcome.evaluation.metrics, outcome.model_version
    rows = {
        "accuracy": f"{metrics['test/accuracy']:.4f} on {outcome.proof.rows} test rows",
        "loss": f"{metrics['test/loss']:.4f}",
        "unit": ", ".join(f"{name[6:]} {value:.4f}" for name, value in metrics.items() if name.startswith("model/")),
        "parity": f"passed: largest difference {outcome.proof.max_abs_diff:.1e}, every label equal",
        "findings": ", ".join(finding.code for finding in outcome.findings) or "none",
        "model": f"{version.name} version {version.version}" + ", champion" * version.is_champion,
        "onnx": _short(outcome.artifact.path),
        "run": outcome.run.url,
        "next": f"{_command()} ui",
    }
    # Not wrapped: a path or an address that is cut in two can be neither clicked nor copied.
    console = Console(soft_wrap=True, highlight=False)
    for name, value in rows.items():
        if value:
            console.print(Text.assemble((f"{name:<9}", "bold"), value))


def _short(path: Path) -> str:
    """Relative to the current folder where that is shorter."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _command() -> str:
    """How to type `hallmark` from here."""
    return "hallmark" if shutil.which("hallmark") else _short(Path(sys.argv[0]).absolute())
