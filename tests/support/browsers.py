"""A Chromium that tests look through, by Playwright. It reaches this machine and nothing else.

Playwright's event loop counts as running in the thread that opened a page, as long as it is open: what uses asyncio in
this thread, such as a flow, is to be done before.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-breakpad",
)  # fmt: skip
ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
"""No name has an address."""
WITHIN = ("about", "blob", "chrome", "data", "devtools", "file")
"""Schemes of addresses that are not fetched from a host."""
LIMIT = 60_000
"""Milliseconds after which what has not happened in a page is a failure."""


def executable() -> str:
    """Where Chromium is; what asks is skipped, or failed, where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None) or missing("there is no Chromium")


def missing(what: str) -> NoReturn:
    if os.environ.get("HALLMARK_REQUIRE_CONSUMERS"):
        pytest.fail(f"{what}, and HALLMARK_REQUIRE_CONSUMERS is set")
    pytest.skip(f"{what}: `.ci/run` installs it")


@contextmanager
def opened(
    folder: Path, *, size: tuple[int, int] = (1400, 1000), unanswered: tuple[str, ...] = (), **options: object
) -> Iterator[Page]:
    """A page of a browser of its own, which ends with the block.

    What fails leaves a picture of the page, `failed.png`, in the folder.

    Args:
        folder: where the picture goes.
        size: width and height of the page, in pixels.
        unanswered: hosts that the page may ask, in vain. Any other one fails the test in the end.
        options: of Playwright's `Browser.new_context`, such as `color_scheme="dark"`.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=[*FLAGS, ALONE])
        try:
            view = {"width": size[0], "height": size[1]}
            page = browser.new_context(viewport=view, **options).new_page()  # type: ignore[arg-type]
            page.set_default_timeout(LIMIT)
            expect.set_options(LIMIT)
            asked, errors = _watched(page)
            try:
                yield page
            except BaseException:
                page.screenshot(path=folder / "failed.png")
                raise
            strangers = sorted(set(asked) - set(unanswered))
            assert not strangers, f"the page asked other hosts: {', '.join(strangers)}"
            assert not errors, errors
        finally:
            browser.close()


def picture(file: Path, upper: Locator, lower: Locator) -> None:
    """Take a picture of a page from the top of one of its elements to the bottom of another, as wide as the wider."""
    lower.scroll_into_view_if_needed()
    boxes = [box for box in (upper.bounding_box(), lower.bounding_box()) if box]
    assert len(boxes) == 2
    left, top = min(box["x"] for box in boxes), boxes[0]["y"]
    width = max(box["x"] + box["width"] for box in boxes) - left
    height = boxes[1]["y"] + boxes[1]["height"] - top
    upper.page.screenshot(path=file, clip={"x": left, "y": top, "width": width, "height": height})


def _watched(page: Page) -> tuple[list[str], list[str]]:
    """Hosts beside this machine that are asked, and errors that no code of the page handles, as they come up."""
    asked: list[str] = []
    errors: list[str] = []

    def ask(address: str) -> None:
        url = urlsplit(address)
        if url.scheme not in WITHIN and url.hostname != "127.0.0.1":
            asked.append(url.hostname or address)

    page.context.on("request", lambda request: ask(request.url))
    page.context.on("weberror", lambda error: errors.append(str(error.error)))
    page.on("websocket", lambda socket: ask(socket.url))
    return asked, errors
