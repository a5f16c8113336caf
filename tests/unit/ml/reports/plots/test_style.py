import logging
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from hallmark.tasks.common.records import Column
from hallmark.tasks.ml.reports.plots import dataset_plots, style, table_columns


@pytest.mark.parametrize("start", [4e14, 4e17, 2.0**63, -4e15, 0.0, 5.0])
@pytest.mark.parametrize("step", [0, 1])
def test_bins_exist_for_numbers_far_from_zero(start: float, step: int) -> None:
    x = (start + step * np.arange(240.0)).astype(np.float32).astype(np.float64)
    edges = style.bin_edges(x)
    assert len(edges) == 21
    assert edges[0] <= x.min() <= x.max() <= edges[-1]
    assert np.all(np.diff(edges) > 0)


def test_histograms_of_numbers_far_from_zero_are_drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    x = (np.array([4e14, 2.0**63, 5.0]) + np.arange(240.0)[:, None]).astype(np.float32)
    y, names = np.arange(240) % 2, ("serial", "large", "small")
    table_columns.columns(x, y, tuple(Column(name, "numeric", 0) for name in names), ("a", "b"), tmp_path / "x.png")
    dataset_plots.histograms(x, y, names, ("a", "b"), tmp_path / "y.png")
    assert not caplog.records


def test_a_picture_that_cannot_be_drawn_says_so_and_fails_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def draw(axes: Axes) -> None:
        axes.set_xlabel("x")
        raise ValueError("Too many bins for data range")

    def break_layout(axes: Axes) -> None:
        axes.set_xlabel(r"$\undefined$")  # fails only when it is drawn

    with caplog.at_level(logging.WARNING):
        for index, drawing in enumerate((draw, break_layout)):
            assert style.save(style.make_figure(drawing), tmp_path / f"{index}.png").stat().st_size > 1000
    assert "a picture cannot be drawn: Too many bins for data range" in caplog.text
    assert len(caplog.records) == 2
