import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hallmark.tasks.ml.reports import charts
from tests.unit.ml.reports.test_pages import Parsed

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


def paths(svg: str, kind: str = "line") -> list[str]:
    """The way of each curve, without those of the legend."""
    return [way for way in re.findall(rf'class="{kind} c\d" d="([^"]*)"', svg) if "h26" not in way]


@given(st.tuples(FINITE, st.floats(1e-3, 1e6)))
def test_ticks_are_round_and_within(ends: tuple[float, float]) -> None:
    low, high = ends[0], ends[0] + ends[1]
    found = charts.ticks(low, high)
    step = ends[1] / charts.TICKS
    assert 1 <= len(found) <= charts.TICKS + 1
    assert all(low - 1e-6 * step <= each <= high + 1e-6 * step for each in found)
    gaps = [after - before for before, after in itertools.pairwise(found)]
    assert all(step * 0.99 <= gap <= 10 * step for gap in gaps)


def test_a_curve_goes_through_its_values() -> None:
    svg = charts.curves({"training": ([1, 2, 3], [2.0, 1.0, 0.0])})
    (way,) = paths(svg)
    places = [tuple(map(float, place.split())) for place in re.split("[ML]", way)[1:]]
    assert [x for x, _ in places] == [charts.LEFT, (charts.LEFT + charts.RIGHT) / 2, charts.RIGHT]
    heights = [y for _, y in places]
    assert heights[0] < heights[1] < heights[2] == charts.BOTTOM
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.11)


def test_what_is_not_finite_leaves_a_gap() -> None:
    (way,) = paths(charts.curves({"training": ([1, 2, 3, 4], [1.0, math.nan, 2.0, math.inf])}))
    assert (way.count("M"), way.count("L")) == (2, 0)
    assert "nothing finite" in charts.curves({"training": ([1], [math.nan])})


def test_values_far_apart_count_in_powers() -> None:
    svg = charts.curves({"training": ([1, 2, 3], [100.0, 1.0, 0.01])})
    (way,) = paths(svg)
    top, middle, bottom = (float(place.split()[1]) for place in re.split("[ML]", way)[1:])
    assert middle == pytest.approx((top + bottom) / 2, abs=0.1)
    assert ">0.1<" in svg


def test_of_many_points_some_are_drawn_the_last_among_them() -> None:
    (way,) = paths(charts.curves({"training": (range(1, 10_001), [1 / step for step in range(1, 10_001)])}))
    assert len(re.findall("[ML]", way)) <= charts.POINTS + 1
    assert way.split("L")[-1].startswith(f"{charts.RIGHT:.1f} ")


def test_it_is_named_told_and_escaped() -> None:
    svg = charts.curves({"<b>": ([1, 2], [0.5, 0.25]), "validation": ([1, 2], [0.7, 0.6])}, kept=1)
    (element,) = Parsed(svg).named("svg")
    assert element["aria-label"] == "<b>: 0.5 at epoch 1, 0.25 at epoch 2; validation: 0.7 at epoch 1, 0.6 at epoch 2"
    assert element["role"] == "img"
    assert "kept: epoch 1" in Parsed(svg).words
    assert not Parsed(svg).named("b")


def test_one_epoch_is_a_point() -> None:
    svg = charts.curves({"training": ([1], [0.5])})
    assert svg.count("<circle") == 1
    assert not paths(svg)
