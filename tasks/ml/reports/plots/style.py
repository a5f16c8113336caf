"""The look that all plots share: colours, markers, axes, text and PNG files."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hallmark.tasks.common.errors import one_line
from hallmark.tasks.common.files import whole_file

logger = logging.getLogger(__name__)

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The palette of Okabe and Ito, safe for colour-blind readers (https://jfly.uni-koeln.de/color/)."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":", "-.")
"""Used together with colours, so that classes can also be distinguished in greyscale."""

Floats = NDArray[np.floating]
Labels = NDArray[np.int64]

NAMED = 16
"""Maximum number of classes in a legend. Further classes are drawn without an entry."""
LONGEST = 40
"""Maximum length of a name in characters. Longer names are truncated."""


def colour_of(index: int) -> str:
    """Return the colour of a class by its index."""
    return COLOURS[index % len(COLOURS)]


def marker_of(index: int) -> str:
    """Return the marker of a class by its index."""
    # Shift the markers when the colours repeat, so that no two classes share both.
    return MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]


def greys(*, light: bool) -> str:
    """Return the colour map of grey images: `light` if high values are light, as in photos; else they are ink."""
    return "gray" if light else "gray_r"


def plain_text(name: str, longest: int = LONGEST) -> str:
    """Return text that matplotlib draws literally: no formulas, no entry hidden from a legend, truncated if long."""
    name = name if len(name) <= longest else f"{name[: longest - 1]}…"
    name = " ".join(name.split())
    # matplotlib omits labels that start with an underscore from legends. A leading blank is not visible.
    return (f" {name}" if name.startswith("_") else name).replace("$", r"\$")


def bin_edges(values: Floats, bins: int = 20) -> list[float]:
    """Return the edges of equal bins over the range of the values, as float64.

    Unlike NumPy's, they exist for any finite values: far from 0, a range may be too narrow for the bins.
    """
    low, high = float(values.min()), float(values.max())
    if not high - low > bins * np.spacing(max(abs(low), abs(high))):
        pad = max(0.5, 1e-3 * abs(low))
        low, high = low - pad, high + pad
    return [float(edge) for edge in np.linspace(low, high, bins + 1)]


def class_points(axes: Axes, x: Floats, y: Labels, classes: tuple[str, ...]) -> None:
    """Draw the rows of two features, `(N, 2)`, with a colour and a marker for each class."""
    for index, name in enumerate(classes):
        rows = x[y == index]
        axes.scatter(
            rows[:, 0], rows[:, 1], color=colour_of(index), marker=marker_of(index), s=16, alpha=0.8, label=name
        )


def outside_legend(axes: Axes, title: str | None = None) -> None:
    """Draw the legend to the right of the axes."""
    # Outside, because matplotlib takes seconds to find the best place among thousands of points.
    handles, labels = axes.get_legend_handles_labels()
    corner = (1.0, 1.0)
    axes.legend(handles[:NAMED], labels[:NAMED], title=title, loc="upper left", bbox_to_anchor=corner, frameon=False)


def make_figure(
    draw: Callable[..., None],
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] | None = None,
    heights: tuple[float, ...] | None = None,
    title: str | None = None,
) -> Figure:
    """Make a figure without pyplot's global state.

    A picture must not fail a run: if it cannot be drawn, a warning is logged, and the figure holds the reason instead.

    Args:
        draw: called with `rows * columns` axes.
        rows: number of rows of axes.
        columns: number of columns of axes.
        size: width and height of each of the axes, in inches. Default: 5.2 wide, and 4.6 high for all rows together.
        heights: relative heights of the rows.
        title: title of the whole figure.
    """
    width, height = (size[0] * columns, size[1] * rows) if size else (5.2 * columns, 4.6)
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=heights).ravel()
    for each in axes:
        each.grid(visible=True, alpha=0.25)
        each.spines[["top", "right"]].set_visible(False)
    try:
        draw(*axes)
    except Exception as error:  # noqa: BLE001 - the run goes on
        return _failed(error, (width, height))
    figure.suptitle(title or "")
    return figure


def _failed(error: Exception, size: tuple[float, float]) -> Figure:
    """Log why a figure cannot be drawn, and return a figure that says so."""
    logger.warning("a picture cannot be drawn: %s", one_line(error))
    figure = Figure(figsize=size, dpi=120)
    figure.text(0.02, 0.5, plain_text(f"This picture cannot be drawn: {one_line(error)}", 200), wrap=True)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG file atomically. The same figure gives the same bytes."""
    with whole_file(path) as temporary, warnings.catch_warnings():
        # Names can be in any script. A character that is in no font is drawn as a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        try:
            if engine := figure.get_layout_engine():
                # Lay out once: savefig would prepare the whole figure a second time only to lay it out.
                engine.execute(figure)
                figure.set_layout_engine(None)
            _write(figure, temporary)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - see `make_figure`
            _write(_failed(error, tuple(figure.get_size_inches())), temporary)
    return path


def _write(figure: Figure, path: Path) -> None:
    # Leave the software version out of the file.
    figure.savefig(path, metadata={"Software": None})
