"""What commands print about servers, addresses and errors: one line, without secrets, and the log."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock
from prefect.settings import PREFECT_API_URL, temporary_settings

from hallmark.tasks.runtime import station_file
from tests.support.consoles import Call
from tests.support.http_servers import running


def test_json_contains_the_reason_of_a_refusal(console: Call) -> None:
    code, out, _ = console("train", "iris", "--json", "--training.epochs", "0")
    assert code == 2
    assert json.loads(out)["status"] == "refused"


@contextmanager
def answering_server(body: bytes) -> Iterator[str]:
    """Run a server that answers every request with the same page. Yield host and port."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_POST = do_GET  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Answering)) as server:
        yield f"127.0.0.1:{server.server_port}"


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables, for Prefect too, which read them when it was imported."""
    address = {PREFECT_API_URL: url} if (url := variables.get("PREFECT_API_URL")) else {}
    with pytest.MonkeyPatch.context() as patch, temporary_settings(address):
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@pytest.mark.parametrize(
    "command",
    [
        "runs",
        "champion iris",
        "history iris",
        "compare iris iris",
        "promote iris 1 --reason better",
        "verify models:/iris/1",
        "card iris",
    ],
)
def test_a_store_that_answers_with_a_page_is_refused(
    console: Call, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering_server(b"<!doctype html><title>log in</title>") as host:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@{host}")
        code, out, error = console(*command.split())
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert f"MLFLOW_TRACKING_URI: http://{host} cannot be reached (it answers, but not as an MLflow server)" in error


@pytest.mark.usefixtures("home")
def test_doctor_calls_servers_that_answer_with_a_page_broken(console: Call) -> None:
    names = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "HALLMARK_MIRROR")
    with answering_server(b"<html>") as host, environment(**dict.fromkeys(names, f"http://me:hunter2@{host}")):
        code, out, error = console("doctor", "--json")
    broken = {check["name"]: check["found"] for check in json.loads(out)["checks"] if not check["is_well"]}
    assert code == 1
    assert all(f"http://{host}" in broken[name] for name in ("mlflow", "prefect", "mirror"))
    assert "hunter2" not in out + error


SHOWING = {
    "MLFLOW_TRACKING_URI": ("runs", "ui --port 1", "doctor --json"),
    "PREFECT_API_URL": ("train iris", "up", "doctor"),
    "HALLMARK_MIRROR": ("doctor",),
}
"""Commands that show an address, by its variable."""


@pytest.mark.parametrize(
    "address",
    [
        "http://me:hunter2@127.0.0.1:9",
        "http://me:hunter2/hunter3@127.0.0.1:9/p",
        "http://me:hunter2@hunter3@127.0.0.1:9/p?token=hunter4",
        "postgresql://me:/hunter2@127.0.0.1:9/db?password=hunter3",
        "slack://hunter2/hunter3",
    ],
)
@pytest.mark.parametrize("variable", SHOWING)
def test_no_command_shows_a_secret_of_an_address(console: Call, variable: str, address: str, home: Path) -> None:
    for command in SHOWING[variable]:
        with environment(**{variable: address}):
            _, out, error = console(*command.split())
        assert "unexpected" not in error, command
        assert "hunter" not in "".join([out, error, *(path.read_text() for path in home.rglob("*.log"))]), command


@contextmanager
def refusing_server(code: int, body: str) -> Iterator[str]:
    """Run a server that is well but answers every other request with an error."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_healthy = self.path.endswith("/health")
            self.send_response(200 if is_healthy else code)
            self.end_headers()
            self.wfile.write(b"OK" if is_healthy else body.encode())

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Refusing)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("tokens", [["runs"], ["champion", "iris"], ["history", "iris"]])
def test_unexpected_error_is_one_line_that_names_the_log_with_its_traceback(
    console: Call, tokens: list[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "bad \x1b[31m\x07 store\nhttp://me:secret@127.0.0.1/ " + "x" * 500
    body = json.dumps({"error_code": "BAD_REQUEST", "message": message})
    with refusing_server(400, body) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        code, out, error = console(*tokens)
        assert (code, out, error.count("\n"), len(error) < 600) == (1, "", 1, True)
        shown = r"hallmark: unexpected \w+: .*bad \\x1b\[31m\\x07 store http://127.0.0.1/ x+ \(log: (.*)\)\n"
        found = re.fullmatch(shown, error)
        assert found, error
        log = Path(found[1]).read_text()
        assert log.startswith("Traceback")
        assert "secret" not in log
        Path(found[1]).unlink()
        code, out, _ = console(*tokens, "--json")
        result = json.loads(out)
        assert (code, result["status"]) == (1, "failed")
        assert re.search(r"unexpected .*\(log: .*\)$", result["error"])
        assert "secret" not in out
        (log_file,) = (home / "logs").iterdir()
        log_file.unlink()
        (home / "logs").rmdir()
        (home / "logs").write_text("not a folder")
        code, _, error = console(*tokens)
        assert (code, error.count("\n")) == (2, 1)
        assert f"HALLMARK_HOME: {home / 'logs'}: expected a folder" in error


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "tokens", [["verify", "nowhere.onnx"], ["verify", __file__], ["verify", "no-such"], ["runs", "no-such"], ["status"]]
)
def test_json_contains_the_reason_of_every_refusal(console: Call, tokens: list[str]) -> None:
    code, out, error = console(*tokens, "--json")
    assert (code, json.loads(out)["status"]) == (2, "refused")
    assert error.rstrip("\n") == f"hallmark: {json.loads(out)['error']}"


def test_json_contains_the_reason_why_a_station_cannot_be_read(console: Call, home: Path) -> None:
    with refusing_server(401, "") as url:
        part = station_file.StationPart(name="prefect", pid=2, log=home / "log", url=url)
        started = datetime.now(UTC)
        station = station_file.Station(pid=1, started=started, store="sqlite:///x", guarded=True, parts=(part,))
        station_file.record(station, home)
        with FileLock(station_file.lock(home)):
            code, out, error = console("status", "--json")
    assert (code, json.loads(out)["status"], error.count("\n")) == (2, "refused", 1)
    assert "HALLMARK_AUTH: the station requires user and password" in json.loads(out)["error"]
