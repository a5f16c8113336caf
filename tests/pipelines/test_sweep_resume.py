"""An interrupted sweep is resumed in the same runs. `test_sweep_kills` kills real processes."""

import signal
import uuid
from collections import Counter

import pytest

from hallmark.flows.experiments import sweep_grids
from hallmark.flows.sweep import sweep
from hallmark.flows.train import train
from hallmark.tasks.common.results import SweepOutcome
from hallmark.tasks.tracking import client
from tests.support.interrupted import interrupted
from tests.support.swept import LR, SEED, curve, get_run, grid, runs, versions

pytestmark = pytest.mark.usefixtures("prefect_server", "home")


@pytest.fixture(scope="module")
def six(prefect_server: str) -> tuple[sweep_grids.Grid, SweepOutcome]:  # noqa: ARG001 - the server comes first
    """Run an uninterrupted sweep over two learning rates and three seeds."""
    found = grid(f"--{LR}=0.1,0.01", f"--{SEED}=0..2")
    return found, sweep(found.members, found.axes)


def interrupt(found: sweep_grids.Grid, monkeypatch: pytest.MonkeyPatch, *, fresh: bool = False) -> None:
    with interrupted(monkeypatch, at=2):
        sweep(found.members, found.axes, fresh=fresh)


def statuses(found: sweep_grids.Grid) -> Counter[str]:
    return Counter(run.info.status for run in runs(found.members[0].name))


def same(found: sweep_grids.Grid, of: str) -> sweep_grids.Grid:
    """Return the same members under another name."""
    return sweep_grids.Grid(found.axes, tuple(member.model_copy(update={"name": of}) for member in found.members))


def history(run: str) -> dict[str, list[tuple[int, float]]]:
    """Return the metrics of a run, without durations, and check that no step occurs twice."""
    curves = {name: curve(run, name) for name in get_run(run).data.metrics}
    for name, points in curves.items():
        assert len(dict(points)) == len(points), name
    return {name: points for name, points in curves.items() if not name.startswith("time/")}


def assert_equal(outcome: SweepOutcome, reference: SweepOutcome) -> None:
    assert outcome.chosen == reference.chosen
    for one, other in zip([outcome, *outcome.members], [reference, *reference.members], strict=True):
        assert history(one.run.id) == history(other.run.id)
    for member, other in zip(outcome.members, reference.members, strict=True):
        assert member.fit
        assert other.fit
        assert member.fit.weights_sha256 == other.fit.weights_sha256


def test_an_interrupted_sweep_is_resumed_in_the_same_runs(
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
    assert_equal(outcome, six[1])


def test_a_sweep_interrupted_after_the_choice_is_resumed_there(
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
    assert_equal(outcome, six[1])
    assert len(versions(found.members[0].name)) == 1


def mark_as_killed(found: sweep_grids.Grid) -> None:
    """Set all runs to RUNNING, as kill -9 leaves them."""
    for run in runs(found.members[0].name):
        client.connect().update_run(run.info.run_id, status="RUNNING")


def test_fresh_closes_every_run_of_a_killed_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    found = grid(f"--{LR}=0.1,0.01")
    interrupt(found, monkeypatch)
    mark_as_killed(found)
    assert statuses(found) == {"RUNNING": 3}
    interrupt(found, monkeypatch, fresh=True)
    assert statuses(found) == {"KILLED": 6}


def test_a_sweep_of_one_member_does_not_resume_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use one member, as `--random 1` does: the interrupted training's run must not become the sweep's parent."""
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
