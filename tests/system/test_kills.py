"""After kills and signals at any moment, the same command resumes, and its result is that of an uninterrupted one."""

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import kills, scheduled
from tests.support.kills import Chain, Result, Sandbox

FORKED_KILLS = 9
"""Number of kills of forked commands. One more test kills a command started from the shell."""


@dataclass(frozen=True)
class Reference:
    template: Sandbox
    """A sandbox in which no command has run."""
    results: tuple[Result, Result]
    """Results of two commands that were not killed."""
    seconds: float
    """Duration of the second of them."""

    @property
    def result(self) -> Result:
        return self.results[1]


@pytest.fixture(scope="module")
def reference(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    folder = tmp_path_factory.mktemp("kills")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", prefect_server)
        template = kills.create(folder / "template")
        yield Reference(template, *kills.run_twice(template, folder))


def test_two_processes_in_two_folders_give_the_same_result(reference: Reference) -> None:
    first, second = reference.results
    assert kills.differences(first, second) == []
    assert second.faults == []
    assert second.runs == ["FINISHED"]
    assert [step for step, _ in second.metrics["train/loss"]] == list(range(1, kills.EPOCHS + 1))
    assert set(second.files) == {"weights.safetensors", "digits.onnx", "model.onnx"}
    assert second.files["digits.onnx"] == second.files["model.onnx"]


def test_kill_9_at_random_moments(reference: Reference, tmp_path: Path) -> None:
    chain = Chain(
        template=reference.template,
        folder=tmp_path,
        reference=reference.result,
        seconds=reference.seconds,
        kills=FORKED_KILLS,
        random=random.Random(0),  # noqa: S311 - not for secrets
    )
    chain.run()
    assert chain.errors == []
    assert sum(chain.kills_by_step.values()) == FORKED_KILLS
    assert len(chain.kills_by_step) > 2


def test_kill_9_of_a_command_started_from_the_shell(reference: Reference, tmp_path: Path) -> None:
    sandbox = kills.copy(reference.template, tmp_path / "shell")
    with kills.start_command(sandbox) as process:
        kills.wait_for_step(sandbox, "prepare")
        time.sleep(random.Random(0).uniform(0, reference.seconds / 3))  # noqa: S311 - not for secrets
        process.kill()
    assert kills.result(sandbox).runs == ["RUNNING"]
    (killed,) = sandbox.running_commands
    with kills.start_command(sandbox) as process:
        assert process.wait(kills.LIMIT) == 0, sandbox.stderr_lines
    assert kills.differences(kills.result(sandbox), reference.result) == []
    assert sandbox.running_commands == []
    assert [run.state_name for run in scheduled.tagged(f"hallmark-process:{killed.stem}")] == ["Crashed"]


def test_signals_stop_the_command_and_it_resumes_afterwards(reference: Reference, tmp_path: Path) -> None:
    sandbox = kills.copy(reference.template, tmp_path / "signals")
    for number in (signal.SIGTERM, signal.SIGINT):
        before = sandbox.newest_checkpoint
        process = kills.start_forked(sandbox)
        kills.until(lambda before=before: sandbox.newest_checkpoint > before)  # it is training
        os.kill(process.pid, number)
        process.join(kills.LIMIT)
        assert process.exitcode == 130
        assert sandbox.stderr_lines[-2:] == [
            "stopped  run the same command to continue, or add --fresh to start over",
            "hallmark: interrupted",
        ]
        assert kills.result(sandbox).runs == ["KILLED"]
    assert "resumed" in [line.split()[0] for line in sandbox.stderr_lines]
    assert kills.exits_within(kills.start_forked(sandbox), kills.LIMIT)
    assert sandbox.stderr_lines[1].startswith("resumed  after epoch ")
    assert kills.differences(kills.result(sandbox), reference.result) == []
