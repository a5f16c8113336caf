import json
from pathlib import Path

import numpy as np
import torch

from hallmark.flows.experiments import options
from hallmark.tasks.common.records import Dataset, Evaluation, Fit
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data.dataset_store import open_split
from hallmark.tasks.ml.evaluation import evaluator
from tests.conftest import fit, load, prepare


def evaluate(experiment: Experiment, dataset: Dataset, fitted: Fit, folder: Path) -> Evaluation:
    return evaluator.evaluate(load(fitted, dataset, experiment), dataset, experiment.data, folder).record


def test_the_report_holds_the_same_metrics(iris: tuple[Experiment, Dataset], fitted: Fit, tmp_path: Path) -> None:
    experiment, dataset = iris
    result = evaluate(experiment, dataset, fitted, tmp_path)
    assert {name.split("/")[0] for name in result.metrics} == {"test"}
    # The training loss is the log-loss of the probabilities, up to float32 rounding.
    assert abs(result.metrics["test/loss"] / result.metrics["test/log_loss"] - 1) < 1e-4
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["metrics"] == result.metrics
    assert np.array(report["confusion"]).trace() == result.metrics["test/accuracy"] * 30
    assert result.files == (tmp_path / "evaluation.json",)
    assert not list(tmp_path.glob("*.png"))


def test_metric_names_of_extra_points_are_valid_in_mlflow(tmp_path: Path) -> None:
    experiment = options.experiment("points3_as_published", ["--data.asked=1e20,4.0000005,4.000001,-3"])
    dataset = prepare(experiment.data, tmp_path)
    names = evaluate(experiment, dataset, fit(experiment, dataset, tmp_path), tmp_path).metrics
    extra_points = [name for name in names if name.startswith("model/p_at")]
    assert extra_points == ["model/p_at_1e20", "model/p_at_4.0000005", "model/p_at_4.000001", "model/p_at_-3"]


def test_weight_and_bias_are_in_units_of_the_raw_column(tmp_path: Path) -> None:
    experiment = options.experiment("threshold", ["--data.scaling=standard"])
    dataset = prepare(experiment.data, tmp_path)
    fitted = fit(experiment, dataset, tmp_path)
    found = evaluate(experiment, dataset, fitted, tmp_path).metrics
    x = open_split(dataset, "test").x
    expected = load(fitted, dataset, experiment).logits(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(found["model/weight"] * x + found["model/bias"], expected, atol=1e-4)
