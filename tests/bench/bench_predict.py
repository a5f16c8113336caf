"""Measure how many rows per second `hallmark predict` reads from Parquet: the preset iris, 2,000,000 generated rows.

The whole command is timed, from the start of Python to its end, for every output format in every round. The median
counts. The same is timed without the start of the command, which is the cost of additional rows. The last line is
JSON. `python -m tests.bench.bench_predict`
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
from pyarrow import parquet

from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.artifact import certificate, exporter
from hallmark.tasks.ml.artifact.certificate import Certificate, Golden, Input
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.predict import predictor
from tests.bench import rows
from tests.conftest import fit, load, prepare
from tests.support import certified

ROUNDS = 3
ROWS = 2_000_000
TARGET = 500_000
"""Rows per second, for the whole command."""
FORMS: tuple[predictor.Format, ...] = ("parquet", "csv", "jsonl")
HALLMARK = str(Path(sys.executable).with_name("hallmark"))


def ship(folder: Path) -> Path:
    """Train the preset iris and stamp its file."""
    experiment: Experiment = rows.preset("iris")
    dataset = prepare(experiment.data, folder)
    classifier = load(fit(experiment, dataset, folder), dataset, experiment)
    bare = exporter.export(classifier, dataset, experiment.export, folder / "bare.onnx").path
    certificate.stamp(bare, describe(dataset, bare), folder / "iris.onnx")
    return folder / "iris.onnx"


def describe(dataset: Dataset, bare: Path) -> Certificate:
    feeds = {name: np.ones((1, 1), np.float32) for name in dataset.columns}
    label, probabilities = onnxruntime.InferenceSession(bare).run(None, feeds)
    golden = Golden({k: v.tolist() for k, v in feeds.items()}, label.tolist(), probabilities.tolist(), 1e-6)
    inputs = tuple(Input(name, "float32", (1,), 0.0, 8.0, "centimetres") for name in dataset.columns)
    metrics, shares = {"test/accuracy": 1.0}, (1 / 3,) * 3
    return Certificate(inputs, dataset.classes, shares, "0" * 64, dataset.digest, metrics, certified.PROOF, golden)


def generate(path: Path, inputs: tuple[Input, ...]) -> None:
    """Write rows like those of the flowers: centimetres with one decimal."""
    x = np.random.default_rng(0).uniform(0, 8, (ROWS, len(inputs))).round(1).astype(np.float32)
    parquet.write_table(pa.table({one.name: x[:, index] for index, one in enumerate(inputs)}), path)


def command_seconds(model: Path, source: Path, form: str) -> float:
    output = source.with_name(f"said.{form}")
    started = time.perf_counter()
    command = [HALLMARK, "predict", str(model), str(source), "--output", str(output), "--overwrite"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def scoring_seconds(model: Path, source: Path, form: predictor.Format) -> float:
    started = time.perf_counter()
    predictor.score(model, str(source), source.with_name(f"said.{form}"), form, lambda: nullcontext(lambda *_: None))
    return time.perf_counter() - started


def main() -> None:
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model, source = ship(Path(folder)), Path(folder) / "rows.parquet"
        generate(source, certificate.read(model)[0].inputs)
        for _ in range(ROUNDS):
            for form in FORMS:
                taken.setdefault(form, []).append(command_seconds(model, source, form))
                taken.setdefault(f"{form}, started", []).append(scoring_seconds(model, source, form))
                print(f"{form:10}{taken[form][-1]:6.2f} s, started {taken[f'{form}, started'][-1]:6.2f} s", flush=True)
    speeds = {name: round(ROWS / statistics.median(seconds)) for name, seconds in taken.items()}
    for name, speed in speeds.items():
        print(f"{name:18}{speed:12,} rows a second", flush=True)
    result = {
        "benchmark": "hallmark predict, iris from Parquet",
        "rows": ROWS,
        "rows_per_second": speeds,
        "target": TARGET,
        "reached": all(speeds[form] >= TARGET for form in FORMS),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
