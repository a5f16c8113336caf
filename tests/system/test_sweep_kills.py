"""A sweep that is killed goes on when the same command is given again, and leaves no process behind."""

import json
import os
import signal
import subprocess
import time
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

LIMIT = 120
"""Seconds after which what has not happened is a failure."""

Options = dict[str, object]

STACKED: Options = {"training.lr": "0.01,0.02", "training.seed": "0..1", "training.epochs": 90}
"""Four that train as one."""
MIXED: Options = {
    "training.lr": "0.01,0.02,0.04,3e38",
    "training.batch_size": "8,16,32",
    "training.epochs": 80,
    "random": 4,
    "random-seed": 8,
}
"""The first and the third train as one, the others in the pool, where the second diverges."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: str) -> Path:
    """A home of its own, and the server of all tests for other processes too."""
    monkeypatch.setenv("HALLMARK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    return tmp_path / "home"


def typed(options: Options) -> list[str]:
    """Softmax regression of digits, too small for more than one thread, under a name that no other sweep has."""
    given = {"name": f"k{uuid.uuid4().hex[:12]}", "model.kind": "linear", "training.device": "cpu"}
    given |= {"training.optimizer": "sgd", "training.batch_size": 8} | options
    return [f"--{path}={value}" for path, value in given.items()]


def members(tokens: Sequence[str]) -> tuple[Experiment, ...]:
    drawn = {token.partition("=")[0]: token.partition("=")[2] for token in tokens if token.startswith("--random")}
    own = [token for token in tokens if not token.startswith("--random")]
    if drawn:
        return sweep_grids.random("digits", own, int(drawn["--random"]), int(drawn["--random-seed"])).members
    return sweep_grids.grid("digits", own).members


@pytest.fixture
def forked(home: Path) -> Iterator[Callable[[Sequence[str]], BaseProcess]]:
    """Run the command in a process that is forked from one that has imported everything."""
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


def until(happened: Callable[[], bool], seconds: float = LIMIT) -> None:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def under_way(home: Path, trainings: int, process: BaseProcess, *, epochs: int) -> None:
    """Wait until so many trainings have written down so many epochs more."""
    before = _epochs(home)
    until(
        lambda: (
            process.exitcode is not None
            or sum((_epochs(home) - before)[name] >= epochs for name in _epochs(home)) >= trainings
        )
    )
    assert process.exitcode is None, (home / "stderr").read_text()


def _epochs(home: Path) -> Counter[str]:
    return Counter({str(path): path.read_bytes().count(b'epoch"') for path in home.glob("unfinished/*/*/journal")})


def children(process: BaseProcess) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    return list(map(int, found.stdout.split()))


def is_alive(process: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return found.stdout.strip()[:1] not in ("", "Z")


def runs(tokens: Sequence[str]) -> dict[str, Run]:
    """Of the sweep and its members, by name."""
    (name,) = (token.removeprefix("--name=") for token in tokens if token.startswith("--name="))
    client = connect()
    everywhere = [found.experiment_id for found in client.search_experiments()]
    found = client.search_runs(everywhere, f"tags.`hallmark.name` = '{name}'")
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def statuses(tokens: Sequence[str]) -> set[str]:
    return {run.info.status for run in runs(tokens).values()}


def alone(tokens: Sequence[str], folder: Path) -> list[Fit | None]:
    """What the members come to if nobody kills them, in the sweep's own ways; None of what diverges."""
    all_of_them = members(tokens)
    dataset = prepare(all_of_them[0].data, folder)
    plan = sweep_plan.plan(all_of_them, dataset)
    found: dict[int, Fit | DivergedError | None] = {}
    for group in (*plan.stacks, *plan.pool_stacks, *((index,) for index in plan.single)):
        some = [all_of_them[index] for index in group]
        parts = some[0].data, some[0].model, [member.training for member in some]
        folders = [folder / str(index) for index in group]
        with suppress(DivergedError):
            fits = trainer.fit_together(dataset, *parts, folders, [lambda *_: None] * len(some))
            found |= dict(zip(group, fits, strict=True))
    fits = [found.get(index) for index in range(len(all_of_them))]
    return [one if isinstance(one, Fit) else None for one in fits]


def assert_as_if_nothing_had_been(tokens: Sequence[str], home: Path, folder: Path) -> dict[str, Any]:
    """Every run is whole, has no point twice, and the weights are those of an uninterrupted training."""
    result = json.loads((home / "stdout").read_text().splitlines()[-1])
    expected = alone(tokens, folder)
    weights = [file_digest(path) for path in home.glob("[fs][iw]*/**/weights.safetensors")]
    assert sorted(weights) == sorted(fitted.weights_sha256 for fitted in expected if fitted)
    losses = [fitted.metrics["val/loss"] if fitted else None for fitted in expected]
    assert [member["val_loss"] for member in result["members"]] == losses
    assert [bool(member["failed"]) for member in result["members"]] == [fitted is None for fitted in expected]
    for member, fitted in zip(result["members"], expected, strict=True):
        found = points(member["run_id"])
        assert fitted is None or found == of_history(fitted)
    lowest = min(loss for loss in losses if loss)
    assert losses[result["chosen"]] == lowest
    assert points(result["run_id"], of="val/loss") == {("val/loss", 0): lowest}
    assert len(points(result["chosen_run_id"], of="test/loss")) == 1
    return dict(result)


