"""Kill real `hallmark train` processes at random moments, and compare the result with an uninterrupted process.

Starting Python and importing libraries takes longer than all steps together, and a kill during that time does no harm.
Most processes are therefore forked from a server that has imported everything, so that most kills hit a step. Forked
processes write checkpoints ten times a second instead of every ten seconds.
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from hallmark.tasks.common.digests import file_digest
from tests.conftest import ROOT
from tests.support import databases, forks
from tests.support.processes import HALLMARK, until

EPOCHS = 120
EXPERIMENT = ["digits", "--training.device", "cpu", "--training.epochs", str(EPOCHS)]
ANCHORS = ("start", "prepare", "evaluate", "export", "verify")
"""Moments from which the delay of a kill is measured: the start, and steps that each command reports, resumed or not.
If all delays were measured from the start, most kills would hit the start whenever the machine gets slower."""
PAUSE = 0.005
"""Seconds between two looks at what a command has written: a step may take less than a tenth of a second."""
LIMIT = 300
"""Maximum duration of a process, in seconds."""


@dataclass(frozen=True)
class Sandbox:
    """A folder with the home, the tracking store and the output of one command."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        uri = f"sqlite:///{self.folder / 'mlruns' / 'mlflow.db'}"
        home = str(self.folder / "home")
        return {"HALLMARK_HOME": home, "MLFLOW_TRACKING_URI": uri, "HALLMARK_CHECKPOINT_SECONDS": "0.1"}

    @property
    def stderr_lines(self) -> list[str]:
        """Lines that the last command wrote to stderr."""
        path = self.folder / "stderr"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def running_commands(self) -> list[Path]:
        """Files of commands that run or were killed."""
        return list(self.folder.glob("home/running/*.json"))

    @property
    def newest_checkpoint(self) -> str:
        """Name of the newest checkpoint, or an empty string. Checkpoint names are ascending numbers."""
        return max((path.name for path in self.folder.glob("home/unfinished/*/*.safetensors")), default="")

    @property
    def last_step(self) -> str:
        """Last step that the last command reported, or `start`."""
        steps = [line.split()[0] for line in self.stderr_lines if line and not line.startswith("finding")]
        return steps[-1] if steps else "start"


@dataclass(frozen=True)
class Result:
    """Everything that must be the same however often the command was killed before it finished."""

    runs: list[str]
    """Status of each run."""
    metrics: dict[str, list[tuple[int, float]]]
    """Steps and values in MLflow, with duplicates, without the metrics `time/*`."""
    times: dict[str, list[int]]
    """Steps of the metrics `time/*`. Their values differ between attempts."""
    logged_models: list[int]
    """Status of each logged model."""
    versions: list[int]
    artifacts: list[str]
    """Last two parts of each path."""
    files: dict[str, str]
    """SHA-256 by file name: weights, exported ONNX file and registered ONNX file."""

    @property
    def is_finished(self) -> bool:
        return "FINISHED" in self.runs

    @property
    def faults(self) -> list[str]:
        """Errors of a result that are errors even after an interruption."""
        texts = []
        points = {name: [step for step, _ in curve] for name, curve in self.metrics.items()}
        for name, steps in (self.times | points).items():
            duplicates = [step for step, count in Counter(steps).items() if count > 1]
            texts += [f"{name} has steps {duplicates[:5]} more than once"] if duplicates else []
        for kind, items in (("runs", self.runs), ("logged models", self.logged_models), ("versions", self.versions)):
            texts += [f"{len(items)} {kind}: {items}"] if len(items) != 1 else []
        return texts


def create(folder: Path) -> Sandbox:
    """Create a sandbox with an empty MLflow database."""
    databases.mlflow(folder / "mlruns" / "mlflow.db")
    return Sandbox(folder)


def copy(sandbox: Sandbox, folder: Path) -> Sandbox:
    """Copy a sandbox to another folder."""
    shutil.copytree(sandbox.folder, folder)
    return Sandbox(folder)


def result(sandbox: Sandbox) -> Result:
    """Read the result directly from the database and the folders."""
    with closing(sqlite3.connect(sandbox.folder / "mlruns" / "mlflow.db", timeout=60)) as database:

        def rows(query: str) -> list[tuple[Any, ...]]:
            return database.execute(query).fetchall()

        points: dict[str, list[tuple[int, float]]] = {}
        for name, step, value in rows("SELECT key, step, value FROM metrics ORDER BY key, step"):
            points.setdefault(name, []).append((step, value))
        runs = [status for (status,) in rows("SELECT status FROM runs ORDER BY start_time")]
        logged = [status for (status,) in rows("SELECT status FROM logged_models WHERE lifecycle_stage = 'active'")]
        versions = [version for (version,) in rows("SELECT version FROM model_versions")]
    artifacts = sandbox.folder / "mlruns" / "artifacts"
    return Result(
        runs=runs,
        metrics={name: curve for name, curve in points.items() if not name.startswith("time/")},
        times={name: [step for step, _ in curve] for name, curve in points.items() if name.startswith("time/")},
        logged_models=logged,
        versions=versions,
        artifacts=sorted("/".join(path.parts[-2:]) for path in artifacts.rglob("*") if path.is_file()),
        files={path.name: file_digest(path) for path in [*_fit_files(sandbox), *artifacts.rglob("model.onnx")]},
    )


