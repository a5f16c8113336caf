"""Run all cases, or those whose name contains a text: `python -m tests.cases [TEXT]`.

Prints case, expected and found. Exit code 1 if a case differs from what is expected, 2 if no case has such a name.
A known gap is a case that is not expected to hold yet; the runner says when it holds.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.cases import calls, manifest
from tests.cases.case import Case, Found, differences
from tests.support import databases, photographed, processes

LIMIT = 40 * 60
"""Seconds after which no further case is started."""
AT_ONCE = 2
"""Cases of hostile files that run at the same time."""
TRAINING = ("train ", "retrain ")


@contextmanager
def workplace(folder: Path) -> Iterator[None]:
    """Set up a home, an MLflow store and a Prefect server of our own."""
    os.environ |= {
        "HALLMARK_HOME": str(folder / "home"),
        "MLFLOW_TRACKING_URI": databases.mlflow(folder / "mlruns" / "mlflow.db"),
        "PREFECT_HOME": str(folder / "prefect"),
        "DO_NOT_TRACK": "true",
        "NO_COLOR": "1",
    }
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{(port := processes.free_port())}/api"
    databases.prefect(folder / "prefect" / "prefect.db")
    with processes.prefect_server(folder / "server", port):
        yield


def train_honest(folder: Path) -> Path:
    """Train a model of small colour images, and return its shipped file."""
    photographed.folder(folder / "photos", 20, manifest.SIDE, manifest.SIDE)
    options = "--name honest --training.epochs 3 --training.patience 0 --training.device cpu --json"
    found = calls.find(Case("honest", f"train ./photos {options}", ""), folder)
    if found.code:
        raise RuntimeError(found.text)
    return Path(json.loads(next(line for line in found.text.splitlines() if line.startswith("{")))["onnx"])


def results(cases: list[Case], folder: Path) -> Iterator[tuple[Case, Found]]:
    """Run the cases and yield what each of them did, in order."""
    in_process = [case for case in cases if not case.isolated]
    isolated = [case for case in cases if case.isolated]
    if in_process:
        manifest.write_tables(folder, *manifest.LARGE)
        yield from ((case, calls.find(case, folder)) for case in in_process)
    if isolated:
        honest = train_honest(folder)
        names = tuple(case.name.removeprefix("hostile ") for case in isolated if case.name.startswith("hostile "))
        manifest.write_hostile(folder, honest, names)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            yield from zip(isolated, pool.map(partial(calls.find_isolated, folder=folder), isolated), strict=True)


def report(case: Case, found: Found, seconds: float) -> str:
    """Print case, expected and found, and return the verdict."""
    wrong = differences(case, found)
    verdict = ("known gap" if wrong else "holds by now") if case.known else ("DIFFERS" if wrong else "holds")
    rows = {"expected": case.expected, "found": found.summary, "differs": "; ".join(wrong), "known": case.known}
    print(f"{verdict:<13}{case.name} ({seconds:.1f} s)")
    for label, text in rows.items():
        if text:
            print(f"{'':13}{label + ':':<10}{text}", flush=True)
    return verdict


def summarise(names: dict[str, list[str]], seconds: float) -> None:
    """Print the names of the cases that do not simply hold, and how many there are of each verdict."""
    for verdict in ("known gap", "holds by now", "DIFFERS"):
        for name in names.get(verdict, ()):
            print(f"{verdict:<13}{name}")
    counts = ", ".join(f"{len(those)} {verdict}" for verdict, those in names.items())
    print(f"{sum(map(len, names.values()))} cases in {seconds:.0f} s: {counts}")


def main() -> int:
    text = " ".join(sys.argv[1:])
    cases = [case for case in manifest.CASES if text in case.name]
    if not cases:
        print(f"there is no case whose name contains '{text}'", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")
    names: dict[str, list[str]] = {}
    started = before = time.monotonic()
    with TemporaryDirectory() as name, workplace(Path(name)):
        for case, found in results(cases, Path(name) / "inputs"):
            now = time.monotonic()
            names.setdefault(report(case, found, now - before), []).append(case.name)
            before = now
            if now - started > LIMIT:
                print(f"stopped after {LIMIT // 60} minutes", file=sys.stderr)
                return 1
    summarise(names, time.monotonic() - started)
    return 1 if "DIFFERS" in names else 0


if __name__ == "__main__":
    sys.exit(main())
