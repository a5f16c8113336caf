"""Create the certificate of a proven graph and write it into the shipped file."""

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import MISSING, Artifact, Column, Dataset, Evaluation, Proof
from hallmark.tasks.ml.artifact import certificate, runtimes
from hallmark.tasks.ml.artifact.certificate import Certificate, Golden, Input
from hallmark.tasks.ml.artifact.proof import float64_reference
from hallmark.tasks.ml.artifact.proof.probe_rows import chosen_test_rows
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data.dataset_store import category_values, columns_of, open_split, training_range
from hallmark.tasks.ml.data.tables.date_columns import date_parts
from hallmark.tasks.ml.data.tables.wide_numbers import in_words
from hallmark.tasks.ml.models.networks import Classifier

GOLDEN = 8
"""Number of golden vectors, of as many classes as possible."""
CLEAR = 1e-3
"""Minimum lead of a golden vector's class in probability, so that the label is the same on any machine."""


def stamp(
    bare: Artifact,
    classifier: Classifier,
    experiment: Experiment,
    dataset: Dataset,
    evaluation: Evaluation,
    proof: Proof,
    path: Path,
) -> Artifact:
    """Write the shipped file, check it, and remove the bare graph.

    The same arguments give the same bytes: nothing in the file depends on a run, a folder or the time.

    Args:
        bare: the proven graph.
        classifier: the torch model, on the CPU.
        experiment: its digest is written into the certificate.
        dataset: the dataset that the classifier was trained on.
        evaluation: metrics on the test split.
        proof: the proof of the graph.
        path: the file to write, whole or not at all.

    Raises:
        DamagedError: the written file fails a check; it is not kept.
    """
    metrics = {name: value for name, value in evaluation.metrics.items() if name.startswith("test/")}
    evidence = {name: value for name, value in asdict(proof).items() if name != "report"}
    content = Certificate(
        inputs=inputs(dataset),
        classes=dataset.classes,
        class_shares=class_shares(dataset),
        experiment=experiment.digest,
        dataset=dataset.digest,
        metrics=metrics,
        proof={"verdict": "passed"} | evidence,
        golden=golden(classifier, dataset, proof.tolerance),
    )
    sha256 = certificate.stamp(bare.path, content, path)
    bare.path.unlink()
    return Artifact(path=path, sha256=sha256)


def inputs(dataset: Dataset) -> tuple[Input, ...]:
    """Return the inputs of the file, with the ranges of the training rows."""
    lowest, highest = training_range(dataset)
    if dataset.is_table:
        described = zip(columns_of(dataset), lowest.tolist(), highest.tolist(), strict=True)
        return tuple(_input(column, low, high) for column, low, high in described)
    if dataset.columns:
        bounds = zip(dataset.columns, lowest.tolist(), highest.tolist(), strict=True)
        return tuple(Input(name, dataset.dtype, (1,), low, high, "one number a row") for name, low, high in bounds)
    low, high = float(lowest.min()), float(highest.max())
    return (
        Input(
            "image",
            dataset.dtype,
            dataset.shape,
            low,
            high,
            image(dataset),
            resized=dataset.resized,
            bits=dataset.bits,
            on_black=dataset.on_black,
        ),
    )


def image(dataset: Dataset) -> str:
    """Describe the image that the file accepts."""
    height, width, *colours = dataset.shape
    kind = "colour image (RGB)" if colours else "grey image"
    text = f"{kind} as a decoder gives it, {height} x {width} pixels, 0 to {dataset.largest:g}"
    background = "black" if dataset.on_black else "white"
    made = f"; a file of another size or kind is turned upright (EXIF), laid on {background} and resized"
    made += " (Pillow, bilinear)"
    deep = f"; of a file with more than eight bits, {dataset.bits} are in use, and the upper eight are kept"
    return text + made * dataset.resized + deep * bool(dataset.bits)


def _input(column: Column, lowest: float, highest: float) -> Input:
    """Return the input of the file for a column of a table."""
    if column.kind == "categorical":
        values = tuple(column.values[code] for code in column.kept if code != MISSING)
        text = "one text a row, empty where it is missing; one that training has not seen counts as unknown"
        return Input(
            column.name,
            "string",
            (1,),
            None,
            None,
            text,
            column.kind,
            values,
            missing_text=column.missing_text,
            joined=column.joined,
        )
    texts = {"numeric": "one number a row", "boolean": "1 for true and 0 for false, one a row"}
    text = texts.get(column.kind, "Unix seconds, one number a row") + " as float64" * column.wide
    description = f"{text}, NaN where it is missing"
    if column.kind == "date":
        read = " and ".join(filter(None, (column.date_form, "ISO 8601")))
        description += f"; the file computes {date_parts.rule(column.offset)}; in a table, {read} is read, too"
    elif column.wide:
        description += f"; {in_words(column.offset)} is subtracted in the file, which then computes in float32"
    is_mixed = column.kind == "numeric" and column.strange > 0
    return Input(
        column.name,
        "float64" if column.wide else "float32",
        (1,),
        lowest,
        highest,
        description,
        column.kind,
        mixed=is_mixed,
        missing_text=column.missing_text,
        decimal=column.decimal,
        unit=column.unit,
        date_form=column.date_form,
    )


def class_shares(dataset: Dataset) -> tuple[float, ...]:
    """Return the share of each class in the training rows."""
    y = open_split(dataset, "train").y
    shares: list[float] = (np.bincount(y, minlength=len(dataset.classes)) / len(y)).tolist()
    return tuple(shares)


def golden(classifier: Classifier, dataset: Dataset, tolerance: float) -> Golden:
    """Choose the test rows on which the model is least confident, but not undecided: they detect most changes.

    Args:
        classifier: the torch model; it predicts in float64.
        dataset: its test split is used.
        tolerance: the tolerance of the proof.
    """
    x = open_split(dataset, "test").x[chosen_test_rows(dataset)]
    predicted = float64_reference.predict(float64_reference.exact(classifier), dataset, x)
    chosen = _least_confident(predicted.probabilities)
    given = runtimes.feeds(dataset.columns, x[chosen], category_values(dataset), dataset.wide)
    return Golden(
        inputs={name: _in_json(value) for name, value in given.items()},
        label=predicted.label[chosen].tolist(),
        probabilities=predicted.probabilities[chosen].tolist(),
        tolerance=tolerance,
    )


def _in_json(value: NDArray[np.generic]) -> list[Any]:
    """Return an array as lists, with None for NaN, which JSON does not have."""
    if value.dtype.kind == "f" and np.isnan(value).any():
        return [[None if np.isnan(field) else float(field) for field in row] for row in value.reshape(len(value), -1)]
    lists: list[Any] = value.tolist()
    return lists


def _least_confident(probabilities: NDArray[np.floating]) -> list[int]:
    """Return rows of all classes in turn, the least confident of a class first, and undecided rows last."""
    best = np.sort(probabilities, axis=1)
    margin = best[:, -1] - best[:, -2]
    labels = probabilities.argmax(axis=1)
    taken: defaultdict[int, int] = defaultdict(int)
    ranks = []
    for row in np.lexsort((margin, margin <= CLEAR)):
        ranks.append((bool(margin[row] <= CLEAR), taken[labels[row]], int(labels[row]), int(row)))
        taken[labels[row]] += 1
    return [row for *_, row in sorted(ranks)[:GOLDEN]]
