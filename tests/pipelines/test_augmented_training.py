"""Training on augmented images, too slow for a unit test: after interrupts, and from a memory-mapped file."""

from pathlib import Path

import pytest

from tests.conftest import fit, prepare
from tests.support.interrupted_training import AUGMENTED, STOPS, Trial, assert_equal, run_interrupted
from tests.unit.ml.data.images.test_augmentation import experiment as augmented

pytestmark = pytest.mark.usefixtures("short_segments")


@pytest.mark.parametrize("case", AUGMENTED)
def test_an_interrupted_training_ends_like_an_uninterrupted_one(case: str, tmp_path: Path) -> None:
    dataset = prepare(AUGMENTED[case].data, tmp_path)
    reference = Trial(AUGMENTED[case], dataset, tmp_path / "reference").run()
    for name, stops in STOPS.items():
        trial = run_interrupted(Trial(AUGMENTED[case], dataset, tmp_path / name), stops)
        assert_equal(trial, reference)
        assert trial.fit.resumed_from == trial.resumed[-1]
    assert reference.resumed == []
    assert reference.fit.resumed_from is None


def test_a_mapped_file_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = augmented(augmentation={"shift": 1, "rotation": 5})
    dataset = prepare(case.data, tmp_path)
    in_memory = fit(case, dataset, tmp_path / "a")
    monkeypatch.setattr("hallmark.tasks.ml.training.memory.limit", lambda: 1000)
    assert fit(case, dataset, tmp_path / "b").weights_sha256 == in_memory.weights_sha256
