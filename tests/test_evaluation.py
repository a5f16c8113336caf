import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.ml import evaluation, plots
from tasks.ml.config import Experiment
from tasks.ml.metrics import Curve
from tasks.ml.records import Dataset, Fit


def colours(path: Path) -> int:
    """Number of distinct colours: one for an empty picture."""
    with Image.open(path) as picture:
        picture.load()
        return len(picture.convert("RGB").getcolors(2**24) or [])


def test_the_report_says_what_the_metrics_say(iris: tuple[Experiment, Dataset], fitted: Fit, tmp_path: Path) -> None:
    experiment, dataset = iris
    result = evaluation.evaluate(dataset, fitted, experiment.data, experiment.model, experiment.training.loss, tmp_path)
    assert {name.split("/")[0] for name in result.metrics} == {"test"}
    # The loss that was trained on is the log-loss of the probabilities, but for float32.
    assert result.metrics["test/loss"] == pytest.approx(result.metrics["test/log_loss"], rel=1e-4)
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["metrics"] == result.metrics
    assert np.array(report["confusion"]).trace() == result.metrics["test/accuracy"] * 30
    assert [path.name for path in result.files] == [
        "evaluation.json",
        "learning_curves.png",
        "confusion_matrix.png",
        "roc.png",
        "reliability.png",
    ]
    for picture in result.files[1:]:
        assert colours(picture) > 50


def test_the_same_numbers_give_the_same_picture(tmp_path: Path) -> None:
    confusion = np.array([[3, 1], [0, 4]])
    first, second = (plots.confusion_matrix(confusion, ("a", "b"), tmp_path / name) for name in ("1.png", "2.png"))
    assert first.read_bytes() == second.read_bytes()
    other = plots.confusion_matrix(confusion.T.copy(), ("a", "b"), tmp_path / "3.png")
    assert other.read_bytes() != first.read_bytes()


def test_pictures_of_extremes_are_drawn(tmp_path: Path) -> None:
    one_epoch = {"train/loss": ([1], [0.5]), "train/accuracy": ([1], [0.9])}
    assert colours(plots.learning_curves(one_epoch, tmp_path / "curve.png")) > 50
    step = np.array([0.0, 1.0])
    many = {f"class {index}": Curve(step, step, 0.5) for index in range(20)} | {"micro": Curve(step, step, 0.5)}
    assert colours(plots.roc(many, tmp_path / "roc.png")) > 50
    long_names = tuple(f"a rather long class name {index}" for index in range(12))
    assert colours(plots.confusion_matrix(np.eye(12, dtype=int), long_names, tmp_path / "confusion.png")) > 50
