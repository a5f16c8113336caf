import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hallmark.tasks.ml.reports import charts
from tests.support.html_pages import Parsed

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


def paths(svg: str, kind: str = "line") -> list[str]:
    """Return the path of each curve, without the lines of the legend."""
    return [path for path in re.findall(rf'class="{kind} c\d" d="([^"]*)"', svg) if "h26" not in path]


@given(st.tuples(FINITE, st.floats(1e-3, 1e6)))
def test_ticks_are_round_and_within_the_range(ends: tuple[float, float]) -> None:
    low, high = ends[0], ends[0] + ends[1]
    found = charts.ticks(low, high)
    step = ends[1] / charts.TICKS
    assert 1 <= len(found) <= charts.TICKS + 1
    assert all(low - 1e-6 * step <= each <= high + 1e-6 * step for each in found)
    gaps = [after - before for before, after in itertools.pairwise(found)]
    assert all(step * 0.99 <= gap <= 10 * step for gap in gaps)


def test_a_curve_goes_through_its_values() -> None:
    svg = charts.curves({"training": ([1, 2, 3], [2.0, 1.0, 0.0])})
    (path,) = paths(svg)
    points = [tuple(map(float, point.split())) for point in re.split("[ML]", path)[1:]]
    assert [x for x, _ in points] == [charts.LEFT, (charts.LEFT + charts.RIGHT) / 2, charts.RIGHT]
    heights = [y for _, y in points]
    assert heights[0] < heights[1] < heights[2] == charts.BOTTOM
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.11)


def test_values_that_are_not_finite_leave_a_gap() -> None:
    (path,) = paths(charts.curves({"training": ([1, 2, 3, 4], [1.0, math.nan, 2.0, math.inf])}))
    assert (path.count("M"), path.count("L")) == (2, 0)
    assert "no finite values" in charts.curves({"training": ([1], [math.nan])})


def test_values_that_span_magnitudes_have_a_logarithmic_axis() -> None:
    svg = charts.curves({"training": ([1, 2, 3], [100.0, 1.0, 0.01])})
    (path,) = paths(svg)
    top, middle, bottom = (float(point.split()[1]) for point in re.split("[ML]", path)[1:])
    assert middle == pytest.approx((top + bottom) / 2, abs=0.1)
    assert ">0.1<" in svg


def test_long_curves_are_thinned_and_keep_their_last_point() -> None:
    (path,) = paths(charts.curves({"training": (range(1, 10_001), [1 / step for step in range(1, 10_001)])}))
    assert len(re.findall("[ML]", path)) <= charts.POINTS + 1
    assert path.split("L")[-1].startswith(f"{charts.RIGHT:.1f} ")


def test_chart_has_an_escaped_description() -> None:
    svg = charts.curves({"<b>": ([1, 2], [0.5, 0.25]), "validation": ([1, 2], [0.7, 0.6])}, best=1)
    (element,) = Parsed(svg).named("svg")
    assert element["aria-label"] == "<b>: 0.5 at epoch 1, 0.25 at epoch 2; validation: 0.7 at epoch 1, 0.6 at epoch 2"
    assert element["role"] == "img"
    assert "best epoch: 1" in Parsed(svg).texts
    assert not Parsed(svg).named("b")


def test_single_epoch_is_drawn_as_a_dot() -> None:
    svg = charts.curves({"training": ([1], [0.5])})
    assert svg.count("<circle") == 1
    assert not paths(svg)
