"""Measure time and memory to prepare a CSV of a million rows and thirty columns."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from pyarrow import csv

ROWS, NUMBERS, BOOLEANS, TEXTS = 1_000_000, 19, 2, 8
"""Rows, and columns of each type. The target is an additional column."""
SECONDS, MEMORY = 30, 3
"""Maximum time in seconds, and maximum memory in units of the table's size in memory."""
KIB = 1024 if sys.platform == "linux" else 1


def write(path: Path) -> int:
    """Write the table and return its size in memory, in bytes, as counted by Arrow."""
    rng = np.random.default_rng(0)
    columns: dict[str, pa.Array] = {}
    for index in range(NUMBERS):
        values = rng.normal(index, 1 + index, ROWS).round(4)
        columns[f"number{index}"] = pa.array(values, mask=rng.random(ROWS) < 0.02)
    for index in range(BOOLEANS):
        columns[f"boolean{index}"] = pa.array(rng.random(ROWS) < 0.5, mask=rng.random(ROWS) < 0.02)
    for index in range(TEXTS):
        words = np.array([f"category{word}" for word in range(5 * 2**index)])
        columns[f"text{index}"] = pa.array(rng.choice(words, ROWS), mask=rng.random(ROWS) < 0.02)
    columns["target"] = pa.array(np.array(["no", "yes"])[(rng.random(ROWS) < 0.3).astype(int)])
    table = pa.table(columns)
    csv.write_csv(table, path)
    return int(table.nbytes)


def prepare(path: str, home: str) -> None:
    """Prepare the table in this process, and print seconds and bytes."""
    # Import libraries that would be imported later, so that their memory does not count.
    import onnx  # noqa: F401

    from hallmark.tasks.ml.config.data import Table
    from hallmark.tasks.ml.data import dataset_store, sources

    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    source = Table(kind="table", path=path, target="target")
    dataset = dataset_store.prepare(sources.read(source, Path(home)), source, Path(home))
    took = time.perf_counter() - started
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * KIB
    sys.stdout.write(json.dumps({"seconds": took, "bytes": more, "features": dataset.shape[0]}) + "\n")


def main() -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        size = write(path)
        command = [sys.executable, "-m", "tests.bench.bench_table", str(path), folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
    result = {
        "reached": found["seconds"] < SECONDS and found["bytes"] < MEMORY * size,
        "rows": ROWS,
        "columns": NUMBERS + BOOLEANS + TEXTS + 1,
        "features": found["features"],
        "prepare_seconds": round(found["seconds"], 1),
        "table_mb": round(size / 1e6),
        "memory_over_table": round(found["bytes"] / size, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    prepare(*sys.argv[1:]) if sys.argv[1:] else main()
