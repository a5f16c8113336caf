"""The model card: one HTML page, readable offline, that explains a shipped file to the people who use it.

The test results on the card are computed from the predictions of the shipped file. The text is in
`templates/model_card.html.jinja`; this module computes the values.
"""

import base64
import io
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.digests import RUN_ID_DIGITS, SHOWN
from hallmark.tasks.common.records import SPLITS, Dataset
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.artifact.certificate import Certificate, Input
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data.dataset_store import open_split, unlabelled
from hallmark.tasks.ml.data.tables.date_columns import date_parts
from hallmark.tasks.ml.data.tables.wide_numbers import in_words
from hallmark.tasks.ml.evaluation import intervals
from hallmark.tasks.ml.evaluation.intervals import Interval
from hallmark.tasks.ml.evaluation.metrics import (
    METRICS,
    ClassScores,
    OfResamples,
    Predictions,
    class_scores,
    confidence_intervals,
)
from hallmark.tasks.ml.reports import charts, code_snippets, templating
from hallmark.tasks.ml.reports.formatting import NONE, number, percent
from hallmark.tasks.ml.reports.mistakes import MISTAKES
from hallmark.tasks.ml.reports.shipped_predictions import ShippedPredictions, predict_test_rows
from hallmark.tasks.ml.training import history

COLUMNS = 8
"""Maximum number of columns of a misclassified row."""
VALUES = 8
"""Maximum number of values of a text column."""
MAX_CLASSES = 25
"""Maximum number of classes with a full confusion matrix. For more, the most frequent confusions are listed."""
CONFUSIONS = 25
"""Maximum number of listed confusions."""
EXAMPLE = 0
"""Index of the golden row that the code examples predict."""

LABELS = {"train": "training", "val": "validation", "test": "test"}


def build(experiment: Experiment, outcome: Outcome, written: datetime) -> str:
    """Return the card as HTML.

    Args:
        experiment: the configuration that was trained.
        outcome: the results, with the shipped file.
        written: time of writing. It appears on the card but not in the shipped file.

    Raises:
        DamagedError: the shipped file's seal is broken.
    """
    predictions, version = predict_test_rows(outcome), outcome.model_version
    certificate = predictions.certificate
    champion = ", the champion at the time of writing" if version.is_champion else ""
    day = f"{written.astimezone(UTC):%d %B %Y}".lstrip("0")
    return templating.render(
        "model_card.html.jinja",
        title=experiment.name,
        lead=f"Version {version.version}{champion}. Run {outcome.run.id[:RUN_ID_DIGITS]}, {day}.",
        classes=certificate.classes,
        takes_image=code_snippets.takes_images(certificate),
        rows=f"{len(predictions.y):,}",
        most_rows=MAX_CLASSES,
        facts=_facts(experiment, outcome, certificate),
        options=[(name, str(value)) for name, value in experiment.flat().items()],
        inputs=[(one.name, one.kind or one.dtype, _range(one), one.description) for one in certificate.inputs],
        fit=outcome.fit,
        charts=_charts(outcome),
        findings=outcome.findings,
        proof=certificate.proof,
        **_data(outcome.dataset),
        **_metrics(outcome, predictions),
        **_classes(predictions.confusion(), certificate.classes),
        **_mistakes(predictions),
        **_use(outcome, certificate),
    )


def _facts(experiment: Experiment, outcome: Outcome, certificate: Certificate) -> list[tuple[str, str]]:
    version, run, artifact = outcome.model_version, outcome.run, outcome.artifact
    network = experiment.model.model_dump(mode="json")
    parts = [network.pop("kind"), *(f"{name} {value}" for name, value in network.items() if value not in (None, []))]
    return [
        ("model", f"{version.name} version {version.version}"),
        ("file", f"{artifact.path.name}, {artifact.path.stat().st_size:,} bytes"),
        ("sha256", artifact.sha256),
        ("input", _input(certificate)),
        ("output", f"label (int64) and probabilities (float32) of {len(certificate.classes)} classes"),
        ("network", ", ".join(parts)),
        ("run", f"{run.name}, {run.id}"),
        ("experiment", experiment.digest),
        ("dataset", outcome.dataset.digest),
    ]