def points(run: str, of: str = "") -> dict[tuple[str, int], float]:
    """What MLflow has of a training, or of one metric: none of it twice."""
    client = connect()
    names = [of] if of else [name for name in client.get_run(run).data.metrics if name.startswith(("train/", "val/"))]
    found = [((name, point.step), point.value) for name in names for point in client.get_metric_history(run, name)]
    assert len(dict(found)) == len(found)
    return dict(found)


def of_history(fitted: Fit) -> dict[tuple[str, int], float]:
    """The points that a training logs: `train/step_loss` is thinned."""
    read = curves(fitted.history)
    stride = -(-len(read["train/step_loss"][0]) // 1000)
    return {
        (name, step): value
        for name, (steps, values) in read.items()
        for step, value in zip(steps, values, strict=True)
        if not name.startswith("time/") and (name != "train/step_loss" or step % stride == 0)
    }


def test_members_that_train_as_one(forked: Callable[[Sequence[str]], BaseProcess], home: Path, tmp_path: Path) -> None:
    """SIGTERM first, kill -9 then."""
    tokens = typed(STACKED)
    process = forked(tokens)
    under_way(home, 1, process, epochs=60)
    os.kill(process.pid, signal.SIGTERM)
    process.join(LIMIT)
    assert process.exitcode == 130
    assert (home / "stderr").read_text().splitlines()[-1] == "hallmark: interrupted"
    assert statuses(tokens) == {"KILLED"}
    before = runs(tokens)
    process = forked(tokens)
    under_way(home, 1, process, epochs=40)
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
    assert_as_if_nothing_had_been(tokens, home, tmp_path / "alone")


def test_shares_of_a_stack(
    forked: Callable[[Sequence[str]], BaseProcess], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As large ones are cut: SIGTERM first, kill -9 then, each while both shares train."""
    monkeypatch.setattr(sweep_plan, "SPLIT_THRESHOLD", 0)
    if sweep_plan.WORKERS != 2:
        pytest.skip("needs a machine with two processors, whose pool has two processes")
    tokens = typed(STACKED | {"training.epochs": 500})  # the second process of the pool begins seconds after the first
    process = forked(tokens)
    under_way(home, 2, process, epochs=5)
    os.kill(process.pid, signal.SIGTERM)
    process.join(LIMIT)
    assert process.exitcode == 130
    assert statuses(tokens) == {"KILLED"}
    assert len(list(home.glob("unfinished/*/stack-[01]/*.safetensors"))) == 2
    process = forked(tokens)
    under_way(home, 2, process, epochs=5)
    process.kill()
    process.join()
    assert statuses(tokens) == {"RUNNING"}
    process = forked(tokens)
    process.join(LIMIT)
    said = (home / "stderr").read_text().splitlines()
    assert process.exitcode == 0, said
    assert "fit      4 members: 2 together in a process, 2 together in a process" in said
    assert len([line for line in said if line.startswith("resumed ")]) == 2
    assert statuses(tokens) == {"FINISHED"}
    result = assert_as_if_nothing_had_been(tokens, home, tmp_path / "alone")
    assert {member["way"] for member in result["members"]} == {"stacked in the pool"}


@pytest.fixture
def orphans() -> Iterator[list[int]]:
    """Processes that must have ended."""
    found: list[int] = []
    yield found
    for process in filter(is_alive, found):
        os.kill(process, signal.SIGKILL)


def test_workers_whose_owner_is_killed_end_and_are_resumed(
    forked: Callable[[Sequence[str]], BaseProcess], home: Path, tmp_path: Path, orphans: list[int]
) -> None:
    tokens = typed(MIXED)
    process = forked(tokens)
    under_way(home, 2, process, epochs=20)
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
    result = assert_as_if_nothing_had_been(tokens, home, tmp_path / "alone")
    assert [member["way"] for member in result["members"]] == ["stacked", "process pool", "stacked", "process pool"]


def test_a_signal_ends_the_workers_too(
    forked: Callable[[Sequence[str]], BaseProcess], home: Path, orphans: list[int]
) -> None:
    """While members train as one and others in the pool, none of which would come to its end."""
    tokens = typed(MIXED | {"training.epochs": 1_000_000})
    process = forked(tokens)
    under_way(home, 2, process, epochs=20)
    orphans += children(process)
    os.kill(process.pid, signal.SIGTERM)
    process.join(20)
    assert process.exitcode == 130
    until(lambda: not any(map(is_alive, orphans)), seconds=10)
    assert statuses(tokens) == {"KILLED"}
    # The other one in the pool has diverged.
    assert {path.parent.name for path in home.glob("unfinished/*/*/*.safetensors")} == {"stack-0", "3"}
    assert [line for line in (home / "stderr").read_text().splitlines() if "Traceback" in line] == []
