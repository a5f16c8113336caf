"""What the whole project keeps to: imports, lock file, Makefile."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable

import pytest

from tests.conftest import ROOT

HEAVY = ("torch", "prefect", "mlflow", "sklearn", "matplotlib", "pandas", "onnxruntime")


def test_imports_keep_their_contracts() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("hallmark.flows.__main__", HEAVY),
        ("hallmark.flows.experiments.options", HEAVY),
        ("hallmark.flows.cli.train", HEAVY),
        ("hallmark.flows.cli.presets", HEAVY),
        ("hallmark.flows.cli.runs", HEAVY),
        ("hallmark.flows.cli.compare", HEAVY),
        ("hallmark.flows.cli.card", HEAVY),
        ("hallmark.tasks.ml.evaluation.findings.after_training", HEAVY),
        ("hallmark.tasks.ml.training.trainer", ("prefect", "mlflow")),
        ("hallmark.tasks.ml.artifact.proof.verifier", ("prefect", "mlflow")),
        ("hallmark.tasks.ml.reports.run_comparison.differences", ("torch", "prefect", "mlflow")),
        ("hallmark.tasks.tracking.client", ("torch", "prefect")),
        ("hallmark.tasks.tracking.run_logger", ("torch", "prefect")),
    ],
)
def test_what_a_module_must_not_bring_along(
    module: str, forbidden: tuple[str, ...], python: Callable[..., str]
) -> None:
    code = f"import sys, {module}; print(' '.join(name for name in {forbidden!r} if name in sys.modules))"
    assert python(code).strip() == ""


def test_help_imports_no_command(python: Callable[..., str]) -> None:
    code = (
        "import sys\nfrom hallmark.flows.__main__ import run\nassert run(['--help']) == 0\n"
        "print(sorted(name for name in sys.modules if name.startswith('hallmark.flows.cli.')))"
    )
    assert python(code).splitlines()[-1] == "[]"


def test_the_lock_pins_every_dependency_with_hashes_and_names_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    pinned = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    assert {re.split(r"[<>=~! ]", requirement)[0] for requirement in wanted} <= pinned
    entries = re.split(r"\n(?=[a-z0-9])", lock)
    assert all("--hash=sha256:" in entry for entry in entries if not entry.startswith("#"))
    assert "://" not in lock
    assert re.search(r"^fastapi==0\.1(50|[0-4]\d)\.", lock, re.MULTILINE)


def test_make_alone_lists_every_target() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("run", "test", "lint", "bench", "ui", "lock", "clean"):
        assert re.search(rf"^  make {target} +\S", done.stdout, re.MULTILINE)
