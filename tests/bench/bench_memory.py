"""What memory training takes: two epochs of MNIST, and a dataset that is larger than the memory allowed.

Each fit has a process of its own and a prepared dataset; what importing the libraries takes is not counted. Ends in
one JSON line. Targets: MNIST's resident peak, mapped files included, stays under 400 MB; 1.5 GB of columns are trained
on where no more than 1 GB may be allocated, with less than 200 MB that are no file's. The columns are written to the
temporary folder (`TMPDIR`). A fit of next to nothing shows how much of each figure is libraries that are imported only
once training begins.
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
"""Of anonymous memory: what a training allocates must not grow with its rows."""
ROWS, FEATURES = 1_500_000, 256
LEAST = (1024, 4)


def alone(experiment: Experiment, dataset: Dataset, limit: float = 0) -> dict[str, Any]:
    """Fit in a fresh process, in which at most `limit` bytes may be allocated; what it found, or why it failed."""
    job = [experiment.model_dump_json(), TypeAdapter(Dataset).dump_json(dataset).decode(), str(int(limit))]
    command = [sys.executable, "-m", "tests.bench.fit_alone", *job]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        return {"error": lines[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def columns() -> Experiment:
    """What the generated columns are trained with; their kind says that they are columns, and how they are scaled."""
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
        print("needs Linux, whose kernel tells what memory a process takes")
        print(json.dumps({"benchmark": "memory of training", "skipped": "not Linux"}))
        return
    experiment = rows.preset("mnist", epochs=2)
    dataset = rows.mnist(experiment).dataset
    print("MB, beyond the libraries' own\n" + " " * 25 + "libraries      resident     anonymous  seconds  accuracy")
    mnist = alone(experiment, dataset)
    show("mnist, 2 epochs", mnist)
    with tempfile.TemporaryDirectory() as folder:
        least = alone(columns(), rows.generate(Path(folder) / "least", *LEAST))
        show("{} rows of {}".format(*LEAST), least)
        large = rows.generate(Path(folder) / "large", ROWS, FEATURES)
        size = sum(file.stat().st_size for file in large.folder.iterdir())
        bounded = alone(columns(), large, LIMIT)
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
