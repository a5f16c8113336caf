"""`hallmark doctor` on a machine without problems, and with one problem of each kind."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest
from torchvision.datasets import MNIST

from hallmark.flows.__main__ import run
from tests.support.processes import free_port

Look = Callable[[], tuple[int, dict[str, tuple[bool, str]], str]]


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a folder of empty files with the names of the archives, and yield its address."""
    folder = tmp_path_factory.mktemp("mirror")
    for name, _ in MNIST.resources:
        (folder / name).touch()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def look(mirror: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Look:
    """Return a function that runs `hallmark doctor --json`: exit code, checks by name, and stderr."""
    assert not home.exists()
    monkeypatch.setenv("HALLMARK_MIRROR", mirror)
    monkeypatch.setenv("HALLMARK_PREFECT_PORT", str(free_port()))
    monkeypatch.setenv("HALLMARK_UI_PORT", str(free_port()))

    def call() -> tuple[int, dict[str, tuple[bool, str]], str]:
        code = run(["doctor", "--json"])
        captured = capsys.readouterr()
        result = json.loads(captured.out.splitlines()[-1])
        assert result["status"] == ("faults" if code else "well")
        return code, {check["name"]: (check["is_well"], check["found"]) for check in result["checks"]}, captured.err

    return call


def test_machine_without_problems(look: Look, mirror: str) -> None:
    code, checks, error = look()
    assert (code, error) == (0, "")
    assert list(checks) == [
        "versions", "device", "disk", "prefect", "mlflow",
        "prefect port", "mlflow port", "settings", "schedules", "mirror",
    ]  # fmt: skip
    assert all(is_well for is_well, _ in checks.values())
    assert checks["mirror"][1] == mirror
    assert "other users" not in checks["disk"][1]
    assert f"torch {version('torch')}" in checks["versions"][1]


@pytest.mark.parametrize(
    ("variable", "value", "check", "message"),
    [
        ("HALLMARK_HOME", "/dev/null/home", "disk", "/dev/null/home cannot be written: make it writable, or"),
        ("HALLMARK_MIRROR", "http://127.0.0.1:9", "mirror", "http://127.0.0.1:9/train-images-idx3-ubyte.gz does not"),
        ("HALLMARK_MIRROR", "/plain/path", "mirror", "HALLMARK_MIRROR: "),
        ("HALLMARK_SERVE_LIMIT", "0", "settings", "HALLMARK_SERVE_LIMIT: input should be greater than"),
        ("HALLMARK_PREFECT_PORT", "abc", "prefect port", "HALLMARK_PREFECT_PORT: input should be a valid integer"),
        ("HALLMARK_SCHEDULES", "/nowhere.toml", "schedules", "/nowhere.toml: cannot be read"),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:9", "mlflow", "MLFLOW_TRACKING_URI: http://127.0.0.1:9 cannot be"),
    ],
)
def test_problem_is_named_with_a_fix(
    look: Look, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, check: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    code, checks, error = look()
    assert (code, error) == (1, f"hallmark: 1 problem found: {check}\n")
    assert checks[check][1].startswith(message)


@pytest.mark.parametrize(("variable", "check"), [("PREFECT", "prefect port"), ("UI", "mlflow port")])
def test_port_in_use_is_named(look: Look, monkeypatch: pytest.MonkeyPatch, variable: str, check: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setenv(f"HALLMARK_{variable}_PORT", str(port))
        code, checks, _ = look()
    assert code == 1
    assert checks[check][1].startswith(f"HALLMARK_{variable}_PORT: {port} on 127.0.0.1: address already in use")


def test_mirror_is_not_needed_after_the_download(look: Look, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALLMARK_MIRROR", "http://127.0.0.1:9")
    raw = home / "downloads" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    home.chmod(0o750)
    for name, _ in MNIST.resources:
        (raw / name).touch()
    code, checks, _ = look()
    assert (code, checks["mirror"]) == (0, (True, "not needed: MNIST is already downloaded"))
    assert f"which other users of this machine can enter (`chmod 700 {home}` prevents it)" in checks["disk"][1]


def test_library_with_a_wrong_version_is_named(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "cyclopts-1.0.dist-info"
    wrong.mkdir()
    (wrong / "METADATA").write_text("Metadata-Version: 2.1\nName: cyclopts\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not look()[1]["versions"][0]
    code = run(["doctor"])
    captured = capsys.readouterr()
    assert (code, captured.err) == (1, "hallmark: 1 problem found: versions\n")
    (line,) = (line for line in captured.out.splitlines() if line.startswith("versions"))
    assert line.split()[1] == "problem"
    assert "cyclopts 1.0 is installed, >=5 is required: `make clean run` installs the right versions" in line
