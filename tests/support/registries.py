"""A local npm registry that serves one package: the archive of onnxruntime-web as published on npm."""

import shutil
import subprocess
from contextlib import AbstractContextManager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from hallmark.tasks.ml.reports.live_page.browser_runtime import ARCHIVE, VERSION
from tests.support import browsers, http_servers

LIMIT = 300
"""Timeout of npm in seconds."""


@cache
def archive() -> bytes:
    """Return the archive, downloaded by npm or taken from the cache of `npm ci --prefix tests/javascript`."""
    npm = shutil.which("npm") or browsers.skip_or_fail("there is no npm")
    with TemporaryDirectory() as folder:
        command = [
            npm,
            "pack",
            f"onnxruntime-web@{VERSION}",
            "--prefer-offline",
            "--silent",
            "--pack-destination",
            folder,
        ]
        completed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT, cwd=folder)
        if completed.returncode:
            browsers.skip_or_fail(f"npm cannot pack onnxruntime-web: {completed.stderr.strip()[:200]}")
        return (Path(folder) / ARCHIVE).read_bytes()


class Registry(ThreadingHTTPServer):
    """HTTP server that answers with `content` and counts requests."""

    def __init__(self, content: bytes) -> None:
        self.content, self.requests = content, 0
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.path != f"/onnxruntime-web/-/{ARCHIVE}":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        pass


def serving(content: bytes) -> AbstractContextManager[Registry]:
    return http_servers.running(Registry(content))
