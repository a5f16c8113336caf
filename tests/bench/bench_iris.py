"""Time iris from the command to the registered model: Hallmark and a straightforward script, alternately.

Whole processes are timed, each with its own store, home and Prefect database, after one uncounted run of both.
The target is a median ratio of at most 0.7. The last line is JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 5
TARGET = 0.7
HERE = Path(__file__).parent


def seconds(command: list[str], folder: Path) -> float:
    """Time one whole process, which must succeed."""
    environment = os.environ | {
        "PREFECT_HOME": str(folder / "prefect"),
        "HALLMARK_HOME": str(folder / "home"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "DO_NOT_TRACK": "true",
    }
    environment.pop("PREFECT_API_URL", None)
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    elapsed = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    return elapsed


def main() -> None:
    with tempfile.TemporaryDirectory() as root:
        folders = {name: Path(root) / name for name in ("hallmark", "plain")}
        for folder in folders.values():
            folder.mkdir()
        commands = {
            "hallmark": [str(Path(sys.executable).with_name("hallmark")), "train", "iris"],
            "plain": [sys.executable, str(HERE / "plain_iris.py"), str(folders["plain"])],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        print("run  hallmark   plain   ratio", flush=True)
        for run in range(RUNS + 1):
            taken = {name: seconds(command, folders[name]) for name, command in commands.items()}
            note = "" if run else "  (first use of both stores, not counted)"
            ratio = taken["hallmark"] / taken["plain"]
            print(f"{run:3}  {taken['hallmark']:7.1f} {taken['plain']:7.1f} {ratio:7.2f}{note}", flush=True)
            if run:
                for name, value in taken.items():
                    times[name].append(value)
    ratios = [ours / theirs for ours, theirs in zip(times["hallmark"], times["plain"], strict=True)]
    result = {
        "benchmark": "iris, command to registered model",
        "hallmark_seconds": round(statistics.median(times["hallmark"]), 2),
        "plain_seconds": round(statistics.median(times["plain"]), 2),
        "ratio": round(statistics.median(ratios), 3),
        "target": TARGET,
        "reached": statistics.median(ratios) <= TARGET,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
