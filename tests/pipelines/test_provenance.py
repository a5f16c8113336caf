import shutil
import subprocess
from pathlib import Path

import grimp
import pytest
import torch

from hallmark.tasks.runtime import provenance
from tests.conftest import ROOT


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_commit_and_dirty_state_are_recorded(tmp_path: Path) -> None:
    assert provenance.git(tmp_path) == ("none", "none")
    git(tmp_path, "init")
    assert provenance.git(tmp_path) == ("none", "none")
    git(tmp_path, "commit", "--allow-empty", "-m", "first")
    commit, dirty = provenance.git(tmp_path)
    assert len(commit) == 40
    assert dirty == "false"
    (tmp_path / "new").write_text("")
    assert provenance.git(tmp_path) == (commit, "true")


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git(tmp_path) == ("none", "none")


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Copy `tasks`."""
    return shutil.copytree(ROOT / "tasks", tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__"))


def change(file: Path) -> None:
    assert file.exists()
    with file.open("a") as opened:
        opened.write("\n")


def test_the_code_digest_of_a_copy_is_that_of_the_project(tasks: Path, tmp_path: Path) -> None:
    assert provenance.digest_of_code(tasks) == provenance.code_digest()
    (tmp_path / "link").symlink_to(tasks)
    assert provenance.digest_of_code(tmp_path / "link") == provenance.code_digest()


@pytest.mark.parametrize(
    "file",
    [
        "common/records.py",
        "ml/config/losses.py",
        "ml/data/splits.py",
        "ml/data/tables/encoding.py",
        "ml/models/networks.py",
        "ml/training/optim/update_step.py",
        "ml/artifact/proof/verifier.py",
        "ml/evaluation/metrics.py",
    ],
)
def test_code_that_computes_is_in_the_code_digest(tasks: Path, file: str) -> None:
    change(tasks / file)
    assert provenance.digest_of_code(tasks) != provenance.code_digest()


@pytest.mark.parametrize(
    "file",
    [
        "card.py",
        "runtime/progress.py",
        "tracking/client.py",
        "ml/evaluation/findings/after_training.py",
        "ml/predict/predictor.py",
        "ml/reports/templates/live_page.html.jinja",
        "ml/reports/model_card.py",
        "ml/reports/plots/style.py",
    ],
)
def test_templates_reports_and_prediction_are_not_in_the_code_digest(tasks: Path, file: str) -> None:
    change(tasks / file)
    assert provenance.digest_of_code(tasks) == provenance.code_digest()


def test_a_renamed_file_changes_the_code_digest(tasks: Path) -> None:
    (tasks / "ml/models/networks.py").rename(tasks / "ml/models/nets.py")
    assert provenance.digest_of_code(tasks) != provenance.code_digest()


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("hallmark")


def is_covered(module: str) -> bool:
    names = [f"hallmark.tasks.{part.removesuffix('.py').replace('/', '.')}" for part in provenance.COMPUTING]
    return any(module == name or module.startswith(f"{name}.") for name in names)


def machine_learning(graph: grimp.ImportGraph, module: str) -> set[str]:
    """Return the modules of `tasks.ml` that a module imports."""
    return {name for name in graph.find_modules_directly_imported_by(module) if ".tasks.ml." in name}


def test_code_in_the_code_digest_imports_no_other_machine_learning_code(graph: grimp.ImportGraph) -> None:
    for module in filter(is_covered, graph.modules):
        imported = machine_learning(graph, module)
        assert all(is_covered(name) for name in imported), (module, imported)


@pytest.mark.parametrize("step", ["prepare", "fit", "fit_stack", "refit", "evaluate", "export", "verify", "stamp"])
def test_what_the_computing_steps_import_is_in_the_code_digest(graph: grimp.ImportGraph, step: str) -> None:
    imported = machine_learning(graph, f"hallmark.tasks.{step}")
    assert imported
    reports = {name for name in imported if name.startswith("hallmark.tasks.ml.reports.")}
    assert all(is_covered(name) for name in imported - reports), imported


def test_versions_are_recorded() -> None:
    versions = provenance.versions()
    assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
    assert {"python", "mlflow", "prefect", "onnx", "onnxruntime", "scikit-learn", "numpy", "hallmark"} <= set(versions)


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(provenance.getpass, "getuser", nameless)
    assert provenance.user().isdigit()
