"""Real `hallmark train` processes that are killed at random moments, and what has become of their experiment then.

Starting Python and importing the libraries takes longer than all steps together, and nothing can go wrong there: most
processes are forked from one that has imported everything (the standard library's forkserver), and most kills hit a
step. There, checkpoints are written ten times a second, not every ten seconds.
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from hallmark.tasks.common.digests import file_digest
from tests.conftest import ROOT
from tests.support import databases, forks

HALLMARK = str(Path(sys.executable).with_name("hallmark"))
EPOCHS = 120
EXPERIMENT = ["digits", "--training.device", "cpu", "--training.epochs", str(EPOCHS)]
ANCHORS = ("start", "prepare", "evaluate", "export", "verify")
"""From where the moment of a kill is counted: the start, and steps that every command says it has done, resumed or not.
Counted from the start alone, most kills would hit the start wherever the machine is slower than it was."""
LIMIT = 300
"""Seconds after which a process that has not ended is a failure."""


@dataclass(frozen=True)
class Place:
    """Where a command keeps its files and its runs."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        uri = f"sqlite:///{self.folder / 'mlruns' / 'mlflow.db'}"
        home = str(self.folder / "home")
        return {"HALLMARK_HOME": home, "MLFLOW_TRACKING_URI": uri, "HALLMARK_CHECKPOINT_SECONDS": "0.1"}

    @property
    def said(self) -> list[str]:
        """What the last command wrote to stderr."""
        path = self.folder / "stderr"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def newest(self) -> str:
        """Name of the newest checkpoint: their names count up."""
        return max((path.name for path in self.folder.glob("home/unfinished/*/*.safetensors")), default="")

    @property
    def step(self) -> str:
        """The last step that the last command said it had done."""
        steps = [line.split()[0] for line in self.said if line and not line.startswith("finding")]
        return steps[-1] if steps else "start"


@dataclass(frozen=True)
class Result:
    """All that must be the same, however often the command was killed before it ended."""

    runs: list[str]
    """State of each."""
    metrics: dict[str, list[tuple[int, float]]]
    """Steps and values in MLflow, each as often as it is there, but for `time/`."""
    times: dict[str, list[int]]
    """Steps alone: a second try takes another time."""
    logged_models: list[int]
    """State of each."""
    versions: list[int]
    artifacts: list[str]
    """Paths below the run's folder."""
    files: dict[str, str]
    """SHA-256 by name, of weights, ONNX file and what the registry has."""

    @property
    def is_finished(self) -> bool:
        return "FINISHED" in self.runs

    @property
    def faults(self) -> list[str]:
        """What no interruption excuses."""
        found = []
        points = {name: [step for step, _ in some] for name, some in self.metrics.items()}
        for name, steps in (self.times | points).items():
            twice = [step for step, count in Counter(steps).items() if count > 1]
            found += [f"{name} has steps {twice[:5]} more than once"] if twice else []
        for what, some in (("runs", self.runs), ("logged models", self.logged_models), ("versions", self.versions)):
            found += [f"{len(some)} {what}: {some}"] if len(some) != 1 else []
        return found


def made(folder: Path) -> Place:
    """A place with a database in which there is nothing yet."""
    databases.mlflow(folder / "mlruns" / "mlflow.db")
    return Place(folder)


def copy(place: Place, folder: Path) -> Place:
    """Another place like it."""
    shutil.copytree(place.folder, folder)
    return Place(folder)


def result(place: Place) -> Result:
    """Read what there is, straight from the database and the folders."""
    with closing(sqlite3.connect(place.folder / "mlruns" / "mlflow.db", timeout=60)) as database:

        def rows(query: str) -> list[tuple[Any, ...]]:
            return database.execute(query).fetchall()

        points: dict[str, list[tuple[int, float]]] = {}
        for name, step, value in rows("SELECT key, step, value FROM metrics ORDER BY key, step"):
            points.setdefault(name, []).append((step, value))
        runs = [status for (status,) in rows("SELECT status FROM runs ORDER BY start_time")]
        logged = [status for (status,) in rows("SELECT status FROM logged_models WHERE lifecycle_stage = 'active'")]
        versions = [version for (version,) in rows("SELECT version FROM model_versions")]
    artifacts = place.folder / "mlruns" / "artifacts"
    return Result(
        runs=runs,
        metrics={name: some for name, some in points.items() if not name.startswith("time/")},
        times={name: [step for step, _ in some] for name, some in points.items() if name.startswith("time/")},
        logged_models=logged,
        versions=versions,
        artifacts=sorted("/".join(path.parts[-2:]) for path in artifacts.rglob("*") if path.is_file()),
        files={path.name: file_digest(path) for path in [*_made(place), *artifacts.rglob("model.onnx")]},
    )


def _made(place: Place) -> Iterator[Path]:
    for name in ("weights.safetensors", "*.onnx"):
        yield from (place.folder / "home" / "fits").glob(f"*/{name}")