def _input(certificate: Certificate) -> str:
    inputs = certificate.inputs
    if code_snippets.takes_images(certificate):
        return f"{inputs[0].name}: {inputs[0].description}"
    kinds = " and ".join(sorted({one.dtype for one in inputs}))
    return f"{len(inputs)} column{'s' * (len(inputs) > 1)} of {kinds}, raw: the file scales and encodes them itself"


def _range(one: Input) -> str:
    if one.lowest is not None and one.highest is not None:
        if one.kind == "date":
            return f"{date_parts.in_words(one.lowest)} to {date_parts.in_words(one.highest)}"
        if one.dtype == "float64":
            return f"{in_words(one.lowest)} to {in_words(one.highest)}"
        return f"{one.lowest:.6g} to {one.highest:.6g}"
    more = f" and {len(one.values) - VALUES:,} more" if len(one.values) > VALUES else ""
    return ", ".join(one.values[:VALUES]) + more


def _data(dataset: Dataset) -> dict[str, Any]:
    splits = [split for split in SPLITS if dataset.rows[split]]
    counts = {split: np.bincount(open_split(dataset, split).y, minlength=len(dataset.classes)) for split in splits}
    rows = [
        (name, *(f"{counts[split][index]:,} ({counts[split][index] / dataset.rows[split]:.1%})" for split in splits))
        for index, name in enumerate(dataset.classes)
    ]
    rows.append(("all", *(f"{dataset.rows[split]:,}" for split in splits)))
    about = {"name": dataset.name, "digest": dataset.digest[:SHOWN], "unlabelled": unlabelled(dataset)}
    return {"dataset": about, "splits": splits, "class_counts": rows}


def _metrics(outcome: Outcome, predictions: ShippedPredictions) -> dict[str, Any]:
    recorded = outcome.evaluation.metrics
    by_metric = confidence_intervals(Predictions(predictions.y, predictions.probabilities, predictions.label))
    even = math.log(len(predictions.certificate.classes))
    accuracy = by_metric["accuracy"]
    return {
        "accuracy": percent(float(predictions.correct.mean())),
        "accuracy_interval": _interval_text(accuracy, percent),
        "metrics": [
            (
                metric.name,
                number(recorded[f"test/{metric.name}"]),
                _interval_text(by_metric.get(metric.name), number),
                f"{metric.meaning.format(even=even)}; {'higher' if metric.higher_is_better else 'lower'} is better",
            )
            for metric in METRICS
            if f"test/{metric.name}" in recorded
        ],
        "too_large_to_resample": predictions.probabilities.size > intervals.LARGEST,
        "resampled_metrics": [metric.name for metric in METRICS if isinstance(metric.interval, OfResamples)],
    }


def _charts(outcome: Outcome) -> Iterator[tuple[str, str]]:
    fit = outcome.fit
    recorded = history.curves(fit.history)
    best = fit.best_epoch if fit.best_epoch < fit.epochs else None
    for metric in ("loss", "accuracy"):
        lines = {LABELS[split]: recorded[f"{split}/{metric}"] for split in LABELS if f"{split}/{metric}" in recorded}
        yield metric.capitalize(), charts.curves(lines, best)


