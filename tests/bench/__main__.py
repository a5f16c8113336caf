"""Run all benchmarks, or those named, each in its own process: `python -m tests.bench [NAME ...]`.

Exit code 1 if one fails or misses its target, 2 if there is no benchmark of a given name.
"""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

NAMES = sorted(file.stem.removeprefix("bench_") for file in Path(__file__).parent.glob("bench_*.py"))


def is_reached(name: str) -> bool:
    """Run a benchmark, pass on what it prints, and read its last line."""
    print(f"== {name}", flush=True)
    command = [sys.executable, "-m", f"tests.bench.bench_{name}"]
    last = ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for last in process.stdout:
            print(last, end="", flush=True)
    # A benchmark that was skipped, or that has no target, counts as reached.
    return process.returncode == 0 and json.loads(last).get("reached", True)


def main() -> int:
    names = sys.argv[1:] or NAMES
    if unknown := [name for name in names if name not in NAMES]:
        print(f"there is no benchmark {', '.join(unknown)}: choose from {', '.join(NAMES)}", file=sys.stderr)
        return 2
    missed = [name for name in names if not is_reached(name)]
    print(f"== missed: {', '.join(missed)}" if missed else "== every target reached")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
