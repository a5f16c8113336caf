"""Decisions of processes that are killed at any moment, or that decide at once."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from hallmark.tasks.common.records import Outcome
from hallmark.tasks.promotion import decision_log
from tests.pipelines.test_decision_log import judged
from tests.support import forks, registered
from tests.support.registered import aliases, kill_after


def kill_promotion_after(writes: int, name: str) -> None:
    """In a process of its own: promote version 2, and be killed with -9 after so many writes."""
    with pytest.MonkeyPatch.context() as patch:
        kill_after(writes, patch, lambda: os.kill(os.getpid(), signal.SIGKILL))
        judged(name, "PROMOTE")()


@pytest.mark.usefixtures("server_for_children")
def test_kill_9_between_any_two_steps_leaves_nothing_that_the_next_does_not_finish(
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
def test_of_two_processes_at_once_each_wins_or_says_so(three_seeds: list[Outcome], tmp_path: Path) -> None:
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
        said = (tmp_path / str(version) / "stderr").read_text()
        assert (code == 0) == (said == "")
        assert code == 0 or said.startswith(f"hallmark: {model}: another process is deciding on this model")
    made = decision_log.history(model)
    assert sorted(one.version for one in made) == sorted(version for version, code in codes.items() if code == 0)
    assert [one.number for one in made] == list(range(1, len(made) + 1))
    assert aliases(model)["champion"] == made[-1].version
