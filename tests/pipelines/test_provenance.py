import json
import subprocess
from pathlib import Path

import pytest
import torch

from hallmark.tasks.runtime import provenance


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_commit_and_dirtiness(tmp_path: Path) -> None:
    assert provenance.git(tmp_path)["hallmark.git_commit"] == "none"
    git(tmp_path, "init")
    assert provenance.git(tmp_path)["hallmark.git_dirty"] == "none"
    git(tmp_path, "commit", "--allow-empty", "-m", "first")
    clean = provenance.git(tmp_path)
    assert len(clean["hallmark.git_commit"]) == 40
    assert clean["hallmark.git_dirty"] == "false"
    (tmp_path / "new").write_text("")
    assert provenance.git(tmp_path) == clean | {"hallmark.git_dirty": "true"}


def test_a_machine_without_git_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(provenance.git(tmp_path).values()) == {"none"}


def test_the_code_digest_covers_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x")
    first = provenance.code_digest(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    assert provenance.code_digest(tmp_path) == first
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    second = provenance.code_digest(tmp_path)
    (tmp_path / "b.py").write_text("y")
    assert len({first, second, provenance.code_digest(tmp_path)}) == 3


def test_versions_are_recorded() -> None:
    versions = json.loads(provenance.tags()["hallmark.versions"])
    assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
    assert {"python", "mlflow", "prefect", "onnx", "onnxruntime", "scikit-learn", "numpy", "hallmark"} <= set(versions)


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(provenance.getpass, "getuser", nameless)
    assert provenance.user().isdigit()
