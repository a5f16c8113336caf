"""Kill `hallmark train` with -9 at many random moments, and compare the results with those of an undisturbed command.

The kills come at random moments, some after the start and some after each of several steps, in random order. The
command is repeated until its run is finished, and the next run starts, until all kills are used. These must be equal:
weights, ONNX file, the file in the registry, steps and values of every metric except `time/`, one run, one logged
model, one version, and the artifacts. The last line is JSON. `python -m tests.bench.bench_kills [KILLS [SEED]]`.
"""

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import kills
from tests.support.kills import Chain

KILLS = 100


@contextmanager
def prefect_server(folder: Path) -> Iterator[None]:
    """Start one server for all commands, which would otherwise start one each."""
    os.environ |= {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "DO_NOT_TRACK": "true",
    }
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        os.environ["PREFECT_API_URL"] = str(PREFECT_API_URL.value())
        yield


def chain(folder: Path, count: int, seed: int) -> Chain:
    template = kills.create(folder / "template")
    results, seconds = kills.run_twice(template, folder)
    print(f"an undisturbed command takes {seconds:.1f} s; {count} kills follow", flush=True)
    return Chain(template, folder, results[1], seconds, count, random.Random(seed))  # noqa: S311 - not for secrets


def main() -> None:
    count, seed = (int(given) for given in (*sys.argv[1:], *(KILLS, 0)[len(sys.argv) - 1 :]))
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name, prefect_server(Path(name)):
        run = chain(Path(name), count, seed)
        run.run()
    for step, hit in run.kills_by_step.most_common():
        print(f"{hit:4} after {step}")
    for wrong in run.errors:
        print(wrong)
    found = {
        "benchmark": "kill -9 at random moments",
        "kills": sum(run.kills_by_step.values()),
        "seed": seed,
        "compared": run.finished,
        "equal": not run.errors,
        "killed_after": dict(run.kills_by_step.most_common()),
        "seconds": round(time.monotonic() - started, 1),
        "reached": not run.errors,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
