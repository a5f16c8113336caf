import math
import re
from xml.etree import ElementTree

import pytest

from hallmark.tasks.ml.reports.run_comparison import comparison, comparison_page, run_curves
from hallmark.tasks.ml.reports.run_comparison.comparison import ComparedRun, Curve
from tests.support.html_pages import Parsed, is_self_contained


def run(name: str, curves: dict[str, Curve], **about: object) -> ComparedRun:
    return ComparedRun(
        given=f"{name}@champion",
        run_id="0" * 32,
        name=name,
        status="FINISHED",
        model="",
        dataset="d",
        about=about,
        metrics={"test/accuracy": 0.5, "test/recall/<i>": 0.25},
        curves=curves,
        results=None,
        missing="<script>alert(1)</script>",
    )


def test_page_is_escaped_and_self_contained() -> None:
    curves = {"val/loss": ([1, 2], [1.0, 0.5]), "train/loss": ([1, 2], [9.0, 0.1])}
    runs = [run("<b>x</b> $y$", curves, lr='"2" & <b>'), run("2 & z\x07", {}, lr=1)]
    text = comparison_page.build(comparison.compare(runs))
    parsed = Parsed(text)
    assert is_self_contained(text)
    assert not [*parsed.named("script"), *parsed.named("b"), *parsed.named("i")]
    assert text.startswith("<!DOCTYPE html>")
    assert len(parsed.named("title")) == len(parsed.named("h1")) == len(parsed.named("svg")) == 1
    assert "<title>Comparison: &lt;b&gt;x&lt;/b&gt; $y$@champion, " in text
    assert {each["scope"] for each in parsed.named("th")} == {"col", "row"}
    assert len(parsed.named("caption")) == 4
    for expected in ("<b>x</b> $y$", '"2" & <b>', "2 & z\x07", "<i>"):
        assert expected in parsed.texts
    assert "run 1: no intervals and no paired test: <script>alert(1)</script>" in parsed.texts
    assert parsed.named("html")[0]["lang"] == "en"


def test_page_without_notes_or_differences() -> None:
    text = comparison_page.build(comparison.Comparison((run("a", {}), run("a", {})), {}, {}, [], []))
    assert "Notes" not in text
    assert "The runs do not differ" in text


def lines(svg: str, panel: int) -> list[ElementTree.Element]:
    """Return the curves in a panel. Lines of the grid are not direct children of the panel."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own text
    (axes,) = (element for element in root.iter() if element.get("id") == f"axes_{panel}")
    return [element for element in axes if element.get("id", "").startswith("line2d")]


def visible_points(line: ElementTree.Element) -> int:
    """Return the number of points that are on a segment of a line or have a marker."""
    parts = line[0].get("d", "").split("M")[1:]
    markers = sum(element.tag.endswith("use") for element in line.iter())
    return sum(1 + part.count("L") for part in parts if "L" in part) + markers


def look(line: ElementTree.Element) -> tuple[str, ...]:
    return tuple(re.findall(r"(?:stroke|stroke-dasharray): ([^;]+)", line[0].attrib["style"]))


@pytest.mark.parametrize(
    "curves",
    [
        [{}, {}],
        [{"val/loss": ([1], [0.5])}, {"val/loss": ([1, 2, 3], [0.5, float("nan"), 1e9])}],
        [{"train/loss": ([1, 2], [0.0, 1.0])}, {"train/loss": ([1, 2], [float("inf"), float("nan")])}],
        [{"val/loss": ([1, 2], [number, 1.0]), "train/loss": ([1, 2, 3], [1.0, 2.0, number])} for number in range(8)],
    ],
    ids=["none", "one epoch", "not finite", "eight runs"],
)
def test_all_recorded_curves_are_drawn(curves: list[dict[str, Curve]]) -> None:
    names = ["_1 hidden?", *(f"run {number}" for number in range(2, len(curves) + 1))]
    svg = run_curves.overlaid(names, curves)
    assert svg == run_curves.overlaid(names, curves)
    assert svg.startswith("<svg")
    assert svg.rstrip().endswith("</svg>")
    for panel, metric in enumerate(comparison.CURVES, 1):
        recorded = [each[metric][1] for each in curves if metric in each]
        drawn = lines(svg, panel)
        assert [visible_points(line) for line in drawn] == [sum(map(math.isfinite, values)) for values in recorded]
        assert len({look(line) for line in drawn}) == len(drawn)
    for name, each in zip(names, curves, strict=True):
        assert svg.count(f"<!-- {name} -->") == bool(each)  # the entry in the legend; text is drawn as paths
    missing = [metric for metric in comparison.CURVES if not any(metric in each for each in curves)]
    assert svg.count("<!-- not recorded -->") == len(missing)
