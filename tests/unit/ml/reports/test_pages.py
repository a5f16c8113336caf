import re
from html.parser import HTMLParser

import pytest

from hallmark.tasks.ml.reports import pages
from hallmark.tasks.ml.reports.pages import Picture, Table
from hallmark.tasks.ml.reports.plots import run_curves

EMPTY = {"meta", "link", "br", "hr", "img", "input"}


class Parsed(HTMLParser):
    """A page that is checked while it is read: every element is closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def needs_nothing(text: str) -> bool:
    """Whether the page fetches nothing and runs nothing."""
    parsed = Parsed(text)
    named = {name for name, _ in parsed.elements}
    addresses = [
        value or ""
        for _, attributes in parsed.elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href")
    ]
    inner = all(address.startswith("#") for address in addresses)
    loaded = re.search(r"@import|url\((?!#)", text)
    return inner and not loaded and not named & {"script", "link", "iframe", "img", "object", "base"}


def test_a_page_is_whole_escaped_and_needs_nothing() -> None:
    table = Table("Runs & <i>more</i>", "a < b", ("", "run <1>"), (("<b>", "1"), ("  of it", '"2"')), has_numbers=True)
    curves = {"val/loss": ([1, 2], [1.0, 0.5]), "train/loss": ([1, 2], [9.0, 0.1])}
    picture = Picture('Curves "of" <b>', run_curves.overlaid(["1 <b>x</b> $y$", "2 & z"], [curves, {}]))
    text = pages.page("<b>", "a & b", [table], ["<script>alert(1)</script>"], [picture])
    parsed = Parsed(text)
    assert needs_nothing(text)
    assert not parsed.named("script")
    assert not parsed.named("b")
    assert not parsed.named("i")
    assert text.startswith("<!DOCTYPE html>")
    assert len(parsed.named("title")) == len(parsed.named("h1")) == len(parsed.named("svg")) == 1
    assert "<title>&lt;b&gt;</title>" in text
    assert [each["scope"] for each in parsed.named("th")] == ["col", "row", "row"]
    assert len(parsed.named("caption")) == 1
    for said in ("Runs & <i>more</i>", "a < b", "run <1>", "<b>", '"2"', "<script>alert(1)</script>"):
        assert said in parsed.words
    assert parsed.named("html")[0]["lang"] == "en"


def test_a_page_without_notes_has_no_heading_for_them() -> None:
    assert "Notes" not in pages.page("x", "y", [], [], [])


@pytest.mark.parametrize(
    "curves",
    [
        [{}, {}],
        [{"val/loss": ([1], [0.5])}, {"val/loss": ([1, 2, 3], [0.5, float("nan"), 1e9])}],
        [{"train/loss": ([1, 2], [0.0, 1.0])}, {"train/loss": ([1, 2], [float("inf"), float("nan")])}],
    ],
)
def test_whatever_was_recorded_is_drawn(curves: list[dict[str, tuple[list[int], list[float]]]]) -> None:
    svg = run_curves.overlaid(["_1 hidden?", "2"], curves)
    assert svg == run_curves.overlaid(["_1 hidden?", "2"], curves)
    assert svg.startswith("<svg")
    assert svg.rstrip().endswith("</svg>")
