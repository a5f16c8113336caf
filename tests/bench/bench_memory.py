"""Measure the memory of training: two epochs of MNIST, and a dataset that is larger than the memory allowed.

Each fit has its own process and a prepared dataset. The memory of imported libraries does not count. Targets: the
resident peak for MNIST, memory-mapped files included, stays under 400 MB. Training on 1.5 GB of columns succeeds if at
most 1 GB may be allocated, with less than 200 MB of anonymous memory. The columns are written to the temporary folder
(`TMPDIR`). A tiny fit shows how much of each figure belongs to libraries that are imported only when training starts.
The last line is JSON.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.config.data import Blobs
from hallmark.tasks.ml.config.experiment import Experiment, Training
from hallmark.tasks.ml.config.models import Linear
from tests.bench import rows
from tests.conftest import ROOT

MB = 1e6
TARGET = 400 * MB
LIMIT = 1000 * MB
BOUND = 200 * MB
"""Maximum of anonymous memory: what a training allocates must not grow with its rows."""
ROWS, FEATURES = 1_500_000, 256
LEAST = (1024, 4)


def fit_in_process(experiment: Experiment, dataset: Dataset, limit: float = 0) -> dict[str, Any]:
    """Fit in a fresh process that may allocate at most `limit` bytes, and return its figures or its error."""
    job = [experiment.model_dump_json(), TypeAdapter(Dataset).dump_json(dataset).decode(), str(int(limit))]
    command = [sys.executable, "-m", "tests.bench.fit_alone", *job]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        return {"error": lines[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def columns() -> Experiment:
    """Return the experiment for the generated columns. Its kind of data only selects columns and their scaling."""
    return Experiment(
        name="larger_than_memory",
        data=Blobs(kind="blobs"),
        model=Linear(kind="linear"),
        training=Training(epochs=1, batch_size=1024, optimizer="sgd", lr=0.1, device="cpu"),
    )


def show(name: str, found: dict[str, Any]) -> None:
    if "error" in found:
        print(f"{name:<22}{found['error']}", flush=True)
        return
    figures = "".join(f"{found[key] / MB:14.0f}" for key in ("libraries", "beyond", "anonymous_beyond"))
    print(f"{name:<22}{figures}{found['seconds']:9.1f}{found['accuracy']:10.3f}", flush=True)


def main() -> None:
    if sys.platform != "linux":
        print("needs Linux, whose kernel reports the memory of a process")
        print(json.dumps({"benchmark": "memory of training", "skipped": "not Linux"}))
        return
    experiment = rows.preset("mnist", epochs=2)
    dataset = rows.mnist(experiment).dataset
    print("MB, beyond the libraries' own\n" + " " * 25 + "libraries      resident     anonymous  seconds  accuracy")
    mnist = fit_in_process(experiment, dataset)
    show("mnist, 2 epochs", mnist)
    with tempfile.TemporaryDirectory() as folder:
        least = fit_in_process(columns(), rows.generate(Path(folder) / "least", *LEAST))
        show("{} rows of {}".format(*LEAST), least)
        large = rows.generate(Path(folder) / "large", ROWS, FEATURES)
        size = sum(file.stat().st_size for file in large.folder.iterdir())
        bounded = fit_in_process(columns(), large, LIMIT)
    show(f"{size / MB:.0f} MB, limit {LIMIT / MB:.0f}", bounded)
    result = {
        "benchmark": "memory of training",
        "mnist": mnist,
        "target_bytes": TARGET,
        "least": least,
        "columns": bounded | {"dataset_bytes": size, "limit_bytes": LIMIT},
        "bound_bytes": BOUND,
        "reached": mnist.get("beyond", TARGET) < TARGET and bounded.get("anonymous_beyond", BOUND) < BOUND,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
