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
        assert expected in parsed.words
    assert "run 1: no intervals and no paired test: <script>alert(1)</script>" in parsed.words
    assert parsed.named("html")[0]["lang"] == "en"


def test_page_without_notes_or_differences() -> None:
    text = comparison_page.build(comparison.Comparison((run("a", {}), run("a", {})), {}, {}, [], []))
    assert "Notes" not in text
    assert "The runs do not differ" in text


@pytest.mark.parametrize(
    "curves",
    [
        [{}, {}],
        [{"val/loss": ([1], [0.5])}, {"val/loss": ([1, 2, 3], [0.5, float("nan"), 1e9])}],
        [{"train/loss": ([1, 2], [0.0, 1.0])}, {"train/loss": ([1, 2], [float("inf"), float("nan")])}],
    ],
)
def test_all_recorded_curves_are_drawn(curves: list[dict[str, Curve]]) -> None:
    svg = run_curves.overlaid(["_1 hidden?", "2"], curves)
    assert svg == run_curves.overlaid(["_1 hidden?", "2"], curves)
    assert svg.startswith("<svg")
    assert svg.rstrip().endswith("</svg>")
