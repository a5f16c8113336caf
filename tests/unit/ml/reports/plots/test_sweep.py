import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from hallmark.tasks.ml.reports.plots import sweep
from hallmark.tasks.ml.reports.plots.sweep_values import CHOSEN, DIVERGED, SHADES, Row

LR, SEED, DECAY, HIDDEN = "training.lr", "training.seed", "training.weight_decay", "model.hidden"


def panel(figure: Figure) -> Axes:
    return figure.axes[0]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def ticks(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


def lines(figure: Figure) -> list[LineCollection]:
    """Return the lines of diverged members, of the others, and of the chosen one."""
    return [found for found in panel(figure).collections if isinstance(found, LineCollection)]


def drawn_members(count: int, *, diverged: int = 0) -> tuple[list[Row], list[float | None]]:
    rng = np.random.default_rng(0)
    widths = ["32", "64", "512,256,128,64"]
    rows: list[Row] = [
        {
            LR: 10 ** rng.uniform(-4, 0),
            DECAY: rng.uniform(0, 0.1),
            HIDDEN: str(rng.choice(widths)),
            "x.shuffle": bool(i % 2),
        }
        for i in range(count)
    ]
    return rows, [None if i < diverged else rng.uniform(0.1, 0.9) for i in range(count)]


def test_one_option_is_a_curve_in_the_order_of_its_values() -> None:
    rows = [{LR: lr} for lr in (0.1, 0.001, 1.0, 0.01)]
    axes = panel(sweep.figure([LR], rows, [0.2, 0.5, None, 0.25], chosen=0))
    curve, chosen, diverged = axes.lines
    np.testing.assert_equal(curve.get_xydata(), [[0.001, 0.5], [0.01, 0.25], [0.1, 0.2], [1, math.nan]])
    np.testing.assert_equal(chosen.get_xydata(), [[0.1, 0.2]])
    assert (chosen.get_label(), chosen.get_color()) == ("chosen: 0.1, loss 0.200", CHOSEN)
    np.testing.assert_equal(diverged.get_xdata(), [1])
    assert (axes.get_xlabel(), axes.get_xscale(), axes.get_yscale()) == (LR, "log", "linear")
    assert ticks(axes) == ["0.001", "0.01", "0.1", "1"]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((0.01, 0.1), "linear"),
        ((0.01, 0.3), "log"),
        ((0.0, 1e-4, 1e-3, 1e-2), "symlog"),
        ((-1.0, 0.01, 1.0), "linear"),
        # On a logarithmic scale, most of these evenly spaced values would crowd at one end.
        (tuple(range(1, 101)), "linear"),
        (tuple(1.2**power for power in range(40)), "log"),
    ],
)
def test_axis_has_the_scale_that_spreads_the_values(values: tuple[float, ...], scale: str) -> None:
    losses = [0.5] * len(values)
    assert panel(sweep.figure([LR], [{LR: value} for value in values], losses, 0)).get_xscale() == scale
    # Seeds are names, not quantities.
    assert panel(sweep.figure([SEED], [{SEED: value} for value in values], losses, 0)).get_xscale() == "linear"


def test_losses_that_span_magnitudes_have_a_logarithmic_axis() -> None:
    axes = panel(sweep.figure([LR], [{LR: float(i)} for i in range(3)], [0.01, 0.1, 100], 0))
    assert axes.get_yscale() == "log"


def test_words_and_seeds_are_not_joined_by_lines() -> None:
    rows = [{HIDDEN: hidden} for hidden in ("64,32", "128", "64")]
    axes = panel(sweep.figure([HIDDEN], rows, [0.3, 0.2, 0.1], chosen=2))
    assert ticks(axes) == ["64", "64,32", "128"]
    np.testing.assert_equal(axes.lines[0].get_xydata(), [[0, 0.1], [1, 0.3], [2, 0.2]])
    seeds = panel(sweep.figure([SEED], [{SEED: 0}, {SEED: 1}], [0.3, 0.2], chosen=1))
    booleans = panel(sweep.figure(["x"], [{"x": True}, {"x": False}], [0.3, 0.2], chosen=1))
    assert ticks(booleans) == ["false", "true"]
    assert [each.lines[0].get_linestyle() for each in (axes, seeds, booleans)] == ["None"] * 3


def test_values_too_close_together_have_no_labels() -> None:
    axes = panel(sweep.figure([LR], [{LR: lr} for lr in (0.1, 0.11, 1.0)], [0.3, 0.2, 0.1], 2))
    assert "0.11" not in ticks(axes)


