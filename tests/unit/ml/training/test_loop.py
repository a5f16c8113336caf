"""An interrupted training ends with the same bits as an uninterrupted one."""

import shutil
from pathlib import Path

import pytest
import torch

from hallmark.tasks.common.errors import DivergedError, InputError
from hallmark.tasks.ml.config.data import Iris, Split
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import checkpoints, trainer
from hallmark.tasks.ml.training.checkpoints import Checkpoints
from tests.conftest import prepare
from tests.support.interrupted_training import (
    CASES,
    DIGITS,
    GROWING,
    IRIS,
    LINEAR,
    SMALL,
    STOPS,
    Trial,
    assert_equal,
    assert_equal_fits,
    assert_equal_points,
    experiment,
    run_interrupted,
)

pytestmark = pytest.mark.usefixtures("short_segments")


@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_training_ends_like_an_uninterrupted_one(case: str, tmp_path: Path) -> None:
    dataset = prepare(CASES[case].data, tmp_path)
    reference = Trial(CASES[case], dataset, tmp_path / "reference").run()
    for name, stops in STOPS.items():
        trial = run_interrupted(Trial(CASES[case], dataset, tmp_path / name), stops)
        assert_equal(trial, reference)
        assert trial.fit.resumed_from == trial.resumed[-1]
    assert reference.resumed == []
    assert reference.fit.resumed_from is None


def test_enabling_checkpoints_does_not_change_the_result(tmp_path: Path) -> None:
    case = CASES["adam"]
    dataset = prepare(case.data, tmp_path)
    parts = dataset, case.data, case.model, case.training
    plain = trainer.fit(*parts, tmp_path / "plain", lambda *_: None)
    assert_equal_fits(plain, Trial(case, dataset, tmp_path).run().fit)


def test_a_checkpoint_after_every_segment_does_not_change_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES["digits"]
    dataset = prepare(case.data, tmp_path)
    reference = Trial(case, dataset, tmp_path / "reference").run()
    monkeypatch.setattr(checkpoints, "_SHARE", 1e9)
    trial = Trial(case, dataset, tmp_path / "often", seconds=0).run()
    assert len(list(trial.folder.glob("kept/*.safetensors"))) == 2
    assert_equal(trial, reference)


