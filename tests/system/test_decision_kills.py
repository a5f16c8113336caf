"""Decisions of processes that are killed at any write, or that decide at the same time."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from hallmark.tasks.common.results import Outcome
from hallmark.tasks.promotion import decision_log
from tests.pipelines.test_decision_log import judged
from tests.support import forks, registered
from tests.support.registered import aliases, kill_after


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
