"""Kills and signals at any moment: the same command goes on, and all comes out as if there had been none."""

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import kills
from tests.support.kills import Chain, Place, Result

FORKED_KILLS = 9
"""And one of the command as it is typed."""


@dataclass(frozen=True)
class Reference:
    template: Place
    """Where nothing has run yet."""
    results: tuple[Result, Result]
    """Of two processes that nobody killed."""
    seconds: float
    """What such a process takes."""

    @property
    def result(self) -> Result:
        return self.results[1]


@pytest.fixture(scope="module")
def reference(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    folder = tmp_path_factory.mktemp("kills")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", prefect_server)
        template = kills.made(folder / "template")
        yield Reference(template, *kills.twice(template, folder))


def test_two_processes_in_two_folders_come_to_the_same(reference: Reference) -> None:
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
    assert chain.wrong == []
    assert sum(chain.hit.values()) == FORKED_KILLS
    assert len(chain.hit) > 2


def test_kill_9_of_the_command_as_it_is_typed(reference: Reference, tmp_path: Path) -> None:
    place = kills.copy(reference.template, tmp_path / "typed")
    with kills.typed(place) as process:
        kills.reach(place, "prepare")
        time.sleep(random.Random(0).uniform(0, reference.seconds / 3))  # noqa: S311 - not for secrets
        process.kill()
    assert kills.result(place).runs == ["RUNNING"]
    with kills.typed(place) as process:
        assert process.wait(kills.LIMIT) == 0, place.said
    assert kills.differences(kills.result(place), reference.result) == []


def test_signals_are_heeded_and_the_command_goes_on_after_them(reference: Reference, tmp_path: Path) -> None:
    place = kills.copy(reference.template, tmp_path / "signals")
    for number in (signal.SIGTERM, signal.SIGINT):
        before = place.newest
        process = kills.forked(place)
        kills.until(lambda before=before: place.newest > before)  # it is in the midst of training
        os.kill(process.pid, number)
        process.join(kills.LIMIT)
        assert process.exitcode == 130
        assert place.said[-2:] == [
            "stopped  run the same command to continue, or add --fresh to start over",
            "hallmark: interrupted",
        ]
        assert kills.result(place).runs == ["KILLED"]
    assert "resumed" in [line.split()[0] for line in place.said]
    assert kills.ended(kills.forked(place), kills.LIMIT)
    assert place.said[1].startswith("resumed  after epoch ")
    assert kills.differences(kills.result(place), reference.result) == []
