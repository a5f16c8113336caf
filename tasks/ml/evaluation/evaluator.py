"""The one look at the test split: metrics, a report and pictures."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tasks.ml import losses, metrics, models, outputs, plots
from tasks.ml.config import Linear, Model
from tasks.ml.config_data import Data, Points
from tasks.ml.config_losses import Loss
from tasks.ml.data import Rows, open_split
from tasks.ml.files import whole_file
from tasks.ml.history import curves
from tasks.ml.models import Classifier, Scaling
from tasks.ml.records import Dataset, Evaluation, Fit
from tasks.ml.sources import Raw


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
    classifier = models.load(fit, dataset, model, loss)
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
        plots.learning_curves(curves(fit.history), folder / "learning_curves.png"),
        plots.confusion_matrix(
            scores.confusion, tuple(map(plots.shown, dataset.classes)), folder / "confusion_matrix.png"
        ),
        plots.roc(scores.roc, folder / "roc.png"),
        plots.reliability(scores.bins, folder / "reliability.png"),
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

    x, y, columns, classes = rows.x, rows.y, dataset.columns, tuple(map(plots.shown, dataset.classes))
    if dataset.kinds:
        return []
    match len(columns):
        case 0:
            path = folder / "mistakes.png"
            images = x.astype(np.uint8, copy=False)
            return [plots.mistakes(images, y, probabilities, classes, path, light=dataset.resized)]
        case 1:
            path = folder / "fitted_curve.png"
            return [plots.fitted_curve(said, x.astype(np.float32), y, asked, columns[0], classes, path)]
        case 2:
            path = folder / "decision_regions.png"
            return [plots.decision_regions(said, x.astype(np.float32), y, columns, classes, path)]
        case _:
            return []


def _probabilities(classifier: Classifier, x: Raw) -> NDArray[np.float32]:
    return outputs.probabilities(models.logits(classifier, x), classifier.model, classifier.loss).numpy()


def _loss(classifier: Classifier, rows: Rows) -> float:
    logits = models.logits(classifier, rows.x)
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
