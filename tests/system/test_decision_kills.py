"""Decisions of processes that are killed at any write, or that decide at the same time."""

import os
import signal
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from hallmark.tasks.common.results import Decision, Judged, Outcome
from hallmark.tasks.promotion import champions, decision_log
from hallmark.tasks.tracking.client import connect
from tests.pipelines.test_decision_log import judged
from tests.support import databases, forks, processes, registered
from tests.support.processes import LIMIT
from tests.support.registered import aliases, kill_after

DECISIONS = 8
"""Number of decisions of each of two homes that decide at once."""


def kill_promotion_after(writes: int, name: str) -> None:
    """Promote version 2, and send SIGKILL to this process after this number of writes."""
    with pytest.MonkeyPatch.context() as patch:
        kill_after(writes, patch, lambda: os.kill(os.getpid(), signal.SIGKILL))
        judged(name, "PROMOTE")()


@pytest.mark.usefixtures("server_for_children")
def test_promotion_killed_after_any_write_is_completed_by_the_next_command(
    three_seeds: list[Outcome], tmp_path: Path
) -> None:
    writes = 0
    while True:
        writes += 1
        model = registered.create_model(three_seeds)
        process = forks.call(partial(kill_promotion_after, writes, model), tmp_path)
        process.join(120)
        assert process.exitcode in (0, -signal.SIGKILL)
        assert aliases(model) in ({"champion": 1}, {"champion": 1, "previous": 1}, {"champion": 2, "previous": 1})
        decision_log.repair_if_idle(model)  # the kernel has released the lock
        assert aliases(model) == {"champion": 2, "previous": 1}
        (decision,) = decision_log.history(model)
        assert decision.done
        if process.exitcode == 0:
            break
    assert writes >= 7


@pytest.mark.usefixtures("server_for_children")
def test_of_two_concurrent_promotions_each_is_recorded_or_refused(three_seeds: list[Outcome], tmp_path: Path) -> None:
    model = registered.create_model(three_seeds)
    processes = {
        version: forks.start(["promote", model, str(version), "--reason", "two at once"], tmp_path / str(version))
        for version in (2, 3)
    }
    for process in processes.values():
        process.join(120)
    codes = {version: process.exitcode for version, process in processes.items()}
    assert set(codes.values()) <= {0, 2}
    assert 0 in codes.values()
    for version, code in codes.items():
        error = (tmp_path / str(version) / "stderr").read_text()
        assert (code == 0) == (error == "")
        assert code == 0 or error.startswith(f"hallmark: {model}: another process is deciding on this model")
    decisions = decision_log.history(model)
    assert sorted(decision.version for decision in decisions) == sorted(
        version for version, code in codes.items() if code == 0
    )
    assert [decision.number for decision in decisions] == list(range(1, len(decisions) + 1))
    assert aliases(model)["champion"] == decisions[-1].version


def decide_in_turn(name: str, count: int) -> None:
    """Make version 2 or 3 champion in turn, as retraining does, until this number of decisions is recorded."""

    def decide() -> Decision:
        champion = champions.champion(name)
        challenger = 3 if champion == 2 else 2
        found = Judged("PROMOTE", "in turn", champion or 0, challenger, {}, {"gates": []}, 0)
        return champions.decision_from(name, found, None)

    for _ in range(count):
        with decision_log.exclusive(name, wait=True):
            decision_log.conclude(name, decide)


@pytest.mark.parametrize("kind", ["sqlite", "server"])
def test_two_homes_decide_on_one_store_one_after_another(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        store = databases.mlflow(tmp_path / "mlflow.db")
        if kind == "server":
            port = processes.free_port()
            stack.enter_context(processes.mlflow_server(tmp_path, port))
            store = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
        client, name = connect(), "iris"
        client.create_registered_model(name)
        for _ in range(3):
            run = client.create_run("0")
            client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
        client.set_registered_model_alias(name, "champion", "1")
        homes = [
            forks.call(
                partial(decide_in_turn, name, DECISIONS),
                tmp_path / home,
                os.environ | {"HALLMARK_HOME": str(tmp_path / home)},
            )
            for home in ("one", "other")
        ]
        for process in homes:
            process.join(LIMIT)
        errors = "".join((tmp_path / home / "stderr").read_text() for home in ("one", "other"))
        assert [process.exitcode for process in homes] == [0, 0], errors
        decisions = decision_log.history(name)
        assert [one.number for one in decisions] == list(range(1, 2 * DECISIONS + 1))
        assert all(one.done for one in decisions)
        champion = 1
        for one in decisions:
            assert one.before == champion
            champion = one.champion
        assert aliases(name) == {"champion": champion, "previous": decisions[-1].before}
