"""What killed processes and machines that are gone leave, and `hallmark doctor --repair`."""

import fcntl
import json
import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import prefect
import pytest
from prefect import flow
from prefect.states import Pending, Running

from hallmark.flows.station import repair
from hallmark.tasks.common.records import Attempt, Dataset
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.runtime import process_identity, running_commands
from hallmark.tasks.tracking import heartbeat, run_lifecycle, tags
from hallmark.tasks.tracking.client import connect
from tests.support.consoles import Call
from tests.support.interrupted import interrupt, iris_experiment, set_status, statuses
from tests.support.scheduled import tagged, with_client

pytestmark = pytest.mark.usefixtures("prefect_server", "home")


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `doctor` ask no server for the archives of MNIST."""
    monkeypatch.setenv("HALLMARK_MIRROR", "http://127.0.0.1:9")


@flow(name="train")
def _nothing() -> None:
    """Do nothing."""


def flow_run(*own_tags: str) -> Any:  # noqa: ANN401 - Prefect's record
    """Create a flow run that is running, as a killed process leaves it."""
    return with_client(lambda client: client.create_flow_run(_nothing, state=Running(), tags=own_tags))


def state_of(run: Any) -> tuple[str, str]:  # noqa: ANN401 - as above
    state = with_client(lambda client: client.read_flow_run(run.id)).state
    return state.name, state.message or ""


def beat(*, age: float, machine: str = "", **process: object) -> str:
    """Return a heartbeat of this process, changed."""
    value = json.loads(heartbeat.now())
    value["time"] = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
    value["machine"] = machine or value["machine"]
    return json.dumps(value | {"process": value["process"] | process, "later": "unknown"})


@pytest.fixture
def open_run(iris: tuple[Experiment, Dataset]) -> Callable[..., str]:
    """Return a function that makes a run that is running; it returns the id."""
    experiment, dataset = iris

    def make(text: str | None, parent: str = "", flow_run: str = "") -> str:
        attempt = Attempt(uuid.uuid4().hex, experiment.name, {}, dataset.folder / "unfinished")
        values = {tags.PREFECT_FLOW_RUN: flow_run} | ({tags.PARENT_RUN: parent} if parent else {})
        with run_lifecycle.open_run(experiment, dataset, attempt, "left", values) as run:
            pass
        client = connect()
        client.update_run(run.id, "RUNNING")
        client.delete_tag(run.id, tags.HEARTBEAT)
        if text is not None:
            client.set_tag(run.id, tags.HEARTBEAT, text)
        return run.id

    return make


def test_runs_of_machines_that_are_gone_are_closed_and_no_others(open_run: Callable[..., str], console: Call) -> None:
    left = flow_run()
    gone = {
        "other machine": open_run(beat(age=700, machine="elsewhere"), flow_run=str(left.id)),
        "other process": open_run(beat(age=700, started="2020-01-01T00:00:00+00:00")),
    }
    parent, sweep = open_run(beat(age=5, machine="elsewhere")), open_run(beat(age=700, machine="elsewhere"))
    gone["member of a dead sweep"] = open_run(beat(age=5, machine="elsewhere"), parent=sweep)
    kept = {
        "recent": open_run(beat(age=500, machine="elsewhere")),
        "this process": open_run(beat(age=7000)),
        "unreadable": open_run("{"),
        "no number": open_run(beat(age=7000).replace(str(os.getpid()), "1e999")),
        "older version": open_run(None),
        "member": open_run(beat(age=7000, machine="elsewhere"), parent=parent),
    }
    code, out, _ = console("doctor", "--repair", "--json")
    lines = json.loads(out)["repaired"]
    assert code in (0, 1), out
    status = {name: connect().get_run(run).info.status for name, run in (gone | kept | {"sweep": sweep}).items()}
    assert status == dict.fromkeys([*gone, "sweep"], "KILLED") | dict.fromkeys(kept, "RUNNING")
    for run in (*gone.values(), sweep):
        assert any(f"run {run[:8]} of left is closed as killed" in line for line in lines)
    error = connect().get_run(gone["other machine"]).data.tags[tags.ERROR]
    assert error.endswith(f"UTC: process {os.getpid()} of elsewhere is gone")
    assert state_of(left) == ("Crashed", "Its run in MLflow has no heartbeat: its machine is gone")
    for run in (parent, *kept.values()):
        connect().set_terminated(run)
    assert repair.repair() == []


def test_a_run_that_was_closed_by_mistake_ends_as_finished(iris: tuple[Experiment, Dataset]) -> None:
    experiment, dataset = iris
    attempt = Attempt(uuid.uuid4().hex, experiment.name, {}, dataset.folder / "unfinished")
    with run_lifecycle.open_run(experiment, dataset, attempt, "closed", {}) as run:
        connect().set_tag(run.id, tags.HEARTBEAT, beat(age=700, machine="elsewhere"))
        assert run.id in {one.id for one in heartbeat.close_gone(600)}
    stored = connect().get_run(run.id)
    assert (stored.info.status, tags.ERROR in stored.data.tags) == ("FINISHED", False)


def test_the_heartbeat_of_an_open_run_is_renewed(
    iris: tuple[Experiment, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.processes import until

    experiment, dataset = iris
    monkeypatch.setattr(heartbeat, "SECONDS", 0.01)
    attempt = Attempt(uuid.uuid4().hex, experiment.name, {}, dataset.folder / "unfinished")
    with run_lifecycle.open_run(experiment, dataset, attempt, "beats", {}) as run:
        connect().set_tag(run.id, tags.HEARTBEAT, "old")
        until(lambda: heartbeat.parse(connect().get_run(run.id).data.tags[tags.HEARTBEAT]))
    found = heartbeat.parse(connect().get_run(run.id).data.tags[tags.HEARTBEAT])
    assert found
    assert (found.pid, found.home) == (os.getpid(), os.environ["HALLMARK_HOME"])
    assert process_identity.lives(found.machine, found.pid, found.started)
    assert not process_identity.lives(found.machine, found.pid, found.started - timedelta(minutes=1))


def leave_command(home: Path, server: str | None) -> tuple[Path, str]:
    """Leave the file of a command whose process is gone; return it and the tag of its flow runs."""
    with running_commands.registered(home, "train", server) as tag:
        (path,) = (home / "running").glob("*.json")
        assert running_commands.abandoned(home) == []
        content = path.read_bytes()
    path.write_bytes(content)
    return path, tag


def test_flow_runs_of_a_killed_command_are_closed_by_the_next_command(home: Path, console: Call) -> None:
    path, tag = leave_command(home, prefect.settings.PREFECT_API_URL.value())
    run, other = flow_run(tag), flow_run("hallmark-process:ffff")
    experiment = iris_experiment()
    code, _, error = console("train", "iris", "--name", experiment.name, "--training.epochs", "1")
    assert code == 0, error
    name, message = state_of(run)
    assert name == "Crashed"
    assert message.startswith(f"Its process was killed: `hallmark train` (pid {os.getpid()} on ")
    assert state_of(other)[0] == "Running"
    assert not path.exists()
    assert list((home / "running").iterdir()) == []
    assert [one.state.name for one in tagged(running_commands.home_tag(home))] == ["Completed"]


@pytest.mark.parametrize(
    "content", ["", "[" * 5000, '"started": 5', '"started": "soon"', '"pid": null', "folder", "pipe"]
)
def test_an_unreadable_file_of_a_command_does_not_keep_others_from_being_closed(content: str, home: Path) -> None:
    path, tag = leave_command(home, None)
    run, bad = flow_run(tag), home / "running" / "0.json"  # the first one
    match content:
        case "folder":
            bad.mkdir()
        case "pipe":
            os.mkfifo(bad)
        case _:
            valid = '{"command": "x", "machine": "m", "pid": 1, "started": "2030-11-30", "server": "", %s}'
            bad.write_text(valid % content if ":" in content else content)
    assert running_commands.active(home) == []
    (line,) = running_commands.crash(running_commands.abandoned(home), None)
    assert line.startswith(f"flow run '{run.name}' is marked as crashed")
    assert not path.exists()
    assert bad.exists() == (content in ("folder", "pipe"))


def test_a_flow_run_that_never_began_is_closed_once_no_other_command_runs(home: Path) -> None:
    path, _ = leave_command(home, None)
    run = with_client(lambda client: client.create_flow_run(_nothing, state=Pending()))
    of_another = with_client(lambda client: client.create_flow_run(_nothing, state=Pending(), tags=["another"]))
    with (home / "running" / "live.json").open("w") as live:
        fcntl.flock(live, fcntl.LOCK_EX)
        assert running_commands.crash([path], None) == []  # the flow run may be that of the live command
    assert state_of(run)[0] == "Pending"
    (line,) = running_commands.crash([path], None)
    assert line.startswith(f"flow run '{run.name}' is marked as crashed: its process was killed: `hallmark train`")
    assert [state_of(one)[0] for one in (run, of_another)] == ["Crashed", "Pending"]
    assert not path.exists()


def test_doctor_repairs_a_home(home: Path, console: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = iris_experiment()
    interrupt(experiment, monkeypatch)
    set_status(experiment, "RUNNING")  # as after kill -9
    elsewhere, _ = leave_command(home, "http://elsewhere/api")
    damaged = home / "running" / "damaged.json"
    damaged.write_text("{")
    run = flow_run("hallmark-process:damaged")
    (home / "fits" / "1" / ".tmp-hallmark-x").mkdir(parents=True)
    os.utime(home / "fits" / "1" / ".tmp-hallmark-x", (0, 0))
    with (home / "running" / "held.json").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        _, out, _ = console("doctor", "--repair", "--json")
        repaired = json.loads(out)["repaired"]
        assert {path.name for path in (home / "running").iterdir()} == {"held.json", elsewhere.name}
    assert statuses(experiment.name) == ["KILLED"]
    assert state_of(run)[0] == "Crashed"
    assert [line.split(",")[0].split(" is ")[0].split(" '")[0] for line in repaired if line[:4] != "run "] == [
        "removed fits/1/.tmp-hallmark-x", "flow run",
    ]  # fmt: skip
    assert [line for line in repaired if line.endswith("is closed as killed: its process is gone")]
    assert "nothing to repair" in console("doctor", "--repair")[1]