def test_labels_have_enough_digits_and_are_rotated_if_long() -> None:
    axes = panel(sweep.figure([LR], [{LR: lr} for lr in (0.12341, 0.12342)], [0.3, 0.2], 1))
    assert ticks(axes) == ["0.12341", "0.12342"]
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {0}
    rows = [{SEED: seed, HIDDEN: hidden} for seed in (0, 1) for hidden in ("8", "512,256,128,64")]
    rotated = panel(sweep.figure([SEED, HIDDEN], rows, [0.1, 0.2, 0.3, 0.4], 0))
    assert {label.get_rotation() for label in rotated.get_xticklabels()} == {30}


def test_complete_grid_of_two_options_is_an_annotated_heat_map() -> None:
    rows = [{LR: lr, "training.batch_size": size} for lr in (0.1, 0.01) for size in ("full", 32, 4)]
    axes = panel(sweep.figure([LR, "training.batch_size"], rows, [0.5, 0.25, None, 0.3, 0.4, 1 / 3], chosen=1))
    assert texts(axes) == ["0.500", "0.250", "diverged", "0.300", "0.400", "0.333"]
    # Numbers are sorted, whatever their order on the command line, and words follow.
    assert ticks(axes) == ["4", "32", "full"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.01", "0.1"]
    (image,) = axes.images
    np.testing.assert_allclose(np.ma.filled(image.get_array(), math.nan), [[1 / 3, 0.4, 0.3], [math.nan, 0.25, 0.5]])
    assert (image.get_clim(), image.origin) == ((0.25, 0.5), "lower")
    hatched, frame = (patch for patch in axes.patches if isinstance(patch, Rectangle))
    assert (hatched.get_hatch(), hatched.get_xy()) == ("////", (-0.5, 0.5))
    assert (frame.get_edgecolor(), frame.get_xy()) == (to_rgba(CHOSEN), (0.5, 0.5))


def test_losses_contrast_with_their_cells() -> None:
    rows = [{LR: float(lr), SEED: seed} for lr in range(4) for seed in range(4)]
    losses = [index / 16 for index in range(16)]
    axes = panel(sweep.figure([LR, SEED], rows, losses, 0))

    def luminance(colour: object) -> float:
        """Return the relative luminance as defined by WCAG 2.2."""
        channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return float(np.dot(channels, (0.2126, 0.7152, 0.0722)))

    for text, loss in zip(axes.texts, losses, strict=True):
        pair = sorted((luminance(text.get_color()), luminance(axes.images[0].to_rgba(loss))))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


def test_losses_that_span_magnitudes_are_shaded_logarithmically() -> None:
    rows = [{LR: lr, SEED: seed} for lr in (0.1, 1.0) for seed in (0, 1)]
    axes = panel(sweep.figure([LR, SEED], rows, [0.01, 0.1, 1, 1000], chosen=0))
    assert isinstance(axes.images[0].norm, LogNorm)
    assert texts(axes) == ["0.0100", "0.100", "1.00", "1.00e3"]


def test_large_heat_map_has_a_colour_bar_and_no_annotations() -> None:
    rows = [{LR: lr, SEED: seed} for lr in np.geomspace(1e-4, 1, 40).tolist() for seed in range(30)]
    figure = sweep.figure([LR, SEED], rows, [0.1 + index for index in range(len(rows))], chosen=0)
    assert len(figure.axes) == 2
    assert figure.axes[1].get_ylabel() == "validation loss"
    assert texts(panel(figure)) == []
    assert len(ticks(panel(figure))) == 15


def test_members_off_a_grid_are_parallel_coordinates() -> None:
    rows, losses = drawn_members(32, diverged=3)
    figure = sweep.figure([LR, DECAY, HIDDEN, "x.shuffle"], rows, losses, chosen=7)
    assert [len(found.get_segments()) for found in lines(figure)] == [3, 28 + 1, 1]
    diverged, kept, chosen = lines(figure)
    np.testing.assert_allclose(diverged.get_colors()[:, :3], [to_rgb(DIVERGED)])
    assert [segment[-1][1] > 1 for segment in diverged.get_segments()] == [True] * 3
    # Low losses are drawn last, above the others, and darkest.
    ends = [segment[-1][1] for segment in kept.get_segments()]
    assert ends == sorted(ends, reverse=True)
    np.testing.assert_allclose(kept.get_colors()[[0, -1]], [SHADES(1.0), SHADES(0.0)])
    assert chosen.get_linewidths() > kept.get_linewidths()
    (bold,) = chosen.get_segments()
    assert bold[0][1] == pytest.approx(1 + math.log10(rows[7][LR]) / 4)
    assert ticks(panel(figure)) == [
        "training.\nlr",
        "training.\nweight_decay",
        "model.\nhidden",
        "x.\nshuffle",
        "validation\nloss",
    ]
    labels = texts(panel(figure))
    # The scale of lr is logarithmic. That of weight_decay, which is uniformly distributed, is linear.
    assert labels[:5] == ["0.0001", "0.001", "0.01", "0.1", "1"]
    assert {"0", "0.02", "0.1", "512,256,128,64", "true", "false", "diverged"} <= set(labels)


def test_members_with_one_value_do_not_hide_each_other() -> None:
    rows = [{HIDDEN: hidden, SEED: seed, "x": x} for hidden in ("64", "8,8") for seed in (0, 1) for x in ("a", "b")]
    losses = [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    _, kept, _ = lines(sweep.figure([HIDDEN, SEED, "x"], rows, losses, chosen=7))
    heights = np.array(kept.get_segments())[:, :3, 1]
    for column in heights.T:
        assert len(np.unique(column)) == 8
    # 8,8 comes first and holds the four lowest losses, the lowest at the bottom.
    assert heights[:, 0].tolist() == sorted(heights[:4, 0], reverse=True) + sorted(heights[4:, 0], reverse=True)
    assert max(heights[4:, 0]) < 0.5 < min(heights[:4, 0])


def test_scale_may_end_at_a_rounded_tick() -> None:
    """Use 0.3, which is smaller than matplotlib's tick 0.30000000000000004."""
    rows = [{LR: 0.3, DECAY: 1.0}, {LR: 0.6, DECAY: 2.0}]
    _, kept, _ = lines(sweep.figure([LR, DECAY], rows, [0.1, 0.2], 0))
    assert [segment[0][1] for segment in kept.get_segments()] == pytest.approx([1, 0])


def test_two_options_off_a_grid_are_parallel_coordinates() -> None:
    rows = [{LR: 0.1, SEED: 0}, {LR: 0.1, SEED: 1}, {LR: 0.2, SEED: 0}]
    assert lines(sweep.figure([LR, SEED], rows, [0.1, 0.2, 0.3], 0))


def test_longest_legend_fits_the_narrowest_figure(tmp_path: Path) -> None:
    rows: list[Row] = [{LR: lr, SEED: seed} for lr, seed in ((0.1, 3), (1e30, 3), (0.01, 3), (0.1, 4), (0.01, 4))]
    # Matplotlib warns, and so fails this test, if the legend leaves no room for the axes.
    assert sweep.picture([LR, SEED], rows, [1.0, None, 1.1, 0.9, 1.2], 3, tmp_path / "sweep.png").exists()


@pytest.mark.parametrize("count", [1, 3, 32, 400])
def test_labels_do_not_overlap_or_leave_the_figure(count: int) -> None:
    rows, losses = drawn_members(count, diverged=count // 10)
    chosen = count - 1
    figure = sweep.figure([LR, DECAY, HIDDEN, "x.shuffle"], rows, losses, chosen)
    figure.draw_without_rendering()
    names = [label.get_window_extent() for label in panel(figure).get_xticklabels()]
    labels = [text.get_window_extent() for text in panel(figure).texts]
    for box in [*names, *labels]:
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
    assert not any(one.overlaps(other) for one in names for other in [*names, *labels] if one is not other)


@pytest.mark.parametrize("losses", [[0.3, 0.3], [0.0, 0.0], [0.3, None], [-1.0, 2.0]])
def test_extreme_losses_are_drawn(losses: list[float | None], tmp_path: Path) -> None:
    for axes in ([LR], [LR, HIDDEN], [LR, HIDDEN, SEED]):
        rows: list[Row] = [{LR: lr, HIDDEN: "8", SEED: 3} for lr in (0.1, 0.1 + 1e-15)]
        path = sweep.picture(axes, rows, losses, 0, tmp_path / f"{len(axes)}.png")
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(2**24) or []) > 20


@pytest.mark.parametrize("axes", [[LR], [LR, DECAY], [LR, DECAY, HIDDEN]])
def test_same_members_give_the_same_bytes(axes: list[str], tmp_path: Path) -> None:
    rows, losses = drawn_members(8, diverged=1)
    first, second, other = tmp_path / "1.png", tmp_path / "2.png", tmp_path / "3.png"
    assert sweep.picture(axes, rows, losses, 2, first) == first
    sweep.picture(axes, rows, losses, 2, second)
    sweep.picture(axes, rows, losses, 3, other)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()
