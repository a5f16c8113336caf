"""What web pages of other origins can do, in a real browser, to the servers that Hallmark starts."""

import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError

import pytest
from playwright.sync_api import Page

from hallmark.flows.station import prefect_server
from hallmark.tasks.runtime.prefect_api import answers
from tests.support import browsers, http_servers, stations
from tests.support.processes import until

FOREIGN, REBOUND = "foreign.test", "rebound.test"

ATTACK = """
async ({base, read, create, name}) => {
    const ask = (path, options) => fetch(base + path, options).then(answer => answer.ok ? answer.text() : "", () => "")
    const post = (body, options) => ask(create, {method: "POST", body, ...options})
    const socket = new WebSocket(base.replace("http", "ws") + "/api/events/out", "prefect")
    const opened = await new Promise(done => { socket.onopen = () => done(true); socket.onerror = () => done(false) })
    const content = await ask(read, {})
    // Without a preflight: without content type. Then with one, and with a CSRF token if the server sends it.
    const blind = JSON.stringify({name: name + "-blind"})
    await post(new Blob([blind]), {mode: "no-cors"})
    const token = await ask("/api/csrf-token?client=" + name, {})
    const csrf = token && {"Prefect-Csrf-Token": JSON.parse(token).token, "Prefect-Csrf-Client": name}
    const answer = await post(JSON.stringify({name}), {headers: {"Content-Type": "application/json", ...csrf}})
    return {opened, content, answer}
}
"""
"""Try to connect, to read, and to create something."""


@dataclass(frozen=True)
class Target:
    """A server, and the paths of requests that read and create."""

    base: str
    read: str
    create: str
    find: str
    """Path of what was created, without its name."""

    @property
    def port(self) -> str:
        return self.base.rpartition(":")[2]

    def attack(self, page: Page, base: str) -> tuple[str, dict[str, Any]]:
        """Send requests to an address of the server, from a page; return the name to create, and what the page got."""
        name = f"made-{uuid.uuid4().hex}"
        parameters = {"base": base, "read": self.read, "create": self.create, "name": name}
        return name, page.evaluate(ATTACK, parameters)

    def has(self, name: str) -> bool:
        try:
            urllib.request.urlopen(f"{self.base}{self.find}{name}", timeout=30).close()  # noqa: S310 - our own address
        except HTTPError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return False
            raise
        return True


class ForeignPage(BaseHTTPRequestHandler):
    """Serves a page of another origin."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>foreign</title>")

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    """Start a station, and the Prefect server that a command embeds."""

    def prefect(base: str) -> Target:
        return Target(base, "/api/admin/settings", "/api/flows/", "/api/flows/name/")

    def mlflow(base: str) -> Target:
        path = "/ajax-api/2.0/mlflow/experiments"
        return Target(base, f"{path}/search?max_results=5", f"{path}/create", f"{path}/get-by-name?experiment_name=")

    folder = tmp_path_factory.mktemp("pages")
    process, embedded = prefect_server._start(folder / "server.log")
    try:
        with stations.open_workspace(tmp_path_factory.mktemp("station")) as workspace:
            completed = workspace.hallmark("up", "--detach")
            assert completed.returncode == 0, completed.stderr
            until(lambda: answers(embedded))
            yield {
                "embedded": prefect(embedded.removesuffix("/api")),
                "prefect": prefect(workspace.station.url("prefect")),
                "mlflow": mlflow(workspace.station.url("mlflow")),
            }
    finally:
        prefect_server._stop(process)


@pytest.fixture(scope="module")
def page(targets: dict[str, Target], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:  # noqa: ARG001 - the servers come first
    names = (FOREIGN, REBOUND, "localhost")
    with browsers.open_page(tmp_path_factory.mktemp("page"), is_ours=False, names=names) as page:
        yield page


@pytest.mark.parametrize("name", ["embedded", "prefect", "mlflow"])
def test_foreign_pages_can_neither_read_nor_create(targets: dict[str, Target], name: str, page: Page) -> None:
    target = targets[name]
    with http_servers.running(ThreadingHTTPServer(("127.0.0.1", 0), ForeignPage)) as server:
        for host in ("127.0.0.1", FOREIGN):
            page.goto(f"http://{host}:{server.server_port}/")
            assert page.title() == "foreign"
            for base in (target.base, f"http://localhost:{target.port}"):
                refuse(target, page, base)
    # The attacker's name server has moved the name of the page to this machine.
    rebound = f"http://{REBOUND}:{target.port}"
    response = page.goto(f"{rebound}/")
    assert response
    assert response.status == HTTPStatus.FORBIDDEN
    refuse(target, page, rebound)


def refuse(target: Target, page: Page, base: str) -> None:
    name, result = target.attack(page, base)
    assert result == {"opened": False, "content": "", "answer": ""}
    assert not target.has(name)
    assert not target.has(f"{name}-blind")


@pytest.mark.parametrize(("name", "listing"), [("embedded", None), ("prefect", "/flows"), ("mlflow", "/#/experiments")])
def test_pages_of_the_server_itself_work(
    targets: dict[str, Target], name: str, listing: str | None, page: Page
) -> None:
    target = targets[name]
    for base in (target.base, f"http://localhost:{target.port}"):
        page.goto(f"{base}/")
        created, result = target.attack(page, base)
        assert result["opened"] == (name != "mlflow")
        assert result["content"]
        assert result["answer"]
        assert target.has(created)
        if listing:
            page.goto(base + listing)
            page.get_by_text(created).first.wait_for()
