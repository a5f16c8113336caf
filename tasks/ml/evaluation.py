"""The one look at the test split: metrics, a report and pictures."""

import json
from pathlib import Path

import torch
from torch.nn import functional

from tasks.ml import metrics, models, plots
from tasks.ml.config import Model
from tasks.ml.data import open_split
from tasks.ml.files import whole_file
from tasks.ml.history import curves
from tasks.ml.records import Dataset, Evaluation, Fit


def evaluate(dataset: Dataset, fit: Fit, model: Model, folder: Path) -> Evaluation:
    """Score the trained classifier on the test split.

    Args:
        dataset: the prepared splits.
        fit: the trained weights and their history.
        model: the architecture of the weights.
        folder: where `evaluation.json` and the pictures appear.

    Returns:
        Metrics named `test/...`: `test/loss` is the loss that was trained on, all others are computed from the
        probabilities.
    """
    rows = open_split(dataset, "test")
    with torch.no_grad():
        logits = models.load(fit, dataset, model)(torch.tensor(rows.x))
        loss = functional.cross_entropy(logits, torch.tensor(rows.y)).item()
    scores = metrics.score(rows.y, logits.softmax(1).numpy(), dataset.classes)
    named = {"test/loss": loss} | {f"test/{name}": value for name, value in scores.metrics.items()}
    report = folder / "evaluation.json"
    with whole_file(report) as temporary:
        content = {"classes": dataset.classes, "confusion": scores.confusion.tolist(), "metrics": named}
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    pictures = (
        plots.learning_curves(curves(fit.history), folder / "learning_curves.png"),
        plots.confusion_matrix(scores.confusion, dataset.classes, folder / "confusion_matrix.png"),
        plots.roc(scores.roc, folder / "roc.png"),
    )
    return Evaluation(metrics=named, files=(report, *pictures))
