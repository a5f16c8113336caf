"""A sweep that is interrupted goes on in the same runs; `test_sweep_kills` kills real processes."""

import signal
import uuid
from collections import Counter

import pytest

from hallmark.flows.experiments import sweep_grids
from hallmark.flows.sweep import sweep
from hallmark.flows.train import train
from hallmark.tasks.common.records import SweepOutcome
from hallmark.tasks.tracking import client
from tests.support.interrupted import interrupted
from tests.support.swept import LR, SEED, curve, grid, runs, stored, versions

pytestmark = pytest.mark.usefixtures("prefect_server", "home")


@pytest.fixture(scope="module")
def six(prefect_server: str) -> tuple[sweep_grids.Grid, SweepOutcome]:  # noqa: ARG001 - the server comes first
    """Two learning rates by three seeds, as one, of which nothing interrupts any."""
    found = grid(f"--{LR}=0.1,0.01", f"--{SEED}=0..2")
    return found, sweep(found.members, found.axes)


def interrupt(found: sweep_grids.Grid, monkeypatch: pytest.MonkeyPatch, *, fresh: bool = False) -> None:
    with interrupted(monkeypatch, at=2):
        sweep(found.members, found.axes, fresh=fresh)


def statuses(found: sweep_grids.Grid) -> Counter[str]:
    return Counter(run.info.status for run in runs(found.members[0].name))


def same(found: sweep_grids.Grid, of: str) -> sweep_grids.Grid:
    """The same members by another name."""
    return sweep_grids.Grid(found.axes, tuple(member.model_copy(update={"name": of}) for member in found.members))


def history(run: str) -> dict[str, list[tuple[int, float]]]:
    """What MLflow has of a run, but for what is measured in seconds; no step twice."""
    curves = {name: curve(run, name) for name in stored(run).data.metrics}
    for name, points in curves.items():
        assert len(dict(points)) == len(points), name
    return {name: points for name, points in curves.items() if not name.startswith("time/")}


def assert_as_if_nothing_had_been(outcome: SweepOutcome, reference: SweepOutcome) -> None:
    assert outcome.chosen == reference.chosen
    for one, other in zip([outcome, *outcome.members], [reference, *reference.members], strict=True):
        assert history(one.run.id) == history(other.run.id)
    for member, other in zip(outcome.members, reference.members, strict=True):
        assert member.fit
        assert other.fit
        assert member.fit.weights_sha256 == other.fit.weights_sha256


def test_an_interrupted_sweep_goes_on_in_the_same_runs(
    six: tuple[sweep_grids.Grid, SweepOutcome], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = same(six[0], f"s{uuid.uuid4().hex[:12]}")
    interrupt(found, monkeypatch)
    assert statuses(found) == {"KILLED": 7}
    before = {run.info.run_id for run in runs(found.members[0].name)}
    capsys.readouterr()
    outcome = sweep(found.members, found.axes)
    assert "resumed  after epoch 2" in capsys.readouterr().err
    assert statuses(found) == {"FINISHED": 7}
    assert {run.info.run_id for run in runs(found.members[0].name)} == before
    assert_as_if_nothing_had_been(outcome, six[1])


def test_one_that_is_interrupted_after_the_choice_goes_on_there(
    six: tuple[sweep_grids.Grid, SweepOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = same(six[0], f"s{uuid.uuid4().hex[:12]}")

    def export(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("hallmark.tasks.ml.artifact.exporter.export", export)
        with pytest.raises(KeyboardInterrupt):
            sweep(found.members, found.axes)
    assert statuses(found) == {"FINISHED": 5, "KILLED": 2}
    outcome = sweep(found.members, found.axes)
    assert statuses(found) == {"FINISHED": 7}
    assert_as_if_nothing_had_been(outcome, six[1])
    assert len(versions(found.members[0].name)) == 1


def kill(found: sweep_grids.Grid) -> None:
    """Let its runs be as kill -9 leaves them."""
    for run in runs(found.members[0].name):
        client.connect().update_run(run.info.run_id, status="RUNNING")


def test_fresh_closes_every_run_of_what_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = grid(f"--{LR}=0.1,0.01")
    interrupt(found, monkeypatch)
    kill(found)
    assert statuses(found) == {"RUNNING": 3}
    interrupt(found, monkeypatch, fresh=True)
    assert statuses(found) == {"KILLED": 6}


def test_a_sweep_of_one_member_is_no_training_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `--random 1` gives it: the run of an interrupted training does not become a sweep's parent."""
    found = grid(f"--{LR}=0.1,0.01")
    one = sweep_grids.Grid(found.axes, found.members[:1])
    with monkeypatch.context() as patch:
        patch.setattr("hallmark.tasks.ml.artifact.exporter.export", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train(one.members[0])
    (before,) = runs(one.members[0].name)
    with monkeypatch.context() as patch:
        patch.setattr("hallmark.flows.sweep.train_members", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            sweep(one.members, one.axes)
    after = {run.info.run_id: run.info.run_name for run in runs(one.members[0].name)}
    assert len(after) == 3
    assert after[before.info.run_id] == before.info.run_name
