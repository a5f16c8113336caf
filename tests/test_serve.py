"""Schedules as Prefect deployments, and the processes that run them."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest

from flows import deployments, schedules, serve
from tasks.ml.errors import InputError
from tests.conftest import ROOT
from tests.test_notify import receiver

T = TypeVar("T")
QUICK = 'name = "quick"\nexperiment = "iris"\ninterval = "10s"\noptions = { "training.epochs" = 3 }\n'
LONG = 'name = "long"\nexperiment = "iris"\ninterval = "10s"\noptions = { "training.epochs" = 1000000 }\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write schedules and point the settings at them."""

    def write(*entries: str) -> Path:
        path = tmp_path / "schedules.toml"
        path.write_text("".join(f"[[schedule]]\n{entry}\n" for entry in entries))
        monkeypatch.setenv("HALLMARK_SCHEDULES", str(path))
        return path

    return write


def with_client(act: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - whatever the client gives
    """Call something with a client of the Prefect server that the settings name."""
    from prefect.client.orchestration import get_client

    async def call() -> Any:  # noqa: ANN401
        async with get_client() as client:
            return await act(client)

    return asyncio.run(call())


def reconcile(path: Path, pool: str | None = None) -> list[str]:
    return list(with_client(lambda client: deployments.reconcile(client, schedules.load(), path, pool=pool)))


def ours(path: Path) -> dict[str, Any]:
    found = with_client(lambda client: deployments._ours(client, deployments.mark(path)))
    return {one.name: one for one in found}


@pytest.mark.usefixtures("prefect_server")
def test_deployments_are_made_equal_to_the_file(file: Callable[..., Path], tmp_path: Path) -> None:
    path = file(QUICK, LONG)
    assert reconcile(path) == ["quick: added", "long: added"]
    before = ours(path)
    assert before["quick"].parameters["experiment"]["training"]["epochs"] == 3
    assert before["quick"].parameters["schedule"] == "quick"
    assert before["quick"].entrypoint == deployments.ENTRYPOINT
    assert reconcile(path) == ["quick: unchanged", "long: unchanged"]
    assert [one.id for one in ours(path)["quick"].schedules] == [one.id for one in before["quick"].schedules]

    file(QUICK.replace("10s", "20s"))
    assert reconcile(path) == ["quick: changed", "long: removed"]
    after = ours(path)
    assert set(after) == {"quick"}
    assert after["quick"].id == before["quick"].id
    assert [one.schedule.interval for one in after["quick"].schedules] == [timedelta(seconds=20)]

    other = tmp_path / "other" / "schedules.toml"
    with pytest.raises(InputError, match="schedule 'quick': Prefect has a deployment 'retrain/quick' that was not"):
        reconcile(other)
    path.write_text("")
    assert reconcile(other) == []
    assert set(ours(path)) == {"quick"}
    assert reconcile(path) == ["quick: removed"]


@pytest.mark.usefixtures("prefect_server")
def test_the_automation_is_made_once_and_kept_as_it_should_be() -> None:
    def known() -> list[Any]:
        return list(with_client(lambda client: client.read_automations_by_name(serve.AUTOMATION)))

    with_client(serve.watch_heartbeats)
    (made,) = known()
    with_client(serve.watch_heartbeats)
    assert [one.id for one in known()] == [made.id]
    assert serve._content(made) == serve._content(serve._automation())  # so it was left alone
    changed = serve._automation().model_copy(update={"enabled": False})
    with_client(lambda client: client.update_automation(made.id, changed))
    with_client(serve.watch_heartbeats)
    assert [(one.id, one.enabled) for one in known()] == [(made.id, True)]


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("missed", "kept"), [("skip", []), ("latest", [1]), ("all", [3, 2, 1])])
def test_what_was_missed_is_run_as_the_schedule_asks(file: Callable[..., Path], missed: str, kept: list[int]) -> None:
    from prefect.states import Scheduled

    path = file(QUICK + f'missed = "{missed}"\n')
    reconcile(path)
    deployment, now = ours(path)["quick"].id, datetime.now(UTC)

    async def plan(client: Any) -> list[UUID]:  # noqa: ANN401
        times = [now - timedelta(minutes=minutes) for minutes in (3, 2, 1)] + [now + timedelta(hours=1)]
        return [
            (await client.create_flow_run_from_deployment(deployment, state=Scheduled(scheduled_time=time))).id
            for time in times
        ]

    async def settle(client: Any) -> list[str]:  # noqa: ANN401
        return await deployments.settle_missed(client, schedules.load(), path)

    async def names(client: Any) -> list[str]:  # noqa: ANN401
        return [(await client.read_flow_run(identifier)).state.name for identifier in planned]

    planned = with_client(plan)
    assert with_client(settle) == [f"quick: 3 missed, {len(kept)} to be run, {3 - len(kept)} cancelled"]
    thinned = with_client(lambda client: deployments.thin(client, schedules.load(), path))
    assert thinned == []  # one at most is left, or all were asked for
    wanted = ["Scheduled" if minutes in kept else "Missed" for minutes in (3, 2, 1)]
    assert with_client(names) == [*wanted, "Scheduled"]
    path.write_text("")
    reconcile(path)


