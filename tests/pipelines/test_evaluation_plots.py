from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hallmark.flows.experiments import options
from hallmark.tasks.ml.evaluation import evaluator
from hallmark.tasks.ml.evaluation.metrics import RocCurve
from hallmark.tasks.ml.reports.plots import evaluation_plots
from hallmark.tasks.ml.reports.plots.dataset_plots import scatter
from hallmark.tasks.ml.reports.plots.evaluation_plots import confusion_matrix, mistakes, roc
from hallmark.tasks.ml.reports.plots.learning_curves import learning_curves
from tests.conftest import fit, load, prepare

COMMON = ["learning_curves", "confusion_matrix", "roc", "reliability"]


def colours(path: Path) -> int:
    """Return the number of distinct colours, which is 1 for an empty picture."""
    with Image.open(path) as picture:
        picture.load()
        return len(picture.convert("RGB").getcolors(2**24) or [])


@pytest.mark.parametrize(
    ("preset", "last"),
    [
        ("iris", None),
        ("blobs", "decision_regions"),
        ("points4_as_published", "fitted_curve"),
        ("digits", "mistakes"),
    ],
)
def test_the_plots_suit_the_data_and_depend_on_the_model(preset: str, last: str | None, tmp_path: Path) -> None:
    def draw(folder: Path, *tokens: str) -> dict[str, bytes]:
        experiment = options.experiment(preset, ["--training.device=cpu", *tokens])
        dataset = prepare(experiment.data, tmp_path)
        fitted = fit(experiment, dataset, folder)
        classifier = load(fitted, dataset, experiment)
        evaluated = evaluator.evaluate(classifier, dataset, experiment.data, folder)
        paths = evaluation_plots.draw(evaluated, classifier, dataset, fitted, experiment.data, folder)
        assert [path.stem for path in paths] == [*COMMON, *([last] if last else [])]
        assert all(colours(path) > 50 for path in paths)
        return {path.stem: path.read_bytes() for path in paths}

    first = draw(tmp_path / "one", "--training.epochs=3")
    assert first == draw(tmp_path / "two", "--training.epochs=3")
    changed = draw(tmp_path / "three", "--training.epochs=9")
    assert first[last or "reliability"] != changed[last or "reliability"]


def test_the_gallery_shows_when_there_are_no_mistakes(tmp_path: Path) -> None:
    images, y = np.zeros((2, 4, 4), dtype=np.uint8), np.array([0, 1])
    right, wrong = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.1, 0.9], [0.2, 0.8]])
    none = mistakes(images, y, right, ("a", "b"), tmp_path / "none.png").read_bytes()
    one = mistakes(images, y, wrong, ("a", "b"), tmp_path / "one.png").read_bytes()
    assert none != one


def test_a_legend_of_sixty_classes_leaves_room_for_the_plot(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(600, 2)), np.repeat(np.arange(60), 10)
    names = tuple(map(str, range(60)))
    assert colours(scatter(x, y, ("x1", "x2"), names, tmp_path / "scatter.png")) > 50


def test_the_same_numbers_give_the_same_plot(tmp_path: Path) -> None:
    confusion = np.array([[3, 1], [0, 4]])
    first, second = (confusion_matrix(confusion, ("a", "b"), tmp_path / name) for name in ("1.png", "2.png"))
    assert first.read_bytes() == second.read_bytes()
    other = confusion_matrix(confusion.T.copy(), ("a", "b"), tmp_path / "3.png")
    assert other.read_bytes() != first.read_bytes()


def test_extreme_inputs_are_drawn(tmp_path: Path) -> None:
    one_epoch = {"train/loss": ([1], [0.5]), "train/accuracy": ([1], [0.9])}
    assert colours(learning_curves(one_epoch, tmp_path / "curve.png")) > 50
    step = np.array([0.0, 1.0])
    many = {f"class {index}": RocCurve(step, step, 0.5) for index in range(20)} | {"micro": RocCurve(step, step, 0.5)}
    assert colours(roc(many, tmp_path / "roc.png")) > 50
    long_names = tuple(f"a rather long class name {index}" for index in range(12))
    assert colours(confusion_matrix(np.eye(12, dtype=int), long_names, tmp_path / "confusion.png")) > 50
