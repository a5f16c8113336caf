import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hallmark.flows.station import prefect_server as server
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.runtime.prefect_api import answers
from tests.support.processes import until

CODE = """
import json, sys, time
from pathlib import Path
from hallmark.flows.station import prefect_server
from prefect.settings import PREFECT_API_URL
wait = prefect_server.provide(Path(sys.argv[1]))
wait()
print(json.dumps(PREFECT_API_URL.value()), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [None, signal.SIGKILL])
def test_embedded_server_answers_and_ends_with_its_process(tmp_path: Path, number: int | None) -> None:
    command = [sys.executable, "-c", CODE, str(tmp_path / "server.log")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())
    assert url.startswith("http://127.0.0.1:")
    assert answers(url)
    if number:
        process.send_signal(number)
    process.communicate()
    until(lambda: not answers(url))


def test_servers_can_start_together_on_a_new_database(tmp_path: Path) -> None:
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect")}
    command = [sys.executable, "-c", CODE, str(tmp_path / "server.log")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, env=environment, **pipes) for _ in range(3)]
    urls = {json.loads(process.stdout.readline()) for process in processes if process.stdout}
    for process in processes:
        process.communicate()
    assert len(urls) == 3


def test_server_in_the_settings_is_used(prefect_server: str, tmp_path: Path) -> None:
    server.provide(tmp_path / "server.log")()
    assert answers(prefect_server)
    assert list(tmp_path.iterdir()) == []


def test_unreachable_server_in_the_settings_is_refused(tmp_path: Path) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    address = "http://127.0.0.1:9/api"
    refused = pytest.raises(InputError, match=f"PREFECT_API_URL: {address} does not answer")
    with temporary_settings({PREFECT_API_URL: address}), refused:
        server.provide(tmp_path / "server.log")


def test_embedded_server_that_does_not_start_names_its_log(tmp_path: Path) -> None:
    database = f"sqlite+aiosqlite:///{tmp_path}/nowhere/prefect.db"
    environment = os.environ | {"PREFECT_API_DATABASE_CONNECTION_URL": database, "PREFECT_HOME": str(tmp_path)}
    completed = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "server.log")],
        capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert f"the embedded Prefect server did not start: see {tmp_path / 'server.log'}" in completed.stderr
    assert "unable to open database file" in (tmp_path / "server.log").read_text()
