"""One fit in a process of its own, which says what memory it took: `bench_memory` runs it.

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
SECONDS_BETWEEN_LOOKS = 0.005


def memory() -> dict[str, int]:
    """The kernel's figures of this process, in bytes."""
    lines = (line.split() for line in STATUS.read_text().splitlines())
    return {line[0].removesuffix(":"): int(line[1]) * 1024 for line in lines if line[-1] == "kB"}


@contextmanager
def watched() -> Iterator[list[int]]:
    """The most anonymous memory inside the block, in bytes: the one number of the list, of which the kernel keeps none.

    It looks every five milliseconds, so a shorter peak may pass unseen; the limit on `VmData` has no such gaps.
    """
    peak, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(SECONDS_BETWEEN_LOOKS):
            peak[0] = max(peak[0], memory()["RssAnon"])

    thread = threading.Thread(target=look)
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
    torch.ones(64, 64) @ torch.ones(64, 64)  # what the arithmetic libraries set up once
    with tempfile.TemporaryDirectory() as folder, watched() as anonymous:
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