def test_training_resumes_from_the_checkpoint_before_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    case = CASES["adam"]
    dataset = prepare(case.data, tmp_path)
    reference = Trial(case, dataset, tmp_path / "reference").run()
    monkeypatch.setattr(checkpoints, "_SHARE", 1e9)
    trial = Trial(case, dataset, tmp_path / "damaged", seconds=0)
    assert trial.stop_after(7)
    newest = max(trial.folder.glob("kept/*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    assert_equal(trial.run(), reference)
    assert "using the previous one" in caplog.text
    assert trial.fit.resumed_from is not None


def test_training_starts_over_with_the_same_timestamps_if_all_checkpoints_are_damaged(tmp_path: Path) -> None:
    case = CASES["adam"]
    dataset = prepare(case.data, tmp_path)
    trial = Trial(case, dataset, tmp_path / "damaged", seconds=0)
    assert trial.stop_after(7)
    for path in trial.folder.glob("kept/*.safetensors"):
        path.write_bytes(b"")
    assert_equal(trial.run(), Trial(case, dataset, tmp_path / "reference").run())
    assert trial.fit.resumed_from is None


def test_training_starts_over_with_the_same_timestamps_without_a_checkpoint(tmp_path: Path) -> None:
    """Simulate a kill before the first checkpoint was due."""
    case = CASES["adam"]
    dataset = prepare(case.data, tmp_path)
    trial = Trial(case, dataset, tmp_path / "killed")
    assert trial.stop_after(7)
    for path in trial.folder.glob("kept/*.safetensors"):
        path.unlink()
    assert_equal(trial.run(), Trial(case, dataset, tmp_path / "reference").run())


@pytest.mark.parametrize("batch_size", ["full", 8])
def test_unseeded_weights_are_drawn_once(tmp_path: Path, batch_size: int | str) -> None:
    drawn = experiment(IRIS, SMALL, batch_size=batch_size, epochs=6, initial_weights="unseeded")
    dataset = prepare(drawn.data, tmp_path)
    trial = run_interrupted(Trial(drawn, dataset, tmp_path / "drawn"), STOPS["once"])
    seed = trial.fit.initial_seed
    seeded = experiment(IRIS, SMALL, batch_size=batch_size, epochs=6, seed=seed, shuffle_seed=drawn.training.seed)
    assert_equal(trial, Trial(seeded, dataset, tmp_path / "seeded").run())


def test_unseeded_weights_are_drawn_once_even_if_the_process_is_killed_immediately(tmp_path: Path) -> None:
    def killed() -> bool:
        raise SystemExit  # exits without writing anything

    drawn = experiment(IRIS, SMALL, initial_weights="unseeded")
    dataset = prepare(drawn.data, tmp_path)
    seeds = set()
    for _ in range(3):
        with pytest.raises(SystemExit):
            Trial(drawn, dataset, tmp_path).run(killed)
        found = Checkpoints(tmp_path / "kept", {}).load()
        assert found is not None
        seeds.add(found.facts["members"][0]["seed"])
    assert len(seeds) == 1


def test_a_finished_training_is_read_back(tmp_path: Path) -> None:
    case = CASES["patience"]
    dataset = prepare(case.data, tmp_path)
    first = Trial(case, dataset, tmp_path / "kept").run()
    again = Trial(case, dataset, tmp_path / "kept").run(lambda: pytest.fail("a finished training must not run again"))
    assert_equal(again, first)
    assert set(again.points[0]) == set(first.points[0])


def test_a_moved_folder_can_be_resumed(tmp_path: Path) -> None:
    case = CASES["patience"]
    trial = Trial(case, prepare(case.data, tmp_path / "here"), tmp_path / "here")
    assert trial.stop_after(4)
    shutil.copytree(tmp_path / "here" / "kept", tmp_path / "there" / "kept")
    shutil.rmtree(tmp_path / "here")
    dataset = prepare(case.data, tmp_path / "there")
    moved = Trial(case, dataset, tmp_path / "there", points=trial.points).run()
    assert_equal(moved, Trial(case, dataset, tmp_path / "reference").run())


def test_a_resumed_training_diverges_with_the_same_message(tmp_path: Path) -> None:
    case = experiment(IRIS, LINEAR, **GROWING)
    dataset = prepare(case.data, tmp_path)
    whole, trial = (Trial(case, dataset, tmp_path / name) for name in ("whole", "interrupted"))
    with pytest.raises(DivergedError) as expected:
        whole.run()
    assert trial.stop_after(9)
    with pytest.raises(DivergedError) as found:
        trial.run()
    assert trial.resumed == [(9, 3)]
    assert str(found.value) == str(expected.value)
    assert_equal_points(trial.points[0], whole.points[0])


@pytest.mark.parametrize(
    "other",
    [
        experiment(IRIS, SMALL, batch_size=8, seed=1),
        experiment(IRIS, SMALL, batch_size=8, epochs=5),
        experiment(IRIS, LINEAR, batch_size=8),
        experiment(Iris(kind="iris", split=Split(seed=1)), SMALL, batch_size=8),
        experiment(Iris(kind="iris", scaling="none"), SMALL, batch_size=8),
        experiment(DIGITS, SMALL, batch_size=8),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(other: Experiment, tmp_path: Path) -> None:
    trial = Trial(CASES["adam"], prepare(CASES["adam"].data, tmp_path), tmp_path)
    assert trial.stop_after(1)
    before = {path: path.read_bytes() for path in tmp_path.glob("kept/*")}
    with pytest.raises(InputError, match=r"the checkpoint has another (experiment|dataset): expected"):
        Trial(other, prepare(other.data, tmp_path), tmp_path).run()
    assert {path: path.read_bytes() for path in tmp_path.glob("kept/*")} == before


def test_a_checkpoint_written_with_another_number_of_threads_is_refused(tmp_path: Path) -> None:
    trial = Trial(CASES["adam"], prepare(CASES["adam"].data, tmp_path), tmp_path)
    assert trial.stop_after(1)
    identity = trainer.checkpoint_identity(trial.dataset, IRIS, SMALL, [CASES["adam"].training])
    with pytest.raises(InputError, match="another threads: expected 64, found 1"):
        Checkpoints(tmp_path / "kept", identity | {"threads": "64"}).load()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine")
@pytest.mark.parametrize("case", ["sgd with momentum", "adam", "lbfgs", "cnn", "patience"])
def test_an_interrupted_training_on_a_gpu_ends_like_an_uninterrupted_one(case: str, tmp_path: Path) -> None:
    changed = CASES[case].training.model_copy(update={"device": "cuda"})
    on_gpu = CASES[case].model_copy(update={"training": changed})
    dataset = prepare(on_gpu.data, tmp_path)
    reference = Trial(on_gpu, dataset, tmp_path / "reference").run()
    for name, stops in STOPS.items():
        assert_equal(run_interrupted(Trial(on_gpu, dataset, tmp_path / name), stops), reference)
