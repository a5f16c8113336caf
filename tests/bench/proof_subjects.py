"""Trained classifiers of the benchmark of the proof: five kinds of data, each with experiments drawn by number."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa

from hallmark.flows.experiments import options
from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.artifact import exporter
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data import dataset_store, sources
from hallmark.tasks.ml.models.networks import Classifier
from tests.bench import rows
from tests.conftest import fit, load
from tests.support import owned, photographed

KINDS = ("threshold", "iris", "digits", "table", "images")
OPSETS = (18, 19, 20, 21, 22, 23)
"""All opsets that an experiment may use."""
LOSSES = (
    *(("cross_entropy", "logits"), ("cross_entropy", "sigmoid"), ("cross_entropy", "softmax"), ("nll", "log_softmax")),
    *(("bce_with_logits", "logits"), ("bce", "sigmoid"), ("mse", "sigmoid"), ("mse", "softmax")),
)
HIDDEN = ("8", "50,50", "128", "16,16,16")
CONVOLUTIONS = (("8,16", "3", "same"), ("4", "2", "valid"), ("4,8", "2", "valid"), ("4", "5", "same"))
"""Channels, kernel and padding."""
FURTHER_COLUMNS = (0, 1, 2, 4, 16)
"""Numbers of columns of other magnitudes in a table."""
SIDES = ((16, 16), (12, 20), (9, 9))
"""Height and width of the images."""


@dataclass(frozen=True)
class Subject:
    """A trained experiment."""

    name: str
    experiment: Experiment
    dataset: Dataset
    classifier: Classifier
    accuracy: float


def train(kind: str, number: int, folder: Path) -> Subject:
    """Train an experiment of a kind on the CPU.

    Number 0 is an MLP with cross-entropy (a CNN for images, one unit for the threshold); others draw data, model,
    loss, scaling and opset from the number as seed.
    """
    with tempfile.TemporaryDirectory(dir=folder) as trained:
        experiment = _experiment(kind, number, Path(trained))
        table = sources.read(experiment.data, Path(trained))
        dataset = dataset_store.prepare(table, experiment.data, folder)
        experiment.model.refuse_shape(dataset.shape)
        fitted = fit(experiment, dataset, Path(trained))
        accuracy = rows.accuracy(fitted, dataset, experiment)
        classifier = load(fitted, dataset, experiment)
    return Subject(f"{kind} {number}", experiment, dataset, classifier, accuracy)


def export(subject: Subject, file: Path) -> Path:
    return exporter.export(subject.classifier, subject.dataset, subject.experiment.export, file).path


def rewritten(file: Path) -> Path:
    """Return the file that onnxruntime writes after optimising the graph.

    At the lowest level, because files of higher levels have operators of onnxruntime that ONNX does not define.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(file.with_name("rewritten.onnx"))
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return file.with_name("rewritten.onnx")


def _experiment(kind: str, number: int, folder: Path) -> Experiment:
    random = np.random.default_rng(number)
    source, tokens = _data(kind, number, random, folder)
    short = {"threshold": 20, "iris": 40, "digits": 8, "table": 10, "images": 4}
    tokens += [f"--training.epochs={short[kind]}", f"--training.seed={number}", "--training.device=cpu"]
    if number:
        tokens += [*_model(kind, random), *_loss(random), f"--export.opset={random.choice(OPSETS)}"]
        tokens += [f"--training.lr={random.choice([0.001, 0.01, 0.05])}", f"--data.scaling={_scaling(kind, random)}"]
    elif kind == "table":
        tokens += ["--model.kind=mlp", "--model.hidden=16"]
    elif kind == "images":
        tokens += ["--model.kind=cnn", "--model.channels=8,16", "--model.hidden=32"]
    return options.experiment(source, tokens)


def _data(kind: str, number: int, random: np.random.Generator, folder: Path) -> tuple[str, list[str]]:
    """Write the data of a table or of images; return the source of the experiment and its options."""
    if kind == "table":
        path, rows_of_table = folder / "table.parquet", 240 + 40 * (number % 4)
        owned.write(_table(number, rows_of_table, random), path)
        return str(path), ["--target", owned.TARGET]
    if kind == "images":
        height, width = SIDES[number % len(SIDES)]
        return str(photographed.folder(folder / "photos", 30, height, width)), []
    return kind, [f"--data.split.seed={number}"] if kind != "threshold" else []


def _table(number: int, count: int, random: np.random.Generator) -> pa.Table:
    """Return the mixed table; from number 1 on with further columns of other magnitudes."""
    table = owned.mixed(count, number)
    for place in range(FURTHER_COLUMNS[number % len(FURTHER_COLUMNS)]):
        values = random.normal(10.0 ** random.integers(-3, 6), 10.0 ** random.integers(-3, 4), count)
        table = table.append_column(f"x{place}", pa.array(values, mask=random.random(count) < 0.05))
    return table


def _model(kind: str, random: np.random.Generator) -> list[str]:
    if kind in ("digits", "images") and random.random() < 0.5:
        channels, kernel, padding = CONVOLUTIONS[random.integers(len(CONVOLUTIONS))]
        named = [f"--model.channels={channels}", f"--model.kernel={kernel}", f"--model.padding={padding}"]
        return ["--model.kind=cnn", *named, "--model.hidden=16"]
    if random.random() < 0.3:
        return ["--model.kind=linear"]
    return ["--model.kind=mlp", f"--model.hidden={random.choice(HIDDEN)}"]


def _loss(random: np.random.Generator) -> list[str]:
    loss, output = LOSSES[random.integers(len(LOSSES))]
    return [f"--training.loss.kind={loss}", f"--model.output={output}"]


def _scaling(kind: str, random: np.random.Generator) -> str:
    pixels = ("range",) if kind in ("digits", "images") else ()
    return str(random.choice(["standard", *pixels, "none"] if kind != "table" else ["standard"]))