def differences(one: Result, other: Result) -> list[str]:
    """In what two results differ, in words that fit on a line."""
    found = [
        f"{what}: {getattr(one, what)} is not {getattr(other, what)}"
        for what in ("runs", "times", "logged_models", "versions", "artifacts", "files")
        if getattr(one, what) != getattr(other, what)
    ]
    for name in sorted(one.metrics.keys() | other.metrics.keys()):
        mine, theirs = (Counter(each.metrics.get(name, [])) for each in (one, other))
        found += [f"{name}: {sorted((mine - theirs) + (theirs - mine))[:5]} differ"] if mine != theirs else []
    return [text[:300] for text in found]


def leftovers(place: Place) -> list[str]:
    """What kills have left in the home, and nobody has taken away."""
    return sorted(str(path.relative_to(place.folder)) for path in place.folder.rglob(".tmp-*"))


@contextmanager
def typed(place: Place, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The command as it is typed, in a process of its own."""
    with (place.folder / "stderr").open("wb") as error, (place.folder / "stdout").open("wb") as output:
        process = subprocess.Popen(
            [HALLMARK, "train", *EXPERIMENT, *options],
            cwd=ROOT,
            env=os.environ | place.environment,
            stdout=output,
            stderr=error,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def reach(place: Place, step: str) -> None:
    """Wait until the command has said something of a step."""
    until(lambda: step in _steps(place.said))


def _steps(said: list[str]) -> list[str]:
    """Of which steps lines speak."""
    return [line.split()[0] for line in said if line]


def until(happened: Callable[[], bool]) -> None:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + LIMIT
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def forked(place: Place) -> BaseProcess:
    """The same command in a process that is forked from one that has imported everything."""
    return forks.call(_train, place.folder, os.environ | place.environment)


def _train() -> int:
    from hallmark.flows.__main__ import run
    from hallmark.tasks.ml.training import checkpoints

    checkpoints._SHARE = 1e9
    return run(["train", *EXPERIMENT])


def ended(process: BaseProcess, seconds: float) -> bool:
    """Let a process run so long, then kill it; whether it had come to its end by itself."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
    process.join()
    return process.exitcode != -signal.SIGKILL


def twice(template: Place, folder: Path) -> tuple[tuple[Result, Result], float]:
    """What comes of the command if nobody kills it, two times, and the seconds of the second.

    The first waits until everything has been imported.
    """
    results, seconds = [], 0.0
    for name in ("first", "second"):
        place = copy(template, folder / name)
        started = time.monotonic()
        assert ended(forked(place), LIMIT), place.said
        seconds = time.monotonic() - started
        results.append(result(place))
    return (results[0], results[1]), seconds


@dataclass
class Chain:
    """Kill the command again and again until all kills are spent, and compare whatever comes to its end."""

    template: Place
    """A place where nothing has run yet, with a database that is made."""
    folder: Path
    reference: Result
    seconds: float
    """What a forked command takes that nobody kills."""
    kills: int
    random: random.Random
    hit: Counter[str] = field(default_factory=Counter)
    """How many kills came after which step."""
    wrong: list[str] = field(default_factory=list)
    finished: int = 0

    def run(self) -> None:
        """Kill as often as said, at random moments after each anchor in turn, in random order."""
        anchors = self.random.sample([ANCHORS[kill % len(ANCHORS)] for kill in range(self.kills)], self.kills)
        moments = [(anchor, self.random.uniform(0, self.seconds / 3)) for anchor in anchors]
        place = self._anew()
        while moments:
            if self._kill(place, moments):
                self._compare(place)
                place = self._anew()
        while not self._kill(place, []):
            pass
        self._compare(place)

    def _anew(self) -> Place:
        return copy(self.template, self.folder / f"{self.finished}")

    def _kill(self, place: Place, moments: list[tuple[str, float]]) -> bool:
        """Start the command and kill it at the next moment; whether its run has come to its end."""
        (place.folder / "stderr").unlink(missing_ok=True)
        process = forked(place)
        anchor, seconds = moments[-1] if moments else ("start", LIMIT)
        until(lambda: process.exitcode is not None or anchor in ["start", *_steps(place.said)])
        by_itself = ended(process, seconds)
        if by_itself and moments:
            moments[-1] = anchor, seconds / 2  # it came to its end before
        if not by_itself:
            assert moments, "it takes too long"
            moments.pop()
            self.hit[place.step] += 1
        elif process.exitcode:
            self.wrong.append(f"exit code {process.exitcode}: {place.said[-1:]}")
            return True
        # Killed after its run was finished it has nothing to go on with: the same command would train anew.
        return by_itself or result(place).is_finished

    def _compare(self, place: Place) -> None:
        self.finished += 1
        self.wrong += differences(result(place), self.reference)
