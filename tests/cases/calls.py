"""Running the commands of a case: in this process, or in child processes with limits of time and memory."""

import csv
import io
import os
import resource
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from hallmark.flows import __main__ as command_line
from tests.cases.case import Case, Found, Predictions
from tests.support import forks

IN_PROCESS_SECONDS = 300
"""Time limit of a command in this process."""
CHILD_SECONDS = 90
"""Time limit of a command in a child process."""
CHILD_BYTES = 6 * 2**30
"""Memory that a child process may use, beside what the process that it is forked from has mapped."""

_done: set[tuple[Path, str]] = set()
"""Folders and commands of `Case.after` that have been run."""


def find(case: Case, folder: Path) -> Found:
    """Run a case in this process.

    Args:
        case: a case whose command is not isolated.
        folder: the folder of the inputs.
    """
    with chdir(folder):
        for command in case.after:
            if (folder, command) not in _done:
                _run(command)
                _done.add((folder, command))
        if not case.command.startswith("predict "):
            return _run(case.command)
        found, predictions = _predict(case.command)
        if not case.equals:
            return found
        _, compared = _predict(f"predict {shlex.split(case.command)[1]} {case.equals}")
        return replace(found, predictions=predictions, compared=compared or [])


def _predict(command: str) -> tuple[Found, Predictions | None]:
    """Run `predict` and read the predictions that it writes."""
    with TemporaryDirectory() as name:
        output = Path(name) / "predictions.csv"
        command, given, file = command.partition(" < ")
        found = _run(f"{command} --output {shlex.quote(str(output))}{given}{file}")
        if not output.exists():
            return found, None
        with output.open(newline="") as written:
            return found, list(csv.DictReader(written))


def _run(command: str) -> Found:
    """Run a command in this process, behind `cd FOLDER &&` and with `< FILE` as its input, if it has them."""
    first, _, rest = command.partition(" && ")
    folder, command = (first.removeprefix("cd "), rest) if rest else (".", command)
    command, _, given = command.partition(" < ")
    tokens, printed = shlex.split(command), io.StringIO()
    with chdir(folder), _input(given), _time_limit(), redirect_stdout(printed), redirect_stderr(printed):
        match tokens:
            case ["cp", source, target]:
                shutil.copy(source, target)
                code = 0
            case ["read", source, *options]:
                code = _reported(partial(_read, source, options))
            case _:
                code = command_line.run(tokens)
    return Found(code, printed.getvalue().replace(f"{Path.cwd()}/", ""), failed=int(code != 0))


def _reported(action: Callable[[], None]) -> int:
    """Call a function, and report what it raises as a command does; return the exit code."""
    try:
        action()
    except BaseException as error:  # noqa: BLE001 - reported like that of a command
        return command_line._exit_code(error)
    return 0


def _read(source: str, tokens: Sequence[str]) -> None:
    """Read, split, store, draw and examine a table, as `hallmark train` does before it trains."""
    from hallmark.flows.cli.shared import execution
    from hallmark.flows.experiments import options
    from hallmark.tasks.common.files import temporary_folder
    from hallmark.tasks.ml.data.dataset_store import open_split
    from hallmark.tasks.ml.evaluation.findings import before_training, table_data
    from hallmark.tasks.ml.reports import data_profile
    from hallmark.tasks.prepare import prepare
    from hallmark.tasks.runtime import progress

    experiment = options.experiment(source, tokens)
    execution.refuse_impossible(experiment)
    dataset = prepare.fn(experiment)
    with temporary_folder() as folder:
        data_profile.profile(dataset, folder)
    progress.findings(before_training.find(experiment) + table_data.find(dataset, experiment.data))
    progress.line("stored", f"classes: {', '.join(map(repr, dataset.classes))}")
    x = np.concatenate([open_split(dataset, split).x for split, count in dataset.rows.items() if count])
    for name, values in list(zip(dataset.columns, x.T, strict=True))[:10]:
        progress.line("stored", f"{name}: {len(np.unique(values[~np.isnan(values)]))}")


@contextmanager
def _input(path: str) -> Iterator[None]:
    """Read standard input from a file."""
    if not path:
        yield
        return
    before = sys.stdin
    with Path(path).open() as file:
        sys.stdin = file
        try:
            yield
        finally:
            sys.stdin = before


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raise an error in the block if it takes too long."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {IN_PROCESS_SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(IN_PROCESS_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def in_process(command: str, folder: Path) -> Found:
    """Run a command in this process, without limits."""
    with chdir(folder):
        return _run(command)


def in_child(command: str, folder: Path) -> Found:
    """Run a command in a child process."""
    with TemporaryDirectory() as name:
        process = forks.call(partial(_limited, shlex.split(command), str(folder)), Path(name))
        process.join(CHILD_SECONDS)
        code = process.exitcode
        if code is None:
            with suppress(ProcessLookupError):  # it has no group of its own yet
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.kill()
            process.join()
        printed = [(Path(name) / stream).read_text(errors="backslashreplace") for stream in forks.STREAMS]
    return Found(code, "".join(printed))


def find_isolated(case: Case, folder: Path, run: Callable[[str, Path], Found] = in_child) -> Found:
    """Run each command of a case, separated by `;`.

    Args:
        case: a case whose commands are isolated.
        folder: the folder of the inputs.
        run: runs one command; by default in a child process of its own.
    """
    found = [run(command, folder) for command in case.command.split("; ")]
    codes, text = [one.code for one in found], "".join(one.text for one in found)
    return Found(None if None in codes else codes[-1], text, failed=sum(code != 0 for code in codes))


def _limited(tokens: list[str], folder: str) -> int:
    """Run a command with a limit of memory, in a process group of its own."""
    os.setsid()
    os.chdir(folder)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + CHILD_BYTES, resource.RLIM_INFINITY))
    return command_line.run(tokens)
