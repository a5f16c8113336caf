"""Each finding occurs for an experiment that has it, and not for one that does not."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hallmark.flows.experiments import options, presets
from hallmark.tasks.common.records import Evaluation, Finding
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data import sources, splits, suitability
from hallmark.tasks.ml.evaluation import evaluator
from hallmark.tasks.ml.evaluation.findings import after_training, before_training
from tests.conftest import fit, load, prepare

ROUGH = {"data.scaling": "none", "model.kind": "linear", "training.optimizer": "sgd"}
GREEDY = {
    "data.rows": 300,
    "data.std": 5,
    "model.hidden": 256,
    "training.optimizer": "adam",
    "training.lr": 0.01,
    "training.epochs": 300,
}


def changed(preset: str, changes: dict[str, Any]) -> Experiment:
    return options.experiment(preset, [f"--{path}={value}" for path, value in changes.items()])


@pytest.mark.parametrize("name", [name for name in presets.PRESETS if not name.startswith("mnist")])
def test_every_remedy_that_is_an_option_works_on_the_preset_that_prints_it(name: str, folder: Path) -> None:
    preset = presets.get(name)
    known = before_training.find(preset)
    for found in (*known, *findings(preset, folder).values()):
        if found.remedy.startswith("--"):
            corrected = options.experiment(name, found.remedy.split())
            table = sources.read(corrected.data, folder)
            divided = splits.divide(table, corrected.data.split)
            suitability.refuse_impossible(table, divided, corrected.model, corrected.training)
            assert found.code not in {other.code for other in before_training.find(corrected)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("findings")


@cache
def findings(experiment: Experiment, folder: Path) -> dict[str, Finding]:
    """Return the findings after a real training by code. Each experiment is trained once."""
    dataset = prepare(experiment.data, folder)
    fitted = fit(experiment, dataset, folder)
    evaluation = evaluator.evaluate(load(fitted, dataset, experiment), dataset, experiment.data, folder).record
    return {found.code: found for found in after_training.find(experiment, dataset, fitted, evaluation)}


@pytest.mark.parametrize(
    ("code", "has", "has_not"),
    [
        (
            "no_better_than_prior",
            ("threshold_mse_as_published", {}),
            ("threshold_bce_as_published", {}),
        ),
        (
            "no_linear_relation",
            ("points4_as_published", {}),
            ("points3_as_published", {}),
        ),
        (
            "loss_oscillates",
            ("iris", ROUGH | {"training.lr": 0.3}),
            ("iris", ROUGH | {"training.lr": 0.01}),
        ),
        (
            "overfits",
            ("blobs", GREEDY | {"training.patience": 0}),
            ("blobs", GREEDY | {"training.patience": 10}),
        ),
        (
            "not_converged",
            ("iris_as_published", {}),
            ("iris_softmax", {}),
        ),
        (
            "outside_training_range",
            ("points3_as_published", {}),
            ("points3_as_published", {"data.asked": "2.5"}),
        ),
        (
            "test_split_too_small",
            ("iris", {}),
            ("digits", {"training.epochs": 1}),
        ),
    ],
)
def test_each_finding_occurs_only_where_it_applies(
    code: str, has: tuple[str, dict[str, Any]], has_not: tuple[str, dict[str, Any]], folder: Path
) -> None:
    assert code in findings(changed(*has), folder)
    assert code not in findings(changed(*has_not), folder)


def test_the_three_findings_on_curves_are_distinguished(folder: Path) -> None:
    shapes = {"loss_oscillates", "overfits", "not_converged"}
    cases = {
        "loss_oscillates": ("iris", ROUGH | {"training.lr": 0.3}),
        "overfits": ("blobs", GREEDY | {"training.patience": 0}),
        "not_converged": ("iris_as_published", {}),
    }
    for code, case in cases.items():
        assert shapes & findings(changed(*case), folder).keys() == {code}
    assert not shapes & findings(presets.get("iris"), folder).keys()


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("blobs", GREEDY | {"training.patience": 0, "training.monitor": "train"}),
        ("blobs", GREEDY | {"training.patience": 0, "training.monitor": "test"}),
    ],
)
def test_the_remedy_of_overfitting_monitors_validation(preset: str, changes: dict[str, Any], folder: Path) -> None:
    remedy = findings(changed(preset, changes), folder)["overfits"].remedy
    tokens = [f"--{path}={value}" for path, value in changes.items()]
    corrected = options.experiment(preset, [*tokens, *remedy.split()])
    assert "overfits" not in findings(corrected, folder)


def test_a_schedule_that_barely_falls_does_not_hide_an_unfinished_training(folder: Path) -> None:
    slow = {"training.lr": 0.001, "training.epochs": 20, "training.patience": 0, "training.schedule.kind": "step"}
    barely = {"training.schedule.every": 5, "training.schedule.factor": 0.99}
    assert "not_converged" in findings(changed("blobs", slow | barely), folder)
    assert "not_converged" not in findings(changed("blobs", slow | {"training.schedule.every": 2}), folder)


def test_findings_contain_the_numbers(folder: Path) -> None:
    four = findings(presets.get("points4_as_published"), folder)
    assert "x = 5 (training range 1 to 4)" in four["outside_training_range"].sentence
    assert "0.693" in four["no_better_than_prior"].sentence
    iris = findings(presets.get("iris"), folder)
    # Six discordant rows out of thirty.
    assert "with 30 test rows" in iris["test_split_too_small"].sentence
    assert "under 20 points" in iris["test_split_too_small"].sentence


def test_the_exact_mcnemar_test_needs_at_least_six_discordant_rows() -> None:
    from scipy.stats import binomtest

    assert binomtest(after_training.DISCORDANT, after_training.DISCORDANT).pvalue < 0.05
    assert binomtest(after_training.DISCORDANT - 1, after_training.DISCORDANT - 1).pvalue > 0.05


def test_a_weighted_loss_is_compared_with_the_prior_that_it_makes_best(folder: Path) -> None:
    dataset = prepare(presets.get("iris").data, folder)
    rows = after_training.Rows(np.zeros((200, 1), np.float32), np.maximum(np.arange(200) % 100 - 97, 0))
    for weight, is_found in (("1,1,1", True), ("0.34,33,33", False)):
        experiment = changed("iris", {"training.loss.weight": weight})
        evaluation = Evaluation({"test/accuracy": 0.95, "test/log_loss": 0.2}, ())
        trained = after_training.Trained(experiment, dataset, None, evaluation, rows, rows)  # type: ignore[arg-type]
        assert (after_training._no_better_than_prior(trained) is not None) == is_found


def test_xor_has_no_linear_relation_and_a_column_has_one_with_itself() -> None:
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], size=(400, 2)).astype(np.float32)
    xor = after_training.Rows(x, (x[:, 0] * x[:, 1] > 0).astype(np.int64))
    first = after_training.Rows(x, (x[:, 0] > 0).astype(np.int64))
    assert not after_training.has_linear_relation(xor)
    assert after_training.has_linear_relation(first)


def test_an_overconfident_model_is_better_than_the_prior(folder: Path) -> None:
    confident = changed("blobs", GREEDY | {"data.std": 3, "model.hidden": "256,256", "training.patience": 0})
    found = findings(confident, folder)
    assert "overfits" in found
    assert "no_better_than_prior" not in found


@pytest.mark.parametrize("seed", range(6))
def test_a_random_split_is_not_outside_the_training_range(seed: int, folder: Path) -> None:
    for preset, more in (("iris", {}), ("blobs", {"data.features": 100})):
        experiment = changed(preset, more | {"data.split.seed": seed, "training.epochs": 2, "training.patience": 0})
        assert "outside_training_range" not in findings(experiment, folder)


def test_a_loss_that_settles_does_not_count_as_oscillating(folder: Path) -> None:
    settling = {"training.schedule.kind": "step", "training.schedule.every": 50, "training.schedule.factor": 0.001}
    assert "loss_oscillates" not in findings(changed("iris", {"training.lr": 1} | settling), folder)
