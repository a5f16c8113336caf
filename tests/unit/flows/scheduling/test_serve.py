"""The environment of scheduled runs, which start in another folder than the process that serves them."""

import os
from pathlib import Path

import pytest

from hallmark.flows.scheduling import serve
from hallmark.tasks.runtime import settings


def test_paths_in_the_environment_do_not_depend_on_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in serve.PATHS:
        monkeypatch.setenv(name, "some/where")
    monkeypatch.setenv("PREFECT_HOME", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "here", "/there", "~/yonder"]))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    found = serve.absolute_paths(os.environ, settings.from_environment())
    assert found.pop("PYTHONPATH").split(os.pathsep) == [
        "", str(tmp_path / "here"), "/there", str(Path.home() / "yonder"),
    ]  # fmt: skip
    assert found.pop("MLFLOW_TRACKING_URI") == f"sqlite:///{tmp_path}/runs.db"
    assert found == dict.fromkeys(set(serve.PATHS) - {"PREFECT_HOME", "PYTHONPATH"}, str(tmp_path / "some" / "where"))
