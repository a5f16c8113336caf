"""Empty databases of MLflow and Prefect, migrated once a session and copied: each migration takes seconds."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

_TEMPLATES = "HALLMARK_TEST_DATABASES"
"""Environment variable that names the folder of the session's templates."""


def choose_folder(factory: pytest.TempPathFactory) -> None:
    """Keep the templates where all workers of this session find them."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    session = factory.getbasetemp().parent if worker else factory.getbasetemp()
    os.environ[_TEMPLATES] = str(session / "databases")


def mlflow(file: Path) -> str:
    """Copy an empty database of MLflow to a file, unless there is one; return its address."""
    return f"sqlite:///{_copy('mlflow.db', _migrate_mlflow, file)}"


def prefect(file: Path) -> Path:
    """Copy an empty database of Prefect to a file, unless there is one, such as `prefect.db` in a `PREFECT_HOME`."""
    return _copy("prefect.db", _migrate_prefect, file)


def _copy(name: str, migrate: Callable[[Path], None], file: Path) -> Path:
    if file.exists():
        return file
    if _TEMPLATES not in os.environ:  # outside pytest: benchmarks
        os.environ[_TEMPLATES] = tempfile.mkdtemp()
    folder = Path(os.environ[_TEMPLATES])
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        if not (folder / name).exists():
            made = folder / f"making-{name}"
            migrate(made)
            made.rename(folder / name)
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / name, file)
    return file


def _migrate_mlflow(file: Path) -> None:
    code = "from hallmark.tasks.tracking.client import connect; connect()"
    _run(["-c", code], MLFLOW_TRACKING_URI=f"sqlite:///{file}")


def _migrate_prefect(file: Path) -> None:
    _run(
        ["-m", "prefect", "server", "database", "upgrade", "--yes"],
        PREFECT_SERVER_DATABASE_CONNECTION_URL=f"sqlite+aiosqlite:///{file}",
    )


def _run(arguments: list[str], **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
