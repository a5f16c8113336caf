"""A killed sweep is resumed by the same command and leaves no process behind."""

import json
import os
import signal
import subprocess
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from hallmark.flows.__main__ import run
from hallmark.flows.experiments import sweep_grids
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.common.records import Fit
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import sweep_plan, trainer
from hallmark.tasks.ml.training.history import curves
from hallmark.tasks.tracking.client import connect
from tests.conftest import prepare
from tests.support import forks
from tests.support.processes import until

LIMIT = 120
"""Timeout in seconds."""

Options = dict[str, object]

STACKED: Options = {"training.lr": "0.01,0.02", "training.seed": "0..1", "training.epochs": 90}
"""Four members that are trained together."""
MIXED: Options = {
    "training.lr": "0.01,0.02,0.04,3e38",
    "training.batch_size": "8,16,32",
    "training.epochs": 80,
    "random": 4,
    "random-seed": 8,
}
"""Members 0 and 2 are trained together, 1 and 3 in the process pool. Member 1 diverges."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: str) -> Path:
    """Set a new home, and let child processes use the Prefect server of this worker."""
    monkeypatch.setenv("HALLMARK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    return tmp_path / "home"


def arguments(options: Options) -> list[str]:
    """Return arguments for softmax regressions on digits, too small for two threads, with a unique name."""
    values = {"name": f"k{uuid.uuid4().hex[:12]}", "model.kind": "linear", "training.device": "cpu"}
    values |= {"training.optimizer": "sgd", "training.batch_size": 8} | options
    return [f"--{path}={value}" for path, value in values.items()]


def members(tokens: Sequence[str]) -> tuple[Experiment, ...]:
    drawn = {token.partition("=")[0]: token.partition("=")[2] for token in tokens if token.startswith("--random")}
    own = [token for token in tokens if not token.startswith("--random")]
    if drawn:
        return sweep_grids.random("digits", own, int(drawn["--random"]), int(drawn["--random-seed"])).members
    return sweep_grids.grid("digits", own).members


@pytest.fixture
def forked(home: Path) -> Iterator[Callable[[Sequence[str]], BaseProcess]]:
    """Return a function that starts the command in a process forked from the forkserver."""
    started: list[BaseProcess] = []

    def start(tokens: Sequence[str]) -> BaseProcess:
        sweep = partial(_sweep, ["sweep", "digits", *tokens, "--json"], sweep_plan.SPLIT_THRESHOLD)
        started.append(forks.call(sweep, home))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.join()


def _sweep(tokens: list[str], split_threshold: float) -> int:
    sweep_plan.SPLIT_THRESHOLD = split_threshold
    return run(tokens)


def wait_for_epochs(home: Path, trainings: int, process: BaseProcess, *, epochs: int) -> None:
    """Wait until `trainings` trainings have each recorded `epochs` more epochs in their journals."""
    before = _epochs(home)
    until(
        lambda: (
            process.exitcode is not None
            or sum((_epochs(home) - before)[name] >= epochs for name in _epochs(home)) >= trainings
        ),
        LIMIT,
        pause=0.01,  # they end within a second or two
    )
    assert process.exitcode is None, (home / "stderr").read_text()


def _epochs(home: Path) -> Counter[str]:
    return Counter({str(path): path.read_bytes().count(b'epoch"') for path in home.glob("unfinished/*/*/journal")})


def children(process: BaseProcess) -> list[int]:
    completed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    return list(map(int, completed.stdout.split()))


def is_alive(process: int) -> bool:
    completed = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return completed.stdout.strip()[:1] not in ("", "Z")


def runs(tokens: Sequence[str]) -> dict[str, Run]:
    """Return the runs of the sweep and its members by name."""
    (name,) = (token.removeprefix("--name=") for token in tokens if token.startswith("--name="))
    client = connect()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`hallmark.name` = '{name}'")
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def statuses(tokens: Sequence[str]) -> set[str]:
    return {run.info.status for run in runs(tokens).values()}


def train_uninterrupted(tokens: Sequence[str], folder: Path) -> list[Fit | None]:
    """Train the members without interruption, grouped as in the sweep. The fit of a diverging member is None."""
    experiments = members(tokens)
    dataset = prepare(experiments[0].data, folder)
    plan = sweep_plan.plan(experiments, dataset)
    fit_by_index: dict[int, Fit | DivergedError | None] = {}
    for group in (*plan.stacks, *plan.pool_stacks, *((index,) for index in plan.single)):
        grouped = [experiments[index] for index in group]
        parts = grouped[0].data, grouped[0].model, [member.training for member in grouped]
        folders = [folder / str(index) for index in group]
        with suppress(DivergedError):
            fits = trainer.fit_together(dataset, *parts, folders, [lambda *_: None] * len(grouped))
            fit_by_index |= dict(zip(group, fits, strict=True))
    fits = [fit_by_index.get(index) for index in range(len(experiments))]
    return [fitted if isinstance(fitted, Fit) else None for fitted in fits]


def assert_same_as_uninterrupted(tokens: Sequence[str], home: Path, folder: Path) -> dict[str, Any]:
    """Check that runs have all points exactly once, and that the weights are those of uninterrupted trainings."""
    result = json.loads((home / "stdout").read_text().splitlines()[-1])
    expected = train_uninterrupted(tokens, folder)
    weights = [file_digest(path) for path in home.glob("[fs][iw]*/**/weights.safetensors")]
    assert sorted(weights) == sorted(fitted.weights_sha256 for fitted in expected if fitted)
    losses = [fitted.metrics["val/loss"] if fitted else None for fitted in expected]
    assert [member["val_loss"] for member in result["members"]] == losses
    assert [bool(member["failed"]) for member in result["members"]] == [fitted is None for fitted in expected]
    for member, fitted in zip(result["members"], expected, strict=True):
        logged = points(member["run_id"])
        assert fitted is None or logged == logged_points(fitted)
    lowest = min(loss for loss in losses if loss)
    assert losses[result["chosen"]] == lowest
    assert points(result["run_id"], metric="val/loss") == {("val/loss", 0): lowest}
    assert len(points(result["chosen_run_id"], metric="test/loss")) == 1
    return dict(result)


def points(run: str, metric: str = "") -> dict[tuple[str, int], float]:
    """Return the points of a run in MLflow, or of one metric, and check that there are no duplicates."""
    client = connect()
    logged = client.get_run(run).data.metrics
    names = [metric] if metric else [name for name in logged if name.startswith(("train/", "val/"))]
    values = [((name, point.step), point.value) for name in names for point in client.get_metric_history(run, name)]
    assert len(dict(values)) == len(values)
    return dict(values)


def logged_points(fitted: Fit) -> dict[tuple[str, int], float]:
    """Return the points that a training logs. `train/step_loss` is thinned to at most 1,000 points."""
    history = curves(fitted.history)
    stride = -(-len(history["train/step_loss"][0]) // 1000)
    return {
        (name, step): value
        for name, (steps, values) in history.items()
        for step, value in zip(steps, values, strict=True)
        if not name.startswith("time/") and (name != "train/step_loss" or step % stride == 0)
    }


def test_sweep_with_members_trained_together_is_resumed(
    forked: Callable[[Sequence[str]], BaseProcess], home: Path, tmp_path: Path
) -> None:
    """Send SIGTERM to the first process and SIGKILL to the second; the third finishes."""
    tokens = arguments(STACKED)
    process = forked(tokens)
    wait_for_epochs(home, 1, process, epochs=60)
    os.kill(process.pid, signal.SIGTERM)
    process.join(LIMIT)
    assert process.exitcode == 130
    assert (home / "stderr").read_text().splitlines()[-1] == "hallmark: interrupted"
    assert statuses(tokens) == {"KILLED"}
    before = runs(tokens)
    process = forked(tokens)
    wait_for_epochs(home, 1, process, epochs=40)
    process.kill()
    process.join()
    assert statuses(tokens) == {"RUNNING"}
    process = forked(tokens)
    process.join(LIMIT)
    assert process.exitcode == 0, (home / "stderr").read_text()
    assert {name: run.info.run_id for name, run in runs(tokens).items()} == {
        name: run.info.run_id for name, run in before.items()
    }
    assert statuses(tokens) == {"FINISHED"}
    assert_same_as_uninterrupted(tokens, home, tmp_path / "alone")


def test_sweep_with_a_stack_split_across_processes_is_resumed(
    forked: Callable[[Sequence[str]], BaseProcess], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Send SIGTERM to the first process and SIGKILL to the second, each while both halves are trained."""
    monkeypatch.setattr(sweep_plan, "SPLIT_THRESHOLD", 0)
    if sweep_plan.WORKERS != 2:
        pytest.skip("needs a machine with two processors, whose pool has two processes")
    tokens = arguments(STACKED | {"training.epochs": 500})  # the second pool process starts seconds after the first
    process = forked(tokens)
    wait_for_epochs(home, 2, process, epochs=5)
    os.kill(process.pid, signal.SIGTERM)
    process.join(LIMIT)
    assert process.exitcode == 130
    assert statuses(tokens) == {"KILLED"}
    assert len(list(home.glob("unfinished/*/stack-[01]/*.safetensors"))) == 2
    process = forked(tokens)
    wait_for_epochs(home, 2, process, epochs=5)
    process.kill()
    process.join()
    assert statuses(tokens) == {"RUNNING"}
    process = forked(tokens)
    process.join(LIMIT)
    output = (home / "stderr").read_text().splitlines()
    assert process.exitcode == 0, output
    assert "fit      4 members: 2 together in a process, 2 together in a process" in output
    assert len([line for line in output if line.startswith("resumed ")]) == 2
    assert statuses(tokens) == {"FINISHED"}
    result = assert_same_as_uninterrupted(tokens, home, tmp_path / "alone")
    assert {member["way"] for member in result["members"]} == {"stacked in the pool"}


@pytest.fixture
def orphans() -> Iterator[list[int]]:
    """Yield a list for process ids that must have ended; kill those still alive after the test."""
    processes: list[int] = []
    yield processes
    for process in filter(is_alive, processes):
        os.kill(process, signal.SIGKILL)


def test_workers_end_with_their_killed_parent_and_the_sweep_is_resumed(
    forked: Callable[[Sequence[str]], BaseProcess], home: Path, tmp_path: Path, orphans: list[int]
) -> None:
    tokens = arguments(MIXED)
    process = forked(tokens)
    wait_for_epochs(home, 2, process, epochs=20)
    orphans += children(process)
    assert len(orphans) >= 2
    process.kill()
    process.join()
    until(lambda: not any(map(is_alive, orphans)), seconds=20)
    assert statuses(tokens) == {"RUNNING"}
    assert len(list(home.glob("unfinished/*/3/*.safetensors"))) == 1
    process = forked(tokens)
    process.join(LIMIT)
    assert process.exitcode == 0, (home / "stderr").read_text()
    assert len([line for line in (home / "stderr").read_text().splitlines() if line.startswith("resumed ")]) == 2
    assert sorted(run.info.status for run in runs(tokens).values()) == ["FAILED"] + ["FINISHED"] * 4
    result = assert_same_as_uninterrupted(tokens, home, tmp_path / "alone")
    assert [member["way"] for member in result["members"]] == ["stacked", "process pool", "stacked", "process pool"]


def test_signal_stops_the_workers_too(
    forked: Callable[[Sequence[str]], BaseProcess], home: Path, orphans: list[int]
) -> None:
    """Send SIGTERM while members are trained together and in the pool. None of them would finish in time."""
    tokens = arguments(MIXED | {"training.epochs": 1_000_000})
    process = forked(tokens)
    wait_for_epochs(home, 2, process, epochs=20)
    orphans += children(process)
    os.kill(process.pid, signal.SIGTERM)
    process.join(20)
    assert process.exitcode == 130
    until(lambda: not any(map(is_alive, orphans)), seconds=10)
    assert statuses(tokens) == {"KILLED"}
    # Member 1 has diverged.
    assert {path.parent.name for path in home.glob("unfinished/*/*/*.safetensors")} == {"stack-0", "3"}
    assert [line for line in (home / "stderr").read_text().splitlines() if "Traceback" in line] == []
