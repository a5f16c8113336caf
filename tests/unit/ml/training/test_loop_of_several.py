"""Stacked networks are interrupted together, and each ends with the same bits as without an interrupt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.common.records import Fit
from hallmark.tasks.ml.config.experiment import Experiment, Training
from tests.conftest import prepare
from tests.support.interrupted_training import (
    GROWING,
    IRIS,
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


THREE = {
    "orders of their own": [{"seed": 1}, {"seed": 2}, {"seed": 3}],
    "one order": [{"seed": seed, "shuffle_seed": 7} for seed in (1, 2, 3)],
    "learning rates": [{"lr": lr} for lr in (0.001, 0.01, 0.1)],
    "early stopping": [{"lr": lr, "shuffle_seed": 7, "seed": seed} for lr, seed in ((0.3, 1), (0.003, 2), (0.05, 3))],
}
MANNERS: dict[str, dict[str, Any]] = {
    "adam": {"batch_size": 8},
    "adamw": {"batch_size": 8, "optimizer": "adamw", "weight_decay": 0.1},
    "sgd": {"batch_size": 8, "optimizer": "sgd", "momentum": 0.9},
    "full": {"epochs": 20},
}


def together(members: Sequence[dict[str, Any]], **options: Any) -> tuple[Experiment, list[Training]]:  # noqa: ANN401 - any field of Training
    """Return an experiment that all members share, and the training of each member."""
    experiments = [experiment(IRIS, SMALL, **options | member) for member in members]
    return experiments[0], [one.training for one in experiments]


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("three", THREE)
def test_interrupted_stacked_networks_end_like_uninterrupted_ones(three: str, manner: str, tmp_path: Path) -> None:
    options = MANNERS[manner] | ({"patience": 2, "epochs": 12} if three == "early stopping" else {})
    case, members = together(THREE[three], **options)
    dataset = prepare(case.data, tmp_path)
    reference = Trial(case, dataset, tmp_path / "reference", members).run()
    for name, stops in STOPS.items():
        assert_equal(run_interrupted(Trial(case, dataset, tmp_path / name, members), stops), reference)


def test_members_stop_early_at_different_epochs(tmp_path: Path) -> None:
    case, members = together(THREE["early stopping"], batch_size=8, patience=2, epochs=12)
    trial = Trial(case, prepare(case.data, tmp_path), tmp_path, members).run()
    assert len({fit.epochs for fit in trial.fits if isinstance(fit, Fit)}) > 1


def test_a_diverging_member_does_not_affect_the_others_despite_interrupts(tmp_path: Path) -> None:
    case, members = together([{"weight_decay": decay} for decay in (0.001, 1, 0.01)], **GROWING)
    dataset = prepare(case.data, tmp_path)
    reference = Trial(case, dataset, tmp_path / "reference", members).run()
    trial = run_interrupted(Trial(case, dataset, tmp_path / "interrupted", members), (3, 5, 5, 3))
    for index, (one, other) in enumerate(zip(trial.fits, reference.fits, strict=True)):
        if index == 1:
            assert isinstance(one, DivergedError)
            assert str(one) == str(other)
        else:
            assert_equal_fits(one, other)
        assert_equal_points(trial.points[index], reference.points[index])
