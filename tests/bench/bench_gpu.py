"""Time an epoch on a CUDA device and on the CPU of the same machine: softmax regression, an MLP and a CNN on MNIST.

There is no target, because the smallest models cannot occupy a GPU. The archives come from HALLMARK_MIRROR. If it is
not set, as many images of noise with the same shape are used, which cost the same. The time runs from the end of one
epoch to the end of the next, when all results have been copied from the device. There is no validation split, so only
training counts. Without a CUDA device, nothing is measured. Neither Prefect nor MLflow is imported. The last line is
JSON. `python -m tests.bench.bench_gpu [ROUNDS]`.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hallmark.flows.experiments import presets
from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.config.data import Data
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.config.models import MLP
from hallmark.tasks.ml.data import dataset_store, sources
from hallmark.tasks.ml.data.source_rows import SourceRows
from hallmark.tasks.ml.training import trainer

ROUNDS = 3
EPOCHS = 4
"""Epochs of a fit. The first does not count, because it also loads the device's code."""
DEVICES = ("cuda", "cpu")


def experiments() -> dict[str, Experiment]:
    """Return the experiments: two presets, and an MLP with batches of 512."""
    softmax, cnn = (_without_validation(presets.get(name)) for name in ("mnist", "mnist_cnn"))
    wide = softmax.model_copy(update={"model": MLP(kind="mlp", hidden=(512, 512))})
    return {"softmax": softmax, "mlp": _with(wide, batch_size=512), "cnn": cnn}


def prepare(source: Data, home: Path) -> tuple[Dataset, str]:
    """Prepare MNIST, or noise of its shape, and return the dataset and a description."""
    if mirror := os.environ.get("HALLMARK_MIRROR"):
        return dataset_store.prepare(sources.read(source, home, mirror), source, home), "MNIST"
    random = np.random.default_rng(0)
    x, y = random.integers(256, size=(70_000, 28, 28), dtype=np.uint8), random.integers(10, size=70_000)
    noise = SourceRows(x, y, columns=(), classes=tuple("0123456789"), largest=255.0, test_rows=10_000)
    return dataset_store.prepare(noise, source, home), "noise of MNIST's shape: HALLMARK_MIRROR is not set"


def epoch_seconds(experiment: Experiment, dataset: Dataset, device: str, folder: Path) -> float:
    """Return the median time between the ends of two epochs."""
    part = _with(experiment, device=device, epochs=EPOCHS)
    ends: list[float] = []

    def log(_step: int, metrics: dict[str, float], _clock: int) -> None:
        if "train/loss" in metrics:
            ends.append(time.perf_counter())

    trainer.fit(dataset, part.data, part.model, part.training, folder, log)
    return statistics.median(after - before for before, after in pairwise(ends))


def _without_validation(experiment: Experiment) -> Experiment:
    split = experiment.data.split.model_copy(update={"validation": 0.0})
    return experiment.model_copy(update={"data": experiment.data.model_copy(update={"split": split})})


def _with(experiment: Experiment, **changes: Any) -> Experiment:  # noqa: ANN401 - any field of training
    return experiment.model_copy(update={"training": experiment.training.model_copy(update=changes)})


def main() -> None:
    if not torch.cuda.is_available():
        print("torch finds no CUDA device here: nothing is measured")
        print(json.dumps({"benchmark": "an epoch on cuda and on the cpu", "skipped": "no CUDA device"}))
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    times: dict[str, dict[str, list[float]]] = {name: {device: [] for device in DEVICES} for name in experiments()}
    with tempfile.TemporaryDirectory() as name:
        dataset, what = prepare(experiments()["softmax"].data, Path(name))
        print(f"{torch.cuda.get_device_name()}, {what}\nseconds an epoch\nround  model          cuda       cpu   ratio")
        for number in range(1, rounds + 1):
            for model, experiment in experiments().items():
                taken = {device: epoch_seconds(experiment, dataset, device, Path(name)) for device in DEVICES}
                for device, seconds in taken.items():
                    times[model][device].append(seconds)
                ratio = taken["cpu"] / taken["cuda"]
                print(f"{number:5}  {model:<9}{taken['cuda']:10.4f}{taken['cpu']:10.4f}{ratio:8.2f}", flush=True)
    result = {
        "benchmark": "an epoch on cuda and on the cpu",
        "device": torch.cuda.get_device_name(),
        "rows": what,
        "rounds": rounds,
        "seconds": {
            model: {device: round(statistics.median(seconds), 4) for device, seconds in by.items()}
            for model, by in times.items()
        },
        "cpu_over_cuda": {
            model: round(statistics.median(map(float.__truediv__, by["cpu"], by["cuda"])), 2)
            for model, by in times.items()
        },
        "target": None,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
