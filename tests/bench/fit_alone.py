"""Train once in this process and print the memory used. `bench_memory` starts it.

Linux: `VmRSS`, `VmHWM`, `VmData` and `RssAnon` are the kernel's own figures in `/proc/self/status`.
"""

import json
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import TypeAdapter

from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.config.experiment import Experiment
from tests.conftest import fit

STATUS = Path("/proc/self/status")
SAMPLING_SECONDS = 0.005


def memory() -> dict[str, int]:
    """Return the kernel's figures for this process, in bytes."""
    lines = (line.split() for line in STATUS.read_text().splitlines())
    return {line[0].removesuffix(":"): int(line[1]) * 1024 for line in lines if line[-1] == "kB"}


@contextmanager
def peak_anonymous_memory() -> Iterator[list[int]]:
    """Yield a list whose only item is the peak of anonymous memory in the block, in bytes. The kernel records none.

    It is sampled every five milliseconds, so a shorter peak may be missed. The limit on `VmData` has no such gaps.
    """
    peak, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLING_SECONDS):
            peak[0] = max(peak[0], memory()["RssAnon"])

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def main() -> None:
    experiment = Experiment.model_validate_json(sys.argv[1])
    dataset = TypeAdapter(Dataset).validate_json(sys.argv[2])
    limit = int(sys.argv[3])
    torch.ones(64, 64) @ torch.ones(64, 64)  # initialise the arithmetic libraries
    with tempfile.TemporaryDirectory() as folder, peak_anonymous_memory() as anonymous:
        before = memory()
        if limit:
            resource.setrlimit(resource.RLIMIT_DATA, (before["VmData"] + limit, resource.RLIM_INFINITY))
        started = time.perf_counter()
        trained = fit(experiment, dataset, Path(folder))
        seconds = time.perf_counter() - started
        after = memory()
    found = {
        "libraries": before["VmRSS"],
        "beyond": after["VmHWM"] - before["VmRSS"],
        "anonymous_beyond": anonymous[0] - before["RssAnon"],
        "seconds": seconds,
        "accuracy": trained.metrics["train/accuracy"],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
