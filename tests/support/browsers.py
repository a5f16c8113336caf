"""Chromium for tests, controlled by Playwright. It can connect to this machine only.

All pages of a process are opened in one browser, each in a context of its own, with its own cookies and cache: a
browser takes a second of CPU time to start.

While a page is open, Playwright's event loop counts as running in the thread that opened it. Run code that uses asyncio
in this thread, such as a flow, before the page is opened.
"""

import atexit
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.support.processes import until

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-breakpad",
)  # fmt: skip
LOCAL_SCHEMES = ("about", "blob", "chrome", "data", "devtools", "file")
"""URL schemes that need no host."""
TIMEOUT_MS = 60_000
"""Timeout of waits and assertions on a page, in milliseconds."""


def executable() -> str:
    """Return the path of Chromium. Skip or fail the test if there is none; see `skip_or_fail`."""
    return next(filter(None, map(shutil.which, NAMES)), None) or skip_or_fail("there is no Chromium")


def skip_or_fail(what: str) -> NoReturn:
    """Skip the test because a program is missing; fail it if HALLMARK_REQUIRE_CONSUMERS is set."""
    if os.environ.get("HALLMARK_REQUIRE_CONSUMERS"):
        pytest.fail(f"{what}, and HALLMARK_REQUIRE_CONSUMERS is set")
    pytest.skip(f"{what}: `.ci/run` installs it")


@contextmanager
def open_page(
    folder: Path,
    *,
    size: tuple[int, int] = (1400, 1000),
    is_ours: bool = True,
    names: tuple[str, ...] = (),
    **options: object,
) -> Iterator[Page]:
    """Open a page in a browser context of its own, which is closed at the end of the block.

    If the block fails, a screenshot of the page is written to `failed.png` in the folder. The test also fails if the
    page sends a request to another host, or if a page of ours raises an unhandled error.

    Args:
        folder: folder of the screenshot.
        size: width and height of the page, in pixels.
        is_ours: False for the UIs of Prefect and MLflow. Their own scripts raise an error if, for example, the server
            answers 503 because its SQLite file is locked: what they display is asserted, not their errors.
        names: host names that lead to this machine. No other name is resolved.
        options: options of Playwright's `Browser.new_context`, such as `color_scheme="dark"`.
    """
    address = _address(names)
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(address)
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, **options)  # type: ignore[arg-type]
        try:
            page = context.new_page()
            page.set_default_timeout(TIMEOUT_MS)
            expect.set_options(TIMEOUT_MS)
            hosts, errors = _watch(page, {"127.0.0.1", *names})
            try:
                yield page
            except BaseException:
                page.screenshot(path=folder / "failed.png")
                raise
            assert not hosts, f"the page sent requests to other hosts: {', '.join(sorted(set(hosts)))}"
            assert not errors or not is_ours, errors
        finally:
            context.close()
            browser.close()  # disconnects


@cache
def _address(names: tuple[str, ...]) -> str:
    """Start a browser that runs until this process ends, and return the address of its DevTools.

    Args:
        names: host names that lead to this machine. No other name is resolved.
    """
    rules = [*(f"MAP {name} 127.0.0.1" for name in names), "MAP * ~NOTFOUND", "EXCLUDE 127.0.0.1"]
    folder = TemporaryDirectory(ignore_cleanup_errors=True)
    own = [f"--host-resolver-rules={', '.join(rules)}", f"--user-data-dir={folder.name}", "--remote-debugging-port=0"]
    browser = subprocess.Popen([executable(), *FLAGS, *own], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop() -> None:
        browser.kill()
        browser.wait()
        folder.cleanup()

    atexit.register(stop)
    port_file = Path(folder.name, "DevToolsActivePort")
    until(lambda: port_file.exists() and port_file.read_text().count("\n"))
    return f"http://127.0.0.1:{port_file.read_text().splitlines()[0]}"


def follow(link: Locator) -> None:
    """Follow a link, also while the page renders it anew: a link replaced between press and release gets no click."""
    link.dispatch_event("click")


def take_screenshot(file: Path, upper: Locator, lower: Locator) -> None:
    """Take a screenshot from the top of one element to the bottom of another, as wide as the wider of the two."""
    lower.scroll_into_view_if_needed()
    boxes = [box for box in (upper.bounding_box(), lower.bounding_box()) if box]
    assert len(boxes) == 2
    left, top = min(box["x"] for box in boxes), boxes[0]["y"]
    width = max(box["x"] + box["width"] for box in boxes) - left
    height = boxes[1]["y"] + boxes[1]["height"] - top
    upper.page.screenshot(path=file, clip={"x": left, "y": top, "width": width, "height": height})


def _watch(page: Page, own: set[str]) -> tuple[list[str], list[str]]:
    """Return two lists that grow while the page is in use: other hosts of its requests, and unhandled errors."""
    hosts: list[str] = []
    errors: list[str] = []

    def record(address: str) -> None:
        url = urlsplit(address)
        if url.scheme not in LOCAL_SCHEMES and url.hostname not in own:
            hosts.append(url.hostname or address)

    page.context.on("request", lambda request: record(request.url))
    page.context.on("weberror", lambda error: errors.append(str(error.error)))
    page.on("websocket", lambda socket: record(socket.url))
    return hosts, errors
