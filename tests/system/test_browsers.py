"""The browser of the tests fails a test whose page uses the network or raises an error."""

from pathlib import Path

import pytest

from tests.support import browsers


def assert_opens(body: str, folder: Path) -> None:
    (folder / "page.html").write_text(f"<h1>here</h1>{body}")
    with browsers.open_page(folder) as page:
        page.goto((folder / "page.html").as_uri())
        assert page.inner_text("h1") == "here"


def test_page_with_embedded_image_opens(tmp_path: Path) -> None:
    assert_opens("<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>", tmp_path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<img src='https://cdn.example/a.png'>", "sent requests to other hosts: cdn.example"),
        ("<script>fetch('http://10.0.0.1/').catch(() => 0)</script>", "sent requests to other hosts: 10.0.0.1"),
        ("<script>new WebSocket('ws://live.example/')</script>", "sent requests to other hosts: live.example"),
        ("<script>throw new Error('broken')</script>", "broken"),
    ],
)
def test_page_that_uses_other_hosts_or_raises_an_error_fails(body: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_opens(body, tmp_path)


def test_failure_leaves_a_screenshot(tmp_path: Path) -> None:
    with pytest.raises(AssertionError), browsers.open_page(tmp_path) as page:
        assert page.url == ""
    assert (tmp_path / "failed.png").stat().st_size
