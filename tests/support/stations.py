"""Isolated workspaces in which tests start a station, each with its own home, tracking store and ports."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hallmark.tasks.runtime import station_file
from tests.support import databases, forks, projects
from tests.support.processes import HALLMARK, free_port, until


@dataclass(frozen=True)
class Workspace:
    """Folder and environment variables of a station."""

    folder: Path
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def schedules(self) -> Path:
        return self.folder / "schedules.toml"

    @property
    def station(self) -> station_file.Station:
        station = station_file.current(self.home)
        assert station
        return station

    def hallmark(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return forks.hallmark(*arguments, environment=self.environment | environment)

    def prefect(self, path: str, payload: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 - any JSON
        """Send a GET request, or a POST request with a JSON payload, to Prefect's API; return the JSON response."""
        from prefect.client.base import PrefectHttpxSyncClient

        # Prefect's own client tries again if the server answers 503 because its SQLite file is locked.
        with PrefectHttpxSyncClient(base_url=f"{self.station.url('prefect')}/api", enable_csrf_support=True) as client:
            return client.request("GET" if payload is None else "POST", path, json=payload).json()

    @contextmanager
    def foreground(self) -> Iterator["subprocess.Popen[str]"]:
        """Start a station in another project's folder, without telling Prefect its home."""
        environment = {name: value for name, value in self.environment.items() if name != "PREFECT_HOME"}
        project = projects.foreign(self.folder / "project")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([HALLMARK, "up"], env=environment, cwd=project, text=True, **pipes)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@contextmanager
def open_workspace(folder: Path) -> Iterator[Workspace]:
    """Create a workspace in an empty folder. A station still running at the end of the block is stopped."""
    (folder / "schedules.toml").touch()
    variables = {
        "HALLMARK_HOME": str(folder / "home"),
        "HALLMARK_PREFECT_PORT": str(free_port()),
        "HALLMARK_SCHEDULES": str(folder / "schedules.toml"),
        "HALLMARK_UI_PORT": str(free_port()),
        "MLFLOW_TRACKING_URI": databases.mlflow(folder / "mlruns" / "mlflow.db"),
        "PREFECT_HOME": str(databases.prefect(folder / "home" / "prefect" / "prefect.db").parent),
    }
    workspace = Workspace(folder, {**os.environ, **variables})
    try:
        yield workspace
    finally:
        if station := station_file.current(workspace.home):
            os.kill(station.pid, signal.SIGTERM)
            until(lambda: not station_file.is_held(workspace.home))


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]
