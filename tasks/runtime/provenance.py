"""Where a run comes from: code, libraries and machine."""

import getpass
import hashlib
import json
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

from hallmark.tasks.runtime.settings import ROOT

LIBRARIES = ("hallmark", "torch", "torchvision", "scikit-learn", "numpy", "onnx", "onnxruntime", "mlflow", "prefect")


@cache
def tags() -> dict[str, str]:
    """Git commit and whether dirty, digest of the code that computes, and versions, as MLflow tags."""
    return git(ROOT) | {
        "hallmark.code_digest": code_digest(ROOT / "tasks" / "ml"),
        "hallmark.versions": json.dumps(
            {"python": platform.python_version()} | {library: version(library) for library in LIBRARIES}
        ),
    }


def marks() -> dict[str, str]:
    """What a shipped file's bytes depend on: the code that computes, and versions."""
    return {"code": tags()["hallmark.code_digest"], **json.loads(tags()["hallmark.versions"])}


def git(folder: Path) -> dict[str, str]:
    """Commit and dirtiness of the checkout that holds `folder`; `none` where there is no git or no commit."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        dirty = str(bool(_git(folder, "status", "--porcelain"))).lower()
    except (OSError, subprocess.CalledProcessError):
        commit = dirty = "none"
    # MLflow's own name makes its UI show the commit in the column "Version".
    return {"hallmark.git_commit": commit, "hallmark.git_dirty": dirty, "mlflow.source.git.commit": commit}


def user() -> str:
    """Name of the user, or number where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # as in a container
        return str(os.getuid())


def code_digest(folder: Path) -> str:
    """SHA-256 over names and bytes of all Python files below `folder`."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)  # noqa: S607 - the PATH's git
    return done.stdout.strip()