def _classes(confusion: NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, Any]:
    mistakes = confusion * (1 - np.eye(len(classes), dtype=np.int64))
    most = np.argsort(-mistakes, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [(int(place // len(classes)), int(place % len(classes))) for place in most]
    return {
        "class_metrics": list(_class_metrics(classes, class_scores(confusion))),
        "confusion": confusion.tolist(),
        "largest_mistake": int(mistakes.max()),
        "frequent_confusions": [
            (classes[true], classes[predicted], f"{mistakes[true, predicted]:,}")
            for true, predicted in pairs
            if mistakes[true, predicted]
        ],
    }


def _class_metrics(classes: tuple[str, ...], scores: ClassScores) -> Iterator[tuple[str, ...]]:
    """Yield name, rows, precision, recall and F1 of each class, with the exact intervals of the shares."""
    for index, name in enumerate(classes):
        correct, predicted, rows = int(scores.correct[index]), int(scores.predicted[index]), int(scores.rows[index])
        precision = _share_texts(scores.precision[index], correct, predicted)
        recall = _share_texts(scores.recall[index], correct, rows)
        yield (name, f"{rows:,}", *precision, *recall, number(scores.f1[index]))


def _share_texts(share: float, correct: int, rows: int) -> tuple[str, str]:
    """Return a share of `rows` and its interval as text; without rows there is no share."""
    return (number(share), _interval_text(intervals.exact(correct, rows), number)) if rows else (NONE, "")


def _mistakes(predictions: ShippedPredictions) -> dict[str, Any]:
    rows, inputs = predictions.mistakes, predictions.certificate.inputs
    describe = _wrong_image if code_snippets.takes_images(predictions.certificate) else _wrong_row
    return {
        "wrong": f"{len(rows):,}",
        "wrong_count": len(rows),
        "mistakes": [describe(predictions, row) for row in rows[:MISTAKES]],
        "mistake_columns": [one.name for one in inputs[:COLUMNS]],
        "hidden_columns": len(inputs[COLUMNS:]),
    }


def _wrong_image(predictions: ShippedPredictions, row: int) -> dict[str, str]:
    one = predictions.certificate.inputs[0]
    pixels, highest = predictions.feeds[one.name][row], one.highest or 255
    if highest <= 127:  # brighten images whose values are far from white
        pixels = np.clip(pixels * (255 / max(highest, 1)), 0, 255)
    predicted, confidence, true = _verdict(predictions, row)
    return {"row": str(row + 1), "png": png(pixels), "predicted": predicted, "confidence": confidence, "true": true}


def _wrong_row(predictions: ShippedPredictions, row: int) -> tuple[str, ...]:
    cells = (predictions.feeds[one.name][row, 0] for one in predictions.certificate.inputs[:COLUMNS])
    return (str(row + 1), *_verdict(predictions, row), *map(_cell, cells))


def _verdict(predictions: ShippedPredictions, row: int) -> tuple[str, str, str]:
    """Return the predicted class, the confidence and the true class of a row."""
    classes, confidence = predictions.certificate.classes, float(predictions.confidence[row])
    return classes[predictions.label[row]], percent(confidence), classes[predictions.y[row]]


def _cell(value: Any) -> str:  # noqa: ANN401 - a cell is a number or text
    if value is None or value == "" or (isinstance(value, np.floating) and np.isnan(value)):
        return "missing"
    if not isinstance(value, np.floating):
        return str(value)
    return in_words(float(value)) if isinstance(value, np.float64) else f"{value:.6g}"


def _use(outcome: Outcome, certificate: Certificate) -> dict[str, Any]:
    file, version, golden = outcome.artifact.path.name, outcome.model_version, certificate.golden
    one = certificate.inputs[0]
    if code_snippets.takes_images(certificate):
        picture = png(golden.inputs[one.name][EXAMPLE])
        example = {"name": code_snippets.picture_name(file), "png": picture, "format": code_snippets.row_format(one)}
    else:
        example = {"name": "row.csv", "text": code_snippets.table(certificate, EXAMPLE)}
    commands = {"file": file, "model": version.name, "version": version.version, "sha256": outcome.artifact.sha256}
    return {
        "answer": certificate.classes[golden.label[EXAMPLE]],
        "answer_probability": percent(max(golden.probabilities[EXAMPLE])),
        "example": example,
        "python": code_snippets.python(certificate, file, EXAMPLE),
        "javascript": code_snippets.javascript(certificate, file, EXAMPLE),
        "commands": templating.render("commands.sh.jinja", example=example["name"], **commands),
    }


def png(pixels: NDArray[Any] | list[Any]) -> str:
    """Return a PNG file of `(H, W)` grey or `(H, W, 3)` colour pixels, in base64."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)).save(file, format="png")
    return base64.b64encode(file.getvalue()).decode()


def _interval_text(interval: Interval | None, show: Callable[[float], str]) -> str:
    return f"{show(interval.low)} to {show(interval.high)}" if interval else ""
