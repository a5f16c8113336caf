"""Where a result comes from: code, libraries and user."""

import getpass
import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

from hallmark.tasks.ml.artifact import file_format
from hallmark.tasks.runtime.settings import ROOT

LIBRARIES = ("hallmark", "torch", "torchvision", "scikit-learn", "numpy", "onnx", "onnxruntime", "mlflow", "prefect")

COMPUTING = (
    "common",
    "ml/config",
    "ml/data",
    "ml/models",
    "ml/training",
    "ml/artifact",
    "ml/evaluation/evaluator.py",  # the test metrics are stamped into the file
    "ml/evaluation/metrics.py",
    "ml/evaluation/calibration.py",
    "ml/evaluation/intervals.py",
    "ml/evaluation/weighted_metrics.py",
)
"""Files and folders of `tasks` that decide what training computes and what the shipped file contains.

Steps are not covered: they only pass arguments."""


@cache
def code_digest() -> str:
    """Return the SHA-256 over names and bytes of the Python files that decide weights and file; see `COMPUTING`."""
    return digest_of_code(ROOT / "tasks")


def digest_of_code(tasks: Path) -> str:
    """Return the code digest of a folder laid out as `tasks`."""
    roots = [tasks / part for part in COMPUTING]
    files = {path for root in roots for path in ([root] if root.suffix else root.rglob("*.py"))}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.relative_to(tasks).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python, of the libraries that a result depends on, and of the form of exported files."""
    libraries = {library: version(library) for library in LIBRARIES}
    return {"python": platform.python_version(), "export": str(file_format.VERSION)} | libraries


def code_and_versions() -> dict[str, str]:
    """Return what the bytes of a shipped file depend on besides experiment and data: code and versions."""
    return {"code": code_digest(), **versions()}


def git(folder: Path) -> tuple[str, str]:
    """Return the commit of the checkout that holds `folder`, and `true` or `false` for uncommitted changes.

    Both are `none` without git or without a commit.
    """
    try:
        return _git(folder, "rev-parse", "HEAD"), str(bool(_git(folder, "status", "--porcelain"))).lower()
    except (OSError, subprocess.CalledProcessError):
        return "none", "none"


def user() -> str:
    """Return the name of the user, or the number of a user without a name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)  # noqa: S607 - the PATH's git
    return done.stdout.strip()
