"""Start processes by forking a server process that has already imported all libraries. All tests share this forkserver.

A command started this way takes a fifth of the time of a new Python process, which spends most of its time on imports.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.processes import LIMIT

STREAMS = ("stdout", "stderr")


def context() -> ForkServerContext:
    """Return the multiprocessing context of the forkserver."""
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(["tests.support.preloaded"])
    return forkserver


def call(action: Callable[[], object], folder: Path, environment: Mapping[str, str] | None = None) -> BaseProcess:
    """Start a process that calls a function.

    Args:
        action: the function. It must be picklable. Its return value is the exit code; None means 0.
        folder: folder of the files `stdout` and `stderr` with the output of the process.
        environment: all environment variables of the process. None means those of this process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in STREAMS:
        (folder / name).write_bytes(b"")
    variables = dict(os.environ if environment is None else environment)
    process = context().Process(target=_call, args=(action, str(folder), variables))
    process.start()
    atexit.register(process.kill)  # not daemon=True: daemons may not have children, and a sweep starts workers
    return process


def start(tokens: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> BaseProcess:
    """Start a command, given without the word `hallmark`; see `call`."""
    return call(partial(_run, list(tokens)), folder, environment)


def hallmark(*tokens: str, environment: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command and wait for it; return exit code, stdout and stderr."""
    with TemporaryDirectory() as name:
        process = start(tokens, Path(name), environment)
        process.join(LIMIT)
        output, error = ((Path(name) / stream).read_text() for stream in STREAMS)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{tokens} did not end within {LIMIT} seconds: {error}")
        return subprocess.CompletedProcess(tokens, process.exitcode, output, error)


def _run(tokens: list[str]) -> int:
    from hallmark.flows.__main__ import run

    return run(tokens)


def _call(action: Callable[[], object], folder: str, environment: dict[str, str]) -> None:
    from prefect.context import refresh_global_settings_context

    os.environ.clear()
    os.environ.update(environment)
    refresh_global_settings_context()  # Prefect read the environment when it was imported
    # As in a process started by a shell. The forkserver ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in enumerate(STREAMS, 1):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY), number)
    sys.exit(action())  # type: ignore[arg-type]
