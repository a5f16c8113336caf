import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hallmark.flows.experiments import options
from hallmark.tasks.common.records import Dataset, Fit
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data.dataset_store import open_split
from hallmark.tasks.ml.evaluation import evaluator
from hallmark.tasks.ml.evaluation.metrics import Curve
from hallmark.tasks.ml.reports.plots import figures
from tests.conftest import fit, load, prepare


def colours(path: Path) -> int:
    """Number of distinct colours: one for an empty picture."""
    with Image.open(path) as picture:
        picture.load()
        return len(picture.convert("RGB").getcolors(2**24) or [])


def test_the_report_says_what_the_metrics_say(iris: tuple[Experiment, Dataset], fitted: Fit, tmp_path: Path) -> None:
    experiment, dataset = iris
    result = evaluator.evaluate(dataset, fitted, experiment.data, experiment.model, experiment.training.loss, tmp_path)
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


@pytest.mark.parametrize(
    ("preset", "picture"),
    [("blobs", "decision_regions"), ("points4_as_published", "fitted_curve"), ("digits", "mistakes")],
)
def test_the_pictures_suit_the_data_and_show_the_model(preset: str, picture: str, tmp_path: Path) -> None:
    def draw(folder: Path, *tokens: str) -> bytes:
        experiment = options.experiment(preset, list(tokens))
        dataset = prepare(experiment.data, tmp_path)
        fitted = fit(experiment, dataset, folder)
        model, loss = experiment.model, experiment.training.loss
        files = evaluator.evaluate(dataset, fitted, experiment.data, model, loss, folder).files
        drawn = [file.stem for file in files if file.suffix == ".png"]
        assert drawn == ["learning_curves", "confusion_matrix", "roc", "reliability", picture]
        return (folder / f"{picture}.png").read_bytes()

    first = draw(tmp_path / "one", "--training.epochs=3")
    assert first == draw(tmp_path / "two", "--training.epochs=3")
    assert first != draw(tmp_path / "three", "--training.epochs=9")


def test_a_place_that_is_asked_has_a_name_that_mlflow_takes(tmp_path: Path) -> None:
    experiment = options.experiment("points3_as_published", ["--data.asked=1e20,4.0000005,4.000001,-3"])
    dataset = prepare(experiment.data, tmp_path)
    fitted = fit(experiment, dataset, tmp_path)
    model, loss = experiment.model, experiment.training.loss
    names = evaluator.evaluate(dataset, fitted, experiment.data, model, loss, tmp_path).metrics.keys()
    asked = [name for name in names if name.startswith("model/p_at")]
    assert asked == ["model/p_at_1e20", "model/p_at_4.0000005", "model/p_at_4.000001", "model/p_at_-3"]


def test_weight_and_bias_are_those_of_the_column_as_it_stands(tmp_path: Path) -> None:
    experiment = options.experiment("threshold", ["--data.scaling=standard"])
    dataset = prepare(experiment.data, tmp_path)
    fitted = fit(experiment, dataset, tmp_path)
    model, loss = experiment.model, experiment.training.loss
    found = evaluator.evaluate(dataset, fitted, experiment.data, model, loss, tmp_path).metrics
    x = open_split(dataset, "test").x
    expected = load(fitted, dataset, experiment).logits(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(found["model/weight"] * x + found["model/bias"], expected, atol=1e-4)


def test_a_gallery_without_mistakes_says_so(tmp_path: Path) -> None:
    images, y = np.zeros((2, 4, 4), dtype=np.uint8), np.array([0, 1])
    right, wrong = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.1, 0.9], [0.2, 0.8]])
    none = figures.mistakes(images, y, right, ("a", "b"), tmp_path / "none.png").read_bytes()
    one = figures.mistakes(images, y, wrong, ("a", "b"), tmp_path / "one.png").read_bytes()
    assert none != one


def test_sixty_classes_leave_room_for_the_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(600, 2)), np.repeat(np.arange(60), 10)
    names = tuple(map(str, range(60)))
    assert colours(figures.scatter(x, y, ("x1", "x2"), names, tmp_path / "scatter.png")) > 50


def test_the_same_numbers_give_the_same_picture(tmp_path: Path) -> None:
    confusion = np.array([[3, 1], [0, 4]])
    first, second = (figures.confusion_matrix(confusion, ("a", "b"), tmp_path / name) for name in ("1.png", "2.png"))
    assert first.read_bytes() == second.read_bytes()
    other = figures.confusion_matrix(confusion.T.copy(), ("a", "b"), tmp_path / "3.png")
    assert other.read_bytes() != first.read_bytes()


def test_pictures_of_extremes_are_drawn(tmp_path: Path) -> None:
    one_epoch = {"train/loss": ([1], [0.5]), "train/accuracy": ([1], [0.9])}
    assert colours(figures.learning_curves(one_epoch, tmp_path / "curve.png")) > 50
    step = np.array([0.0, 1.0])
    many = {f"class {index}": Curve(step, step, 0.5) for index in range(20)} | {"micro": Curve(step, step, 0.5)}
    assert colours(figures.roc(many, tmp_path / "roc.png")) > 50
    long_names = tuple(f"a rather long class name {index}" for index in range(12))
    assert colours(figures.confusion_matrix(np.eye(12, dtype=int), long_names, tmp_path / "confusion.png")) > 50
