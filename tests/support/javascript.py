"""Programs in JavaScript that run a model's file, in Node.js and in a browser."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryFile
from typing import Any

from hallmark.tasks.runtime.settings import ROOT
from tests.support import browsers, http_servers
from tests.support.processes import until

FOLDER = ROOT / "tests" / "javascript"
MODULES = FOLDER / "node_modules"
LIMIT = 120
"""Timeout in seconds."""


def node() -> str:
    """Return the path of Node.js; skip the test if it or onnxruntime-node is not installed."""
    if not (MODULES / "onnxruntime-node").is_dir():
        browsers.skip_or_fail("onnxruntime-node is not installed")
    return shutil.which("node") or browsers.skip_or_fail("there is no Node.js")


def browser() -> str:
    """Return the path of Chromium; skip the test if it or onnxruntime-web is not installed."""
    if not (MODULES / "onnxruntime-web").is_dir():
        browsers.skip_or_fail("onnxruntime-web is not installed")
    return browsers.executable()


@contextmanager
def running(command: list[str], folder: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process and kill its process group at the end of the block. Its output is shown if a test fails."""
    with TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            output.seek(0)
            sys.stderr.write(output.read().decode(errors="replace"))


def wait(process: "subprocess.Popen[bytes]", condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that depends on a process, which must not end before."""
    until(lambda: process.poll() is not None or condition(), LIMIT)
    assert process.poll() is None, f"the process ended with exit code {process.returncode}"


class Site(ThreadingHTTPServer):
    """HTTP server for a folder that collects the bodies of POST requests."""

    def __init__(self, folder: Path) -> None:
        self.received: SimpleQueue[bytes] = SimpleQueue()
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))


class Handler(SimpleHTTPRequestHandler):
    server: Site

    def do_POST(self) -> None:
        self.server.received.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()


def visit(page: str, folder: Path, **files: bytes) -> list[Any]:
    """Open a page of `tests/javascript` together with these files; return the answers that it posts."""
    served = folder / "served"
    served.mkdir()
    for path in FOLDER.iterdir():
        (served / path.name).symlink_to(path)
    for name, content in files.items():
        (served / name.replace("_", ".")).write_bytes(content)
    with http_servers.running(Site(served)) as http:
        command = [browser(), *browsers.FLAGS, f"--user-data-dir={folder / 'profile'}"]
        with running([*command, f"http://127.0.0.1:{http.server_port}/{page}"], folder) as process:
            wait(process, lambda: not http.received.empty())
    body = json.loads(http.received.get())
    assert "error" not in body, body["error"]
    return list(body["answers"])
