"""Data of the benchmarks: MNIST as `hallmark train mnist` prepares it, and generated columns of any size."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hallmark.flows.experiments import presets
from hallmark.tasks.common.digests import digest_of
from hallmark.tasks.common.records import SPLITS, Dataset, Fit
from hallmark.tasks.ml.artifact import runtimes
from hallmark.tasks.ml.artifact.runtimes import Feeds
from hallmark.tasks.ml.config.experiment import Experiment, Training
from hallmark.tasks.ml.data import dataset_store, sources, splits
from hallmark.tasks.ml.data.source_rows import RawRows
from hallmark.tasks.ml.models import class_probabilities, networks
from hallmark.tasks.ml.training.history import curves
from hallmark.tasks.runtime import settings

NUMBERS_AT_ONCE = 2**24
"""Number of float32 that are generated together: 64 MB."""


@dataclass(frozen=True)
class Mnist:
    dataset: Dataset
    downloads: Path
    """The folder that torchvision calls `root`."""
    train: NDArray[np.int64]
    """Indices of those of torchvision's 60,000 training images that are in Hallmark's training split."""


def preset(name: str, **training: Any) -> Experiment:  # noqa: ANN401 - any field of it
    """Return a preset on the CPU, with changed training options."""
    experiment = presets.get(name)
    changed = Training.model_validate(dict(experiment.training) | {"device": "cpu"} | training)
    return experiment.model_copy(update={"training": changed})


def mnist(experiment: Experiment) -> Mnist:
    """Read and split MNIST, from the home or the mirror that the environment names."""
    machine = settings.read()
    table = sources.read(experiment.data, machine.home, machine.mirror)
    train = splits.divide(table, experiment.data.split)["train"]
    return Mnist(dataset_store.prepare(table, experiment.data, machine.home), machine.home / "downloads", train)


def in_memory(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Return the training images as `(N, pixels) float32` in 0..1, and their classes."""
    rows = dataset_store.open_split(dataset, "train")
    return torch.from_numpy(rows.x / np.float32(dataset.largest)).flatten(1), torch.tensor(rows.y)


def generate(folder: Path, rows: int, features: int, classes: int = 10) -> Dataset:
    """Write columns of normal numbers, labelled by the largest of one linear score per class.

    They are written part by part into memory-mapped files, so that a dataset may be larger than memory, and without the
    digests of the rows, which training does not read. Validation and test have 1,000 rows each.
    """
    random = np.random.default_rng(0)
    scores = random.standard_normal((features, classes), dtype=np.float32)
    counts = dict.fromkeys(SPLITS, 1000) | {"train": rows}
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        x, y = (
            np.lib.format.open_memmap(folder / f"{split}.{part}.npy", mode="w+", dtype=dtype, shape=shape)
            for part, dtype, shape in (("x", np.float32, (count, features)), ("y", np.int64, (count,)))
        )
        step = max(1, NUMBERS_AT_ONCE // features)
        for start in range(0, count, step):
            block = random.standard_normal((min(step, count - start), features), dtype=np.float32)
            x[start : start + len(block)], y[start : start + len(block)] = block, (block @ scores).argmax(axis=1)
    return Dataset(
        name="generated",
        folder=folder,
        digest=digest_of(["generated", rows, features, classes]),
        columns=tuple(f"x{index}" for index in range(1, features + 1)),
        shape=(features,),
        dtype="float32",
        largest=None,
        classes=tuple(map(str, range(classes))),
        rows=counts,
    )


def feeds(dataset: Dataset, x: RawRows, values: Mapping[str, Sequence[str]]) -> Feeds:
    """Return raw rows as the inputs of a dataset's graph.

    Args:
        dataset: gives the names of the inputs.
        x: raw rows.
        values: the texts of each text column, for which the rows hold an index.
    """
    return runtimes.feeds(dataset.columns, x, values, dataset.wide)


def epoch_seconds(fit: Fit) -> float:
    """Return the median seconds per epoch of a fit, which contain only training."""
    return statistics.median(curves(fit.history)["time/epoch_seconds"][1])


def accuracy(fit: Fit, dataset: Dataset, experiment: Experiment) -> float:
    """Return the share of test rows that the trained weights classify correctly."""
    classifier = networks.load(fit, dataset, experiment.model, experiment.training.loss)
    rows = dataset_store.open_split(dataset, "test")
    return float((class_probabilities.labels(networks.logits(classifier, rows.x)).numpy() == rows.y).mean())
