"""The browser that tests look through: what it must not let pass."""

from pathlib import Path

import pytest

from tests.support import browsers


def opens(body: str, folder: Path) -> None:
    (folder / "page.html").write_text(f"<h1>here</h1>{body}")
    with browsers.opened(folder) as page:
        page.goto((folder / "page.html").as_uri())
        assert page.inner_text("h1") == "here"


def test_a_page_of_its_own_files_opens(tmp_path: Path) -> None:
    opens("<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>", tmp_path)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<img src='https://cdn.example/a.png'>", "asked other hosts: cdn.example"),
        ("<script>fetch('http://10.0.0.1/').catch(() => 0)</script>", "asked other hosts: 10.0.0.1"),
        ("<script>new WebSocket('ws://live.example/')</script>", "asked other hosts: live.example"),
        ("<script>throw new Error('broken')</script>", "broken"),
    ],
)
def test_a_page_that_asks_others_or_breaks_fails(body: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=said):
        opens(body, tmp_path)


def test_what_fails_leaves_a_picture(tmp_path: Path) -> None:
    with pytest.raises(AssertionError), browsers.opened(tmp_path) as page:
        assert page.url == ""
    assert (tmp_path / "failed.png").stat().st_size
