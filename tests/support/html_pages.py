"""Parsed HTML pages, for tests of their structure and text."""

import re
from html.parser import HTMLParser

EMPTY = {"meta", "link", "br", "hr", "img", "input"}


class Parsed(HTMLParser):
    """The elements and texts of a page. Parsing fails unless every element is closed in the right place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
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
        self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def is_self_contained(text: str) -> bool:
    """Return whether the page loads nothing and runs no script."""
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
