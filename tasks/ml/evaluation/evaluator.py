"""The one look at the test split: metrics, a report and pictures."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hallmark.tasks.common.files import whole_file
from hallmark.tasks.common.records import Dataset, Evaluation, Fit
from hallmark.tasks.ml.config.data import Data, Points
from hallmark.tasks.ml.config.experiment import Linear, Model
from hallmark.tasks.ml.config.losses import Loss
from hallmark.tasks.ml.data.dataset_store import Rows, open_split
from hallmark.tasks.ml.data.source_rows import RawRows
from hallmark.tasks.ml.evaluation import metrics
from hallmark.tasks.ml.models import class_probabilities, networks
from hallmark.tasks.ml.models.networks import Classifier, Scaling
from hallmark.tasks.ml.reports.plots import figures
from hallmark.tasks.ml.training.history import curves
from hallmark.tasks.ml.training.optim import losses


def evaluate(dataset: Dataset, fit: Fit, data: Data, model: Model, loss: Loss, folder: Path) -> Evaluation:
    """Score the trained classifier on the test split.

    Args:
        dataset: the prepared splits.
        fit: the trained weights and their history.
        data: the source, which may hold further points that are asked.
        model: the architecture of the weights.
        loss: what was minimised.
        folder: where `evaluation.json` and the pictures appear.

    Returns:
        Metrics named `test/...`: `test/loss` is the loss that was trained on, as its mean over rows (weighted where
        it is); all others are computed from the probabilities. `model/weight` and `model/bias`, of the raw column,
        where the model is one unit on one column; `model/p_at_<x>`, the probability of the second class, for each
        point that is asked.
    """
    classifier = networks.load(fit, dataset, model, loss)
    rows = open_split(dataset, "test")
    probabilities = _probabilities(classifier, rows.x)
    scores = metrics.score(rows.y, probabilities, dataset.classes)
    named = {"test/loss": _loss(classifier, rows)} | {f"test/{name}": value for name, value in scores.metrics.items()}
    asked = data.asked if isinstance(data, Points) else ()
    named |= _unit(classifier) | _answers(classifier, asked)
    report = folder / "evaluation.json"
    with whole_file(report) as temporary:
        content = {"classes": dataset.classes, "confusion": scores.confusion.tolist(), "metrics": named}
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    pictures = (
        figures.learning_curves(curves(fit.history), folder / "learning_curves.png"),
        figures.confusion_matrix(
            scores.confusion, tuple(map(figures.shown, dataset.classes)), folder / "confusion_matrix.png"
        ),
        figures.roc(scores.roc, folder / "roc.png"),
        figures.reliability(scores.bins, folder / "reliability.png"),
        *_suited(classifier, dataset, rows, probabilities, asked, folder),
    )
    return Evaluation(metrics=named, files=(report, *pictures))


def _suited(
    classifier: Classifier,
    dataset: Dataset,
    rows: Rows,
    probabilities: NDArray[np.float32],
    asked: tuple[float, ...],
    folder: Path,
) -> list[Path]:
    """The pictures that suit the data: mistakes of images, regions of two columns, the curve of one."""

    def said(x: NDArray[np.floating]) -> NDArray[np.float32]:
        return _probabilities(classifier, x.astype(np.float32))

    x, y, columns, classes = rows.x, rows.y, dataset.columns, tuple(map(figures.shown, dataset.classes))
    if dataset.kinds:
        return []
    match len(columns):
        case 0:
            path = folder / "mistakes.png"
            images = x.astype(np.uint8, copy=False)
            return [figures.mistakes(images, y, probabilities, classes, path, light=dataset.resized)]
        case 1:
            path = folder / "fitted_curve.png"
            return [figures.fitted_curve(said, x.astype(np.float32), y, asked, columns[0], classes, path)]
        case 2:
            path = folder / "decision_regions.png"
            return [figures.decision_regions(said, x.astype(np.float32), y, columns, classes, path)]
        case _:
            return []


def _probabilities(classifier: Classifier, x: RawRows) -> NDArray[np.float32]:
    return class_probabilities.probabilities(networks.logits(classifier, x), classifier.model, classifier.loss).numpy()


def _loss(classifier: Classifier, rows: Rows) -> float:
    logits = networks.logits(classifier, rows.x)
    target = losses.targets(classifier.loss, torch.tensor(rows.y), logits.shape[1])
    return losses.mean(classifier.loss, classifier.model, logits, target)


def _unit(classifier: Classifier) -> dict[str, float]:
    """Weight and bias of a single unit on a single column, for the column as it stands in the data."""
    scaling = classifier.scaling
    if not (isinstance(classifier.model, Linear) and isinstance(classifier.network, nn.Sequential)):
        return {}
    if not isinstance(scaling, Scaling):
        return {}
    layer = classifier.network[0]
    if not isinstance(layer, nn.Linear) or layer.weight.numel() != 1:
        return {}
    weight = (layer.weight.detach().flatten() / scaling.scale).item()
    bias = layer.bias.item() - weight * scaling.shift.item()
    return {"model/weight": weight, "model/bias": bias}


def _answers(classifier: Classifier, asked: tuple[float, ...]) -> dict[str, float]:
    if not asked:
        return {}
    answers = _probabilities(classifier, np.array(asked, dtype=np.float32)[:, None])
    # Nine digits tell any two float32 numbers apart, and MLflow takes no plus sign.
    names = [f"model/p_at_{x:.9g}".replace("+", "") for x in asked]
    return {name: float(row[1]) for name, row in zip(names, answers, strict=True)}
