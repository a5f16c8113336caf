"""The Jinja environment: values are escaped, and a missing value is an error."""

import pytest
from jinja2 import UndefinedError

from hallmark.tasks.ml.reports import templating
from tests.support.html_pages import Parsed

HOSTILE = ("</script><b>", '\'" onload="alert(1)', "{{ 7 * 7 }}{% raw %}", "a & b\x1b[31m\x00", "<!-- x")


def test_every_html_value_is_escaped() -> None:
    rows = [(name, name) for name in HOSTILE]
    table = {"caption": HOSTILE[0], "headings": HOSTILE[:2], "rows": rows, "remark": HOSTILE[2], "has_numbers": False}
    texts = {"title": HOSTILE[1], "lead": HOSTILE[3], "notes": HOSTILE}
    text = templating.render("run_comparison.html.jinja", tables=[table], curves="<svg></svg>", **texts)
    parsed = Parsed(text)
    assert not [*parsed.named("script"), *parsed.named("b")]
    assert not any("onload" in attributes for _, attributes in parsed.elements)
    assert set(HOSTILE) <= set(parsed.texts)


def test_code_is_not_escaped_but_quoted() -> None:
    classes = ["<no>", 'it\'s "x"\n']
    text = templating.render("example.py.jinja", file="a.onnx", classes=classes, image=None, arrays=[("x & y", "[1]")])
    assert f"classes = {classes!r}" in text
    assert "    'x & y': [1]," in text


def test_missing_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'lead' is undefined"):
        templating.render("run_comparison.html.jinja", title="x", tables=[], notes=[], curves="")
