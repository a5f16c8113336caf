"""Empty MLflow and Prefect databases, migrated once per machine and then copied, because a migration takes seconds."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

_VERSIONS = "-".join(f"{name}-{version(name)}" for name in ("mlflow", "prefect", "sqlalchemy"))
_TEMPLATES = Path(tempfile.gettempdir()) / f"hallmark-tests-{os.getuid()}" / _VERSIONS
"""Folder of the migrated databases, shared by all workers and test runs with the same library versions."""


def mlflow(file: Path) -> str:
    """Copy an empty MLflow database to a file unless the file exists; return its URI."""
    return f"sqlite:///{_copy('mlflow.db', _migrate_mlflow, file)}"


def prefect(file: Path) -> Path:
    """Copy an empty Prefect database to a file, such as `prefect.db` in a `PREFECT_HOME`, unless the file exists."""
    return _copy("prefect.db", _migrate_prefect, file)


def _copy(name: str, migrate: Callable[[Path], None], file: Path) -> Path:
    if file.exists():
        return file
    _TEMPLATES.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(_TEMPLATES / f"{name}.lock"):
        if not (_TEMPLATES / name).exists():
            with tempfile.TemporaryDirectory(dir=_TEMPLATES) as folder:
                migrate(Path(folder) / name)
                (Path(folder) / name).rename(_TEMPLATES / name)
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(_TEMPLATES / name, file)
    return file


def _migrate_mlflow(file: Path) -> None:
    code = "from hallmark.tasks.tracking.client import connect; connect()"
    _run(["-c", code], HALLMARK_HOME=str(file.parent), MLFLOW_TRACKING_URI=f"sqlite:///{file}")


def _migrate_prefect(file: Path) -> None:
    _run(
        ["-m", "prefect", "server", "database", "upgrade", "--yes"],
        PREFECT_HOME=str(file.parent),
        PREFECT_SERVER_DATABASE_CONNECTION_URL=f"sqlite+aiosqlite:///{file}",
    )


def _run(arguments: list[str], **environment: str) -> None:
    completed = subprocess.run(
        [sys.executable, *arguments], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr
