"""Run a flow from a command: servers, log file, and a failure as one line."""

import importlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hallmark.flows.cli.shared import log_handlers
from hallmark.flows.station import prefect_server
from hallmark.tasks.common.errors import HallmarkError, InputError, UnavailableError
from hallmark.tasks.runtime import prefect_api, progress, running_commands, settings, signals

if TYPE_CHECKING:
    from hallmark.tasks.ml.config.experiment import Experiment

T = TypeVar("T")

logger = logging.getLogger(__name__)

USED_LATER = ("sklearn.metrics", "sklearn.model_selection", "torch._dynamo", "onnxscript", "mlflow.onnx")
"""Slow modules that the steps import when needed; imported here while the embedded server boots on another core."""


def execute(flow: str, name: str, load: Callable[[], Callable[[], T]]) -> T:
    """Run a flow with a Prefect server, an MLflow store and a log file.

    Args:
        flow: name of the flow, used in the error message if a failure belongs to none of its steps.
        name: name of the experiment, part of the log file's name.
        load: imports the flow, refuses invalid input (cheapest checks first) and returns a function that runs the
            flow. Called while the Prefect server boots.

    Returns:
        what the flow returned.

    Raises:
        InputError: `HALLMARK_HOME` cannot be written, a setting is invalid, a server does not answer, or `load`
            refused the input.
        HallmarkError: the flow failed; the message names the step and the log file.
        KeyboardInterrupt: the flow was interrupted.
    """
    machine = settings.read()
    machine.require(*settings.OF_A_RUN)
    home = machine.writable_home()
    log = home / "logs" / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{name}-{os.getpid()}.log"
    # The terminal shows Hallmark's progress lines; Prefect's log goes to the file.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    # Otherwise it prints each event that a server did not take at once. They are sent again.
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")
    logging.raiseExceptions = False  # a record that cannot be written or sent is not worth lines on the terminal
    prefect_api.wait_long()
    log.parent.mkdir(exist_ok=True)
    server = prefect_api.in_settings()
    wait = prefect_server.provide(log.with_name("server.log"))
    run = load()
    from hallmark.tasks.tracking import client, resume

    client.connect()
    try:
        resume.close_orphans()  # of any command that a kill or a server that was away has left open
    except UnavailableError as error:
        raise InputError(str(error)) from error
    for module in USED_LATER:
        importlib.import_module(module)
    wait()
    with signals.as_interrupt(), _logged(flow, log), running_commands.registered(home, flow, server):
        from hallmark.tasks.runtime import flow_artifacts  # imports Prefect, as the flow has

        _close_abandoned(home, server)
        return flow_artifacts.result_of(run)


def refuse_impossible(*members: "Experiment") -> None:
    """Check that data, model and training fit together, if the data is on this machine.

    Data that must be downloaded first is checked by the first step of the flow instead.

    Args:
        members: one experiment, or the members of a sweep, which have the same data.

    Raises:
        InputError: they do not; the message says why and what to change.
    """
    from hallmark.tasks.ml.data import dataset_store, sources, splits, suitability
    from hallmark.tasks.ml.training import devices, sweep_plan

    data = members[0].data
    devices.choose(members[0].training.device)
    if not sources.is_local(data):
        return
    table = sources.read(data, settings.read().home, progress=progress.images)
    divided = splits.divide(table, data.split)
    for member in members:
        suitability.refuse_impossible(table, divided, member.model, member.training)
    if len(members) > 1:
        sweep_plan.refuse_too_many(members, dataset_store.outline(table, data))


def _close_abandoned(home: Path, server: str | None) -> None:
    """Close in Prefect what killed commands of this home left running. A failure is logged only."""
    if not (abandoned := running_commands.abandoned(home)):
        return
    try:
        for line in running_commands.crash(abandoned, server):
            logger.info(line)
    except Exception as error:  # noqa: BLE001 - the next command tries again; this one may still succeed
        logger.warning("what a killed command left running cannot be closed: %s", error)


@contextmanager
def _logged(flow: str, log: Path) -> Iterator[None]:
    """Log to a file, and Hallmark's warnings to stderr too; turn an exception into one line that names the step."""
    file, terminal = log_handlers.LogFile(log), log_handlers.terminal()
    handlers = [("prefect", file), ("mlflow", file), ("hallmark", file), ("hallmark", terminal)]
    for name, handler in handlers:
        logging.getLogger(name).addHandler(handler)
    logging.getLogger("hallmark").setLevel(logging.INFO)
    try:
        yield
    except Exception as error:
        from hallmark.tasks.runtime import steps  # imports Prefect, as the flow has

        if signals.interrupted(error):
            raise KeyboardInterrupt from error
        text = f"{steps.failed_step(error) or flow} failed: {error or type(error).__name__} (log: {log})"
        raise (type(error) if isinstance(error, HallmarkError) else HallmarkError)(text) from error
    finally:
        for name, handler in handlers:
            logging.getLogger(name).removeHandler(handler)
        file.close()