def hallmark(*tokens: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows", *tokens]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env=os.environ | environment)


def test_what_cannot_be_served_is_refused_in_one_line(file: Callable[..., Path]) -> None:
    path = file(QUICK)
    for command in (("serve",), ("deploy", "--pool", "nowhere")):
        refused = hallmark(*command)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert "there is no Prefect server to take schedules" in refused.stderr
    path.write_text("[[schedule]]\nname = \n")
    refused = hallmark("serve")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "schedules.toml: is not TOML" in refused.stderr
    assert "line 2" in refused.stderr


# What follows needs a server with its services: the scheduler, and what evaluates automations.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server as one that people run: its address."""
    folder = tmp_path_factory.mktemp("server")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = os.environ | {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with process(command, folder / "server.log", environment):
        url = f"http://127.0.0.1:{port}/api"
        from flows.server import answers

        until(lambda: answers(url), 120)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PREFECT_API_URL", url)
            yield url


@contextmanager
def process(
    command: list[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, which ends with the block, and all that it began."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=ROOT, env=environment or os.environ, start_new_session=True
        )
    try:
        yield started
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(started.pid, number)
            except ProcessLookupError:
                break
            try:
                started.wait(40)
            except subprocess.TimeoutExpired:
                continue
        started.wait()


def until(condition: Callable[[], T], seconds: float = 90) -> T:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.2)
    return found


@contextmanager
def serving(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with process([sys.executable, "-m", "flows", "serve"], tmp_path / "serve.log") as started:
        yield started


def ask(url: str, act: Callable[[Any], Any]) -> Any:  # noqa: ANN401
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: url}):
        return with_client(act)


def runs(url: str, path: Path, *states: str) -> list[Any]:
    """The runs of a file's schedules that are in one of these states, the oldest first."""
    from prefect.client.schemas import filters
    from prefect.client.schemas.sorting import FlowRunSort

    wanted = filters.FlowRunFilter(
        tags=filters.FlowRunFilterTags(all_=[deployments.mark(path)]),
        state=filters.FlowRunFilterState(name=filters.FlowRunFilterStateName(any_=list(states))),
    )
    order = FlowRunSort.EXPECTED_START_TIME_ASC
    return list(ask(url, lambda client: client.read_flow_runs(flow_run_filter=wanted, sort=order)))


def forget(url: str, path: Path) -> None:
    path.write_text("")
    ask(url, lambda client: deployments.reconcile(client, [], path))


def engines() -> set[int]:
    """The processes of runs that are served from here."""
    found = subprocess.run(["pgrep", "-f", "prefect.engine"], capture_output=True, text=True, check=False).stdout
    ours = str(os.environ["HALLMARK_HOME"]).encode()
    return {int(pid) for pid in found.split() if ours in environment_of(int(pid))}


def environment_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
def test_a_schedule_runs_and_ends_cleanly_while_its_dates_stay(
    server: str, file: Callable[..., Path], tmp_path: Path
) -> None:
    path = file(QUICK)
    with serving(tmp_path) as served:
        first, *_ = until(lambda: runs(server, path, "Completed"))
        assert first.auto_scheduled
        assert first.parameters["schedule"] == "quick"
        second = hallmark("serve", PREFECT_API_URL=server)
        assert (second.returncode, second.stderr.count("\n")) == (2, 1), second.stderr
        assert "another process serves these schedules already" in second.stderr
        served.terminate()
        assert served.wait(60) == 0
    assert not engines()
    (deployment,) = ask(server, lambda client: deployments._ours(client, deployments.mark(path)))
    assert (deployment.paused, [one.active for one in deployment.schedules]) == (False, [True])
    forget(server, path)


@pytest.mark.slow
def test_a_run_ends_with_the_process_that_serves_it_and_the_next_resumes_it(
    server: str, file: Callable[..., Path], tmp_path: Path
) -> None:
    path, log = file(LONG), tmp_path / "serve.log"
    with serving(tmp_path) as served:
        until(lambda: "epoch" in log.read_text())
        served.kill()
        served.wait()
        until(lambda: not engines(), 30)
    (crashed,) = until(lambda: runs(server, path, "Crashed"), 30)
    assert "aborted" in crashed.state.message
    with serving(tmp_path):
        until(lambda: "resumed" in log.read_text())
    forget(server, path)


@pytest.mark.slow
def test_a_run_that_is_silent_has_crashed_within_three_heartbeats(
    server: str, file: Callable[..., Path], tmp_path: Path
) -> None:
    log = tmp_path / "serve.log"
    with receiver() as (address, told):
        path = file(LONG + f'notify = "{address}"\n')
        silence(server, path, tmp_path, log)
        assert not told  # nobody was left to tell
        with serving(tmp_path):
            until(lambda: told)
            until(lambda: "serving" in log.read_text().rpartition("crashed")[2])
    assert told[0]["title"] == "long (iris): CRASHED"
    assert "No sign of life" in told[0]["message"]
    forget(server, path)


def silence(server: str, path: Path, tmp_path: Path, log: Path) -> None:
    """Kill a run and what serves it, and wait until Prefect has noticed."""
    with serving(tmp_path) as served:
        until(lambda: "epoch" in log.read_text())
        (running,) = runs(server, path, "Running")
        (engine,) = engines()
        served.send_signal(signal.SIGSTOP)  # so that neither hears of the other's end
        os.kill(engine, signal.SIGKILL)
        served.kill()
    killed = time.monotonic()
    (crashed,) = until(lambda: runs(server, path, "Crashed"), 3 * serve.HEARTBEAT_SECONDS + 10)
    assert time.monotonic() - killed < 3 * serve.HEARTBEAT_SECONDS + 10
    assert crashed.id == running.id
    assert crashed.state.message == serve.SILENT


@pytest.mark.slow
def test_a_run_whose_process_is_killed_has_crashed_and_somebody_hears_of_it(
    server: str, file: Callable[..., Path], tmp_path: Path
) -> None:
    log = tmp_path / "serve.log"
    with receiver() as (address, told):
        path = file(LONG + f'notify = "{address}"\n')
        with serving(tmp_path):
            until(lambda: log.read_text().count("epoch") > 3)  # a line each 5 seconds: a checkpoint was written
            (engine,) = engines()
            os.kill(engine, signal.SIGKILL)
            until(lambda: runs(server, path, "Crashed"), 30)
            until(lambda: told, 30)
            until(lambda: "resumed" in log.read_text())  # by the next run
    assert told[0]["title"] == "long (iris): CRASHED"
    forget(server, path)


@pytest.mark.slow
def test_the_schedules_can_be_given_to_a_work_pool(server: str, file: Callable[..., Path], tmp_path: Path) -> None:
    path = file(QUICK)
    refused = hallmark("deploy", "--pool", "station", PREFECT_API_URL=server)
    assert refused.returncode == 2
    assert "there is no work pool 'station': there are none yet" in refused.stderr
    made = subprocess.run(
        [sys.executable, "-m", "prefect", "work-pool", "create", "station", "--type", "process"],
        check=False, capture_output=True, text=True, env=os.environ | {"PREFECT_API_URL": server},
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    given = hallmark("deploy", "--pool", "station", PREFECT_API_URL=server)
    assert (given.returncode, given.stdout) == (0, "quick: added\n"), given.stderr
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "station", "--limit", "1"]
    with process(worker, tmp_path / "worker.log"):
        done, *_ = until(lambda: runs(server, path, "Completed"))
    assert done.work_pool_name == "station"
    assert ask(server, lambda client: deployments.reconcile(client, schedules.load(), path)) == [
        "quick: left to work pool 'station'"
    ]
    forget(server, path)


def test_one_model_is_retrained_once_at_a_time(python: Callable[..., str]) -> None:
    code = (
        "import sys, time\nfrom flows import served\n"
        "with served.turn(sys.argv[1]): print(time.monotonic()); time.sleep(1); print(time.monotonic())"
    )

    def hold(model: str) -> list[float]:
        return [float(line) for line in python(code, model).split()]

    with ThreadPoolExecutor(3) as pool:
        (begun, ended), (begun_too, ended_too), other = pool.map(hold, ["iris", "iris", "digits"])
    assert ended <= begun_too or ended_too <= begun
    assert len(other) == 2
