"""From a proven graph to the file that is shipped: what its certificate says, and the stamp."""

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
from hallmark.tasks.ml.artifact.proof.probe_rows import probes, training_range
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data.dataset_store import category_values, columns_of, open_split
from hallmark.tasks.ml.models.networks import Classifier

GOLDEN = 8
"""So many golden vectors, of as many classes as there are."""
CLEAR = 1e-3
"""A golden vector's label leads by so much at least, so that it is the same on any machine."""


def stamp(
    bare: Artifact,
    classifier: Classifier,
    experiment: Experiment,
    dataset: Dataset,
    evaluation: Evaluation,
    proof: Proof,
    path: Path,
) -> Artifact:
    """Write the shipped file, check it as its consumer would, and take the bare graph away.

    The same arguments give the same bytes: nothing in the file knows a run, a folder or a clock.

    Args:
        bare: the graph as it was proven.
        classifier: the torch model, on the CPU.
        experiment: whose digest the file bears.
        dataset: what it was trained on.
        evaluation: its metrics on the test split.
        proof: the evidence.
        path: where the file appears, whole or not at all.

    Raises:
        DamagedError: what was written does not hold, and is not kept.
    """
    metrics = {name: value for name, value in evaluation.metrics.items() if name.startswith("test/")}
    evidence = {name: value for name, value in asdict(proof).items() if name != "report"}
    said = Certificate(
        inputs=inputs(dataset),
        classes=dataset.classes,
        class_shares=class_shares(dataset),
        experiment=experiment.digest,
        dataset=dataset.digest,
        metrics=metrics,
        proof={"verdict": "passed"} | evidence,
        golden=golden(classifier, dataset, proof.tolerance),
    )
    sha256 = certificate.stamp(bare.path, said, path)
    bare.path.unlink()
    return Artifact(path=path, sha256=sha256)


def inputs(dataset: Dataset) -> tuple[Input, ...]:
    """What the file takes, with the range that training has seen."""
    lowest, highest = training_range(dataset)
    if dataset.is_table:
        described = zip(columns_of(dataset), lowest.tolist(), highest.tolist(), strict=True)
        return tuple(_input(column, low, high) for column, low, high in described)
    if dataset.columns:
        bounds = zip(dataset.columns, lowest.tolist(), highest.tolist(), strict=True)
        return tuple(Input(name, dataset.dtype, (1,), low, high, "one number a row") for name, low, high in bounds)
    low, high = float(lowest.min()), float(highest.max())
    return (Input("image", dataset.dtype, dataset.shape, low, high, image(dataset), resized=dataset.resized),)


def image(dataset: Dataset) -> str:
    """What an image must be, for whoever feeds one."""
    height, width, *colours = dataset.shape
    kind = "colour image (RGB)" if colours else "grey image"
    text = f"{kind} as a decoder gives it, {height} x {width} pixels, 0 to {dataset.largest:g}"
    made = "; a file of another size or kind is turned upright (EXIF), laid on white and resized (Pillow, bilinear)"
    return text + made * dataset.resized


def _input(column: Column, lowest: float, highest: float) -> Input:
    """What the file takes for a column of a table."""
    if column.kind == "categorical":
        values = tuple(column.values[code] for code in column.kept if code != MISSING)
        text = "one text a row, empty where it is missing; one that training has not seen counts as unknown"
        return Input(column.name, "string", (1,), None, None, text, column.kind, values)
    text = "one number a row" if column.kind == "numeric" else "1 for true and 0 for false, one a row"
    description = f"{text}, NaN where it is missing"
    is_mixed = column.kind == "numeric" and column.strange > 0
    return Input(column.name, "float32", (1,), lowest, highest, description, column.kind, mixed=is_mixed)


def class_shares(dataset: Dataset) -> tuple[float, ...]:
    """Of the training rows."""
    y = open_split(dataset, "train").y
    shares: list[float] = (np.bincount(y, minlength=len(dataset.classes)) / len(y)).tolist()
    return tuple(shares)


def golden(classifier: Classifier, dataset: Dataset, tolerance: float) -> Golden:
    """Choose test rows on which the model is least sure, though clearly of one class: those tell most changes.

    Args:
        classifier: the torch model, which is asked in float64.
        dataset: whose test split is used.
        tolerance: that of the proof.
    """
    rows = probes(dataset)
    x = rows.x[rows.chosen[rows.chosen < rows.test]]
    answer = float64_reference.ask(float64_reference.exact(classifier), dataset, x)
    chosen = _least_sure(answer.probabilities)
    given = runtimes.feeds(dataset.columns, x[chosen], category_values(dataset))
    return Golden(
        inputs={name: _in_json(value) for name, value in given.items()},
        label=answer.label[chosen].tolist(),
        probabilities=answer.probabilities[chosen].tolist(),
        tolerance=tolerance,
    )


def _in_json(value: NDArray[np.generic]) -> list[Any]:
    """An array as JSON has it, which knows no NaN: nothing stands for one."""
    if value.dtype == np.float32 and np.isnan(value).any():
        return [[None if np.isnan(field) else float(field) for field in row] for row in value.reshape(len(value), -1)]
    found: list[Any] = value.tolist()
    return found


def _least_sure(probabilities: NDArray[np.floating]) -> list[int]:
    """Rows of all classes in turn, each class's least sure ones first; unclear ones only where there is no other."""
    best = np.sort(probabilities, axis=1)
    margin = best[:, -1] - best[:, -2]
    labels = probabilities.argmax(axis=1)
    taken: defaultdict[int, int] = defaultdict(int)
    ranks = []
    for row in np.lexsort((margin, margin <= CLEAR)):
        ranks.append((bool(margin[row] <= CLEAR), taken[labels[row]], int(labels[row]), int(row)))
        taken[labels[row]] += 1
    return [row for *_, row in sorted(ranks)[:GOLDEN]]
