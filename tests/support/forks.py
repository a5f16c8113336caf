"""Processes forked from one that has imported everything, the standard library's forkserver. All tests share it.

A command that is started like this takes a fifth of the time of one that is typed, most of which imports libraries.
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
    """Where such processes are made."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.support.preloaded"])
    return found


def call(action: Callable[[], object], folder: Path, environment: Mapping[str, str] | None = None) -> BaseProcess:
    """Start a process that calls a function.

    Args:
        action: the function, which can be pickled. What it returns is the exit code; None is 0.
        folder: what the process prints goes to its files `stdout` and `stderr`.
        environment: the whole environment; this process's if None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in STREAMS:
        (folder / name).write_bytes(b"")
    given = dict(os.environ if environment is None else environment)
    process = context().Process(target=_call, args=(action, str(folder), given))
    process.start()
    atexit.register(process.kill)  # a daemon could have no children of its own, such as the workers of a sweep
    return process


def start(tokens: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> BaseProcess:
    """Start a command, given without `hallmark` itself; see `call`."""
    return call(partial(_run, list(tokens)), folder, environment)


def hallmark(*tokens: str, environment: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end; return exit code, stdout and stderr."""
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
    refresh_global_settings_context()  # Prefect has read the environment when it was imported
    # As in a process that a shell has started; the standard library's forkserver ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in enumerate(STREAMS, 1):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY), number)
    sys.exit(action())  # type: ignore[arg-type]
