"""Evaluation on the test split: predictions, metrics and a JSON report. Nothing is drawn here."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hallmark.tasks.common.files import whole_file
from hallmark.tasks.common.records import Dataset, Evaluation
from hallmark.tasks.ml.config.data import Data, Points
from hallmark.tasks.ml.config.models import Linear
from hallmark.tasks.ml.data.dataset_store import open_split
from hallmark.tasks.ml.data.source_rows import RawRows
from hallmark.tasks.ml.evaluation import metrics
from hallmark.tasks.ml.evaluation.metrics import Scores
from hallmark.tasks.ml.models import class_probabilities, networks
from hallmark.tasks.ml.models.networks import Classifier
from hallmark.tasks.ml.models.preprocessing import Scaling
from hallmark.tasks.ml.training.optim import losses


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The evaluation of one classifier, with the arrays that its plots are drawn from."""

    record: Evaluation
    """Metrics, and the path of `evaluation.json`."""
    scores: Scores
    probabilities: NDArray[np.float32]
    """`(N, C)`: predictions for the test rows."""


def evaluate(classifier: Classifier, dataset: Dataset, data: Data, folder: Path) -> Evaluated:
    """Score the trained classifier on the test split and write `evaluation.json`.

    Args:
        classifier: the trained model, on the CPU.
        dataset: the prepared splits.
        data: the data part of the experiment; it may name extra points to predict.
        folder: where `evaluation.json` is written.

    Returns:
        Metrics are named `test/...`. `test/loss` is the mean over rows of the training loss (weighted if the training
        loss is); all other metrics are computed from the probabilities. A model of one unit on one column adds
        `model/weight` and `model/bias`, in units of the raw column. Each extra point x adds `model/p_at_<x>`, the
        probability of the second class.
    """
    rows = open_split(dataset, "test")
    logits = networks.logits(classifier, rows.x)
    probabilities = class_probabilities.probabilities(logits, classifier.model, classifier.loss).numpy()
    scores = metrics.score(rows.y, probabilities, dataset.classes)
    target = losses.targets(classifier.loss, torch.tensor(rows.y), logits.shape[1])
    loss = losses.mean_loss(classifier.loss, classifier.model, logits, target)
    named = {"test/loss": loss} | {f"test/{name}": value for name, value in scores.metrics.items()}
    named |= _weight_and_bias(classifier) | _predictions_at(classifier, data.asked if isinstance(data, Points) else ())
    report = folder / "evaluation.json"
    with whole_file(report) as temporary:
        content = {"classes": dataset.classes, "confusion": scores.confusion.tolist(), "metrics": named}
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    return Evaluated(Evaluation(metrics=named, files=(report,)), scores, probabilities)


def predict(classifier: Classifier, x: RawRows) -> NDArray[np.float32]:
    """Return class probabilities `(N, C)` for raw rows."""
    return class_probabilities.probabilities(networks.logits(classifier, x), classifier.model, classifier.loss).numpy()


def _weight_and_bias(classifier: Classifier) -> dict[str, float]:
    """Return weight and bias of a single unit on a single column, in units of the raw column."""
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


def _predictions_at(classifier: Classifier, points: tuple[float, ...]) -> dict[str, float]:
    if not points:
        return {}
    probabilities = predict(classifier, np.array(points, dtype=np.float32)[:, None])
    # Nine digits distinguish any two float32 numbers; MLflow allows no plus sign in a metric name.
    names = [f"model/p_at_{x:.9g}".replace("+", "") for x in points]
    return {name: float(row[1]) for name, row in zip(names, probabilities, strict=True)}
