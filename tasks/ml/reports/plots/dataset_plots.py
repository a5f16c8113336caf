"""Plot training rows: sample images, points of one or two features, histograms of more."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from hallmark.tasks.ml.reports.plots.style import (
    LINES,
    Floats,
    Labels,
    bin_edges,
    class_points,
    colour_of,
    greys,
    make_figure,
    marker_of,
    outside_legend,
    save,
)

HISTOGRAMS = 6
"""Maximum number of columns that are drawn."""
IMAGES = 10
"""Maximum number of classes that are drawn, and number of images of each."""


def sample_images(
    x: NDArray[np.uint8], y: Labels, classes: tuple[str, ...], path: Path, *, light: bool = False
) -> Path:
    """Draw the first images of each class, one class a row.

    Args:
        x: `(N, H, W)` or `(N, H, W, 3)`.
        y: `(N,)` class index.
        classes: class names.
        path: PNG file to write.
        light: whether high values of grey images are light, as in photos. By default they are dark, as ink is.
    """
    drawn = range(min(len(classes), IMAGES))
    height, width, *colours = x.shape[1:]
    size = 5.2, min(4.6, 0.9 + 4.4 * len(drawn) / IMAGES * height / width)

    def draw(axes: Axes) -> None:
        sheet = np.full((height * len(drawn), width * IMAGES, *colours), 255 if light else 0, dtype=x.dtype)
        for row in drawn:
            for column, image in enumerate(x[np.flatnonzero(y == row)[:IMAGES]]):
                sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
        axes.imshow(sheet, cmap=greys(light=light), interpolation="nearest")
        axes.set_yticks([height * (row + 0.5) for row in drawn], [classes[row] for row in drawn])
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.set_title("Training rows of each class")

    return save(make_figure(draw, size=size), path)


def scatter(x: Floats, y: Labels, columns: tuple[str, ...], classes: tuple[str, ...], path: Path) -> Path:
    """Draw rows of two features, coloured by class.

    Args:
        x: `(N, 2)`.
        y: `(N,)` class index.
        columns: names of the two features.
        classes: class names.
        path: PNG file to write.
    """

    def draw(axes: Axes) -> None:
        class_points(axes, x, y, classes)
        axes.set(xlabel=columns[0], ylabel=columns[1], title="Training rows")
        outside_legend(axes, "class")

    return save(make_figure(draw, size=(6.6, 4.6)), path)


def points(x: Floats, y: Labels, column: str, classes: tuple[str, ...], path: Path) -> Path:
    """Draw rows of one feature, each class on a line of its own.

    Args:
        x: `(N, 1)`.
        y: `(N,)` class index.
        column: name of the feature.
        classes: class names.
        path: PNG file to write.
    """

    def draw(axes: Axes) -> None:
        for index in range(len(classes)):
            axes.scatter(x[y == index, 0], y[y == index], color=colour_of(index), marker=marker_of(index), alpha=0.8)
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel=column, ylabel="class", title="Training rows", ylim=(-0.5, len(classes) - 0.5))

    return save(make_figure(draw), path)


def histograms(x: Floats, y: Labels, columns: tuple[str, ...], classes: tuple[str, ...], path: Path) -> Path:
    """Draw the distribution of each of the first columns, by class.

    Args:
        x: `(N, F)`.
        y: `(N,)` class index.
        columns: names of the F columns; the first `HISTOGRAMS` are drawn.
        classes: class names.
        path: PNG file to write.
    """
    drawn = columns[:HISTOGRAMS]

    def draw(*axes: Axes) -> None:
        for index, (name, panel) in enumerate(zip(drawn, axes, strict=False)):
            edges = bin_edges(x[:, index])
            for label in range(len(classes)):
                values = x[y == label, index]
                panel.hist(values, bins=edges, histtype="stepfilled", color=colour_of(label), alpha=0.3)
                panel.hist(
                    values,
                    bins=edges,
                    histtype="step",
                    color=colour_of(label),
                    linewidth=2,
                    linestyle=LINES[label % len(LINES)],
                    label=classes[label],
                )
            panel.set(xlabel=name, ylabel="training rows" if index % 2 == 0 else "")
        for panel in axes[len(drawn) :]:
            panel.set_visible(False)
        axes[0].legend(fontsize=9, loc="upper right")

    return save(make_figure(draw, rows=(len(drawn) + 1) // 2, columns=2, size=(4.4, 2.6)), path)