def _fit_files(sandbox: Sandbox) -> Iterator[Path]:
    for name in ("weights.safetensors", "*.onnx"):
        yield from (sandbox.folder / "home" / "fits").glob(f"*/{name}")


def differences(one: Result, other: Result) -> list[str]:
    """Return the differences between two results, one line of text each."""
    texts = [
        f"{name}: {getattr(one, name)} is not {getattr(other, name)}"
        for name in ("runs", "times", "logged_models", "versions", "artifacts", "files")
        if getattr(one, name) != getattr(other, name)
    ]
    for name in sorted(one.metrics.keys() | other.metrics.keys()):
        first, second = (Counter(each.metrics.get(name, [])) for each in (one, other))
        texts += [f"{name}: {sorted((first - second) + (second - first))[:5]} differ"] if first != second else []
    return [text[:300] for text in texts]


@contextmanager
def start_command(sandbox: Sandbox, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the command in a new Python process, as from a terminal. It is killed at the end of the block."""
    with (sandbox.folder / "stderr").open("wb") as error, (sandbox.folder / "stdout").open("wb") as output:
        process = subprocess.Popen(
            [HALLMARK, "train", *EXPERIMENT, *options],
            cwd=ROOT,
            env=os.environ | sandbox.environment,
            stdout=output,
            stderr=error,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_for_step(sandbox: Sandbox, step: str) -> None:
    """Wait until the command has reported a step."""
    until(lambda: step in _steps(sandbox.stderr_lines), pause=PAUSE)


def _steps(lines: list[str]) -> list[str]:
    """Return the step that each line of output reports."""
    return [line.split()[0] for line in lines if line]


def start_forked(sandbox: Sandbox) -> BaseProcess:
    """Start the same command in a forked process."""
    return forks.call(_train, sandbox.folder, os.environ | sandbox.environment)


def _train() -> int:
    from hallmark.flows.__main__ import run
    from hallmark.tasks.ml.training import checkpoints

    checkpoints._SHARE = 1e9
    return run(["train", *EXPERIMENT])


def exits_within(process: BaseProcess, seconds: float) -> bool:
    """Wait up to `seconds` for a process, then kill it; return whether it ended by itself."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
    process.join()
    return process.exitcode != -signal.SIGKILL


def run_twice(template: Sandbox, folder: Path) -> tuple[tuple[Result, Result], float]:
    """Run the command twice without a kill; return both results and the duration of the second run in seconds.

    The first run also waits until the forkserver has imported everything.
    """
    results, seconds = [], 0.0
    for name in ("first", "second"):
        sandbox = copy(template, folder / name)
        started = time.monotonic()
        assert exits_within(start_forked(sandbox), LIMIT), sandbox.stderr_lines
        seconds = time.monotonic() - started
        results.append(result(sandbox))
    return (results[0], results[1]), seconds


@dataclass
class Chain:
    """Kill the command repeatedly until all kills are used, and compare each finished experiment with the reference."""

    template: Sandbox
    """A sandbox with an empty MLflow database, in which no command has run."""
    folder: Path
    reference: Result
    seconds: float
    """Duration of a forked command that is not killed."""
    kills: int
    random: random.Random
    kills_by_step: Counter[str] = field(default_factory=Counter)
    """Number of kills by the last reported step."""
    errors: list[str] = field(default_factory=list)
    finished: int = 0

    def run(self) -> None:
        """Kill the command `kills` times, at random moments after each anchor in turn, in random order."""
        anchors = self.random.sample([ANCHORS[kill % len(ANCHORS)] for kill in range(self.kills)], self.kills)
        moments = [(anchor, self.random.uniform(0, self.seconds / 3)) for anchor in anchors]
        sandbox = self._new_sandbox()
        while moments:
            if self._kill(sandbox, moments):
                self._compare(sandbox)
                sandbox = self._new_sandbox()
        while not self._kill(sandbox, []):
            pass
        self._compare(sandbox)

    def _new_sandbox(self) -> Sandbox:
        return copy(self.template, self.folder / f"{self.finished}")

    def _kill(self, sandbox: Sandbox, moments: list[tuple[str, float]]) -> bool:
        """Start the command and kill it at the next moment; return whether its run is finished."""
        (sandbox.folder / "stderr").unlink(missing_ok=True)
        process = start_forked(sandbox)
        anchor, seconds = moments[-1] if moments else ("start", LIMIT)
        until(lambda: process.exitcode is not None or anchor in ["start", *_steps(sandbox.stderr_lines)], pause=PAUSE)
        ended_by_itself = exits_within(process, seconds)
        if ended_by_itself and moments:
            moments[-1] = anchor, seconds / 2  # it ended before the kill
        if not ended_by_itself:
            assert moments, f"the command took more than {LIMIT} s"
            moments.pop()
            self.kills_by_step[sandbox.last_step] += 1
        elif process.exitcode:
            self.errors.append(f"exit code {process.exitcode}: {sandbox.stderr_lines[-1:]}")
            return True
        # If the run was finished before the kill, the same command would start a new training instead of resuming.
        return ended_by_itself or result(sandbox).is_finished

    def _compare(self, sandbox: Sandbox) -> None:
        self.finished += 1
        self.errors += differences(result(sandbox), self.reference)
