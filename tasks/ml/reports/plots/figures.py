"""Pictures of a run, in one style, readable at the size the MLflow UI shows them."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hallmark.tasks.common.files import whole_file
from hallmark.tasks.ml.evaluation.metrics import Bins, Curve

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette: told apart by colour-blind eyes (https://jfly.uni-koeln.de/color/)."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":", "-.")
"""Beside colours: classes are told apart in grey too."""

SPLITS = (("train", "training", COLOURS[0]), ("val", "validation", COLOURS[1]), ("test", "test", COLOURS[2]))

Curves = dict[str, tuple[list[int], list[float]]]
Floats = NDArray[np.floating]
Labels = NDArray[np.int64]

HISTOGRAMS = 6
"""So many columns of a table are drawn."""
IMAGES = 10
"""So many classes of images are drawn, and so many images of each."""
MISTAKES = 24
NAMED = 16
"""So many classes a legend names; of more, the others are drawn all the same."""
LONGEST = 40
"""A name of more characters is cut."""


def learning_curves(curves: Curves, path: Path) -> Path:
    """Draw loss and accuracy by epoch, of every split that was measured, in one picture."""

    def draw(loss: Axes, accuracy: Axes) -> None:
        for axes, metric in ((loss, "loss"), (accuracy, "accuracy")):
            for split, label, colour in SPLITS:
                if f"{split}/{metric}" in curves:
                    # One epoch is a point, not a line.
                    marker = "o" if len(curves[f"{split}/{metric}"][0]) == 1 else None
                    axes.plot(*curves[f"{split}/{metric}"], label=label, color=colour, marker=marker)
            axes.set(xlabel="epoch", ylabel=metric)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend(loc="upper right" if metric == "loss" else "lower right")
        accuracy.set_ylim(top=1.01)

    return write(drawn(draw, columns=2), path)


def confusion_matrix(confusion: Labels, classes: tuple[str, ...], path: Path) -> Path:
    """Draw counts, true class by predicted class, shaded by the share of the true class."""

    def draw(axes: Axes) -> None:
        share = confusion / confusion.sum(axis=1, keepdims=True)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.argwhere(confusion):
            count = confusion[row, column]
            colour = "white" if share[row, column] > 0.5 else "black"
            size = 8 if len(str(count)) > 3 and len(classes) > 8 else 10
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)
        ticks = range(len(classes))
        turned = max(map(len, classes)) > 3
        axes.set_xticks(ticks, classes, rotation=30 if turned else 0, ha="right" if turned else "center")
        axes.set_yticks(ticks, classes)
        axes.set(xlabel="predicted", ylabel="true", title="Rows of the test split")
        axes.grid(visible=False)

    return write(drawn(draw), path)


def roc(curves: dict[str, Curve], path: Path) -> Path:
    """Draw the ROC curve of each class against the rest and the micro average."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
        for index, (name, curve) in enumerate(curves.items()):
            is_average = name == "micro"
            axes.plot(
                curve.false_positive_rate,
                curve.true_positive_rate,
                label=f"{'micro average' if is_average else shown(name)}  {curve.auc:.3f}",
                color="black" if is_average else COLOURS[index % (len(COLOURS) - 1)],
                # Beyond the palette's six colours the same ones come back dashed.
                linestyle="--" if index >= len(COLOURS) - 1 or is_average else "-",
                linewidth=2.5 if is_average else 1.5,
            )
        axes.set(
            xlabel="false positive rate",
            ylabel="true positive rate",
            aspect="equal",
            title="ROC on the test split",
        )
        handles, labels = axes.get_legend_handles_labels()
        named = [*handles[: NAMED - 1], handles[-1]], [*labels[: NAMED - 1], labels[-1]]  # the average comes last
        axes.legend(*named, title="area under the curve", fontsize=9, loc="lower right")

    return write(drawn(draw), path)


def reliability(bins: Bins, path: Path) -> Path:
    """Draw accuracy against confidence, and below it how many rows each bin of confidence holds."""

    def draw(axes: Axes, below: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1, label="perfectly calibrated")
        held = bins.rows > 0
        axes.plot(bins.confidence[held], bins.accuracy[held], color=COLOURS[0], marker="o", label="test split")
        axes.set(ylabel="accuracy", xlim=(0, 1), ylim=(-0.02, 1.02), title="Is it as sure as it is right?")
        axes.legend(loc="upper left")
        width = 1 / len(bins.rows)
        below.bar((np.arange(len(bins.rows)) + 0.5) * width, bins.rows, width=width * 0.9, color=COLOURS[5])
        below.set(xlabel="confidence (largest probability)", ylabel="rows", xlim=(0, 1))

    return write(drawn(draw, rows=2, heights=(3, 1)), path)


def sample_images(
    x: NDArray[np.uint8], y: Labels, classes: tuple[str, ...], path: Path, *, light: bool = False
) -> Path:
    """Draw the first images of each class, a class a row.

    Args:
        x: `(N, H, W)` or `(N, H, W, 3)`.
        y: `(N,)` class index.
        classes: the names.
        path: where the picture appears.
        light: whether high values of grey images are light, as of photos, and not ink on paper, as of digits.
    """
    shown = range(min(len(classes), IMAGES))
    height, width, *colours = x.shape[1:]
    size = 5.2, min(4.6, 0.9 + 4.4 * len(shown) / IMAGES * height / width)

    def draw(axes: Axes) -> None:
        sheet = np.full((height * len(shown), width * IMAGES, *colours), 255 if light else 0, dtype=x.dtype)
        for row in shown:
            for column, image in enumerate(x[np.flatnonzero(y == row)[:IMAGES]]):
                sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
        axes.imshow(sheet, cmap=_shades(light), interpolation="nearest")
        axes.set_yticks([height * (row + 0.5) for row in shown], [classes[row] for row in shown])
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.set_title("Training rows of each class")

    return write(drawn(draw, size=size), path)


def scatter(x: Floats, y: Labels, columns: tuple[str, ...], classes: tuple[str, ...], path: Path) -> Path:
    """Draw rows of two features by class."""

    def draw(axes: Axes) -> None:
        _points(axes, x, y, classes)
        axes.set(xlabel=columns[0], ylabel=columns[1], title="Training rows")
        _legend(axes, "class")

    return write(drawn(draw, size=(6.6, 4.6)), path)


def points(x: Floats, y: Labels, column: str, classes: tuple[str, ...], path: Path) -> Path:
    """Draw rows of one feature, each on the line of its class."""

    def draw(axes: Axes) -> None:
        for index in range(len(classes)):
            axes.scatter(x[y == index, 0], y[y == index], color=_colour(index), marker=_marker(index), alpha=0.8)
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel=column, ylabel="class", title="Training rows", ylim=(-0.5, len(classes) - 0.5))

    return write(drawn(draw), path)


def histograms(x: Floats, y: Labels, columns: tuple[str, ...], classes: tuple[str, ...], path: Path) -> Path:
    """Draw the distribution of each of the first columns by class."""
    shown = columns[:HISTOGRAMS]

    def draw(*axes: Axes) -> None:
        for index, (name, panel) in enumerate(zip(shown, axes, strict=False)):
            edges = np.histogram_bin_edges(x[:, index], bins=20).tolist()
            for label in range(len(classes)):
                values = x[y == label, index]
                panel.hist(values, bins=edges, color=_colour(label), alpha=0.3)
                panel.hist(
                    values,
                    bins=edges,
                    histtype="step",
                    color=_colour(label),
                    linewidth=2,
                    linestyle=LINES[label % len(LINES)],
                    label=classes[label],
                )
            panel.set(xlabel=name, ylabel="training rows" if index % 2 == 0 else "")
        for panel in axes[len(shown) :]:
            panel.set_visible(False)
        axes[0].legend(fontsize=9, loc="upper right")

    return write(drawn(draw, rows=(len(shown) + 1) // 2, columns=2, size=(4.4, 2.6)), path)


def decision_regions(
    probabilities: Callable[[Floats], Floats],
    x: Floats,
    y: Labels,
    columns: tuple[str, ...],
    classes: tuple[str, ...],
    path: Path,
) -> Path:
    """Draw which class a model of two features gives each place, and the test rows on it.

    Args:
        probabilities: `(N, 2) float32` to `(N, C)`.
        x: `(N, 2)` test rows.
        y: `(N,)` their classes.
        columns: the two names.
        classes: the C names.
        path: where the picture appears.
    """

    def draw(axes: Axes) -> None:
        low, high = x.min(axis=0), x.max(axis=0)
        margin = (high - low) * 0.08
        sides = [np.linspace(*ends, 300) for ends in zip(low - margin, high + margin, strict=True)]
        grid = np.stack(np.meshgrid(*sides), axis=-1).astype(np.float32)
        regions = probabilities(grid.reshape(-1, 2)).argmax(axis=1).reshape(grid.shape[:2])
        shades = ListedColormap([_colour(index) for index in range(len(classes))])
        axes.pcolormesh(*sides, regions, cmap=shades, vmin=-0.5, vmax=len(classes) - 0.5, alpha=0.22, linewidth=0)
        _points(axes, x, y, classes)
        axes.set(xlabel=columns[0], ylabel=columns[1], title="Regions of the model, rows of the test split")
        _legend(axes, "true class")
        axes.grid(visible=False)

    return write(drawn(draw, size=(6.6, 4.6)), path)


def fitted_curve(
    probabilities: Callable[[Floats], Floats],
    x: Floats,
    y: Labels,
    asked: Sequence[float],
    column: str,
    classes: tuple[str, ...],
    path: Path,
) -> Path:
    """Draw what a model of one feature says along it, and the test rows where it should say so.

    Args:
        probabilities: `(N, 1) float32` to `(N, C)`.
        x: `(N, 1)` test rows.
        y: `(N,)` their classes.
        asked: further places that are marked.
        column: the name.
        classes: the C names. Of two, only the second's probability is drawn.
        path: where the picture appears.
    """
    curves = range(len(classes)) if len(classes) > 2 else range(1, 2)

    def draw(axes: Axes) -> None:
        low, high = np.append(x, asked).min(), np.append(x, asked).max()
        margin = (high - low) * 0.05
        along = np.linspace(low - margin, high + margin, 400, dtype=np.float32)[:, None]
        said = probabilities(along)
        for index in curves:
            label = f"P(class {classes[index]})"
            axes.plot(along[:, 0], said[:, index], color=_colour(index), label=label)
        for index, name in enumerate(classes):
            rows = x[y == index, 0]
            height = np.full(len(rows), float(index in curves))
            label = f"test rows of class {name}"
            axes.scatter(rows, height, color=_colour(index), marker=_marker(index), s=16, alpha=0.6, label=label)
        if asked:
            axes.axvspan(x.min(), x.max(), color="grey", alpha=0.1, label="range of the rows")
            answers = probabilities(np.array(asked, dtype=np.float32)[:, None])
            answered = answers[:, list(curves)]
            axes.scatter(
                np.repeat(asked, len(curves)), answered, color="black", marker="*", s=90, zorder=3, label="asked"
            )
        axes.set(xlabel=column, ylabel="probability", ylim=(-0.05, 1.05), title="What the model says along x")
        _legend(axes)

    return write(drawn(draw, size=(6.6, 4.6)), path)


def mistakes(
    x: NDArray[np.uint8], y: Labels, probabilities: Floats, classes: tuple[str, ...], path: Path, *, light: bool = False
) -> Path:
    """Draw the images that the model got wrong while it was most confident, most confident first.

    Args:
        x: `(N, H, W)` or `(N, H, W, 3)` test rows.
        y: `(N,)` their classes.
        probabilities: `(N, C)`.
        classes: the C names.
        path: where the picture appears.
        light: as of `sample_images`.
    """
    label, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(label != y)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]

    def draw(*axes: Axes) -> None:
        for panel in axes:
            panel.axis("off")
        for panel, row in zip(axes, worst, strict=False):
            panel.imshow(x[row], cmap=_shades(light))
            said = f"{classes[label[row]]}? {confidence[row]:.0%}"
            panel.set_title(f"{said}\nis {classes[y[row]]}", fontsize=9)
        if not len(worst):
            axes[0].text(0, 0.5, f"none: all {len(y)} test rows are right", fontsize=11)

    title = "Most confident mistakes on the test split"
    return write(drawn(draw, rows=4, columns=MISTAKES // 4, size=(1.3, 1.55), title=title), path)


def shown(name: str, longest: int = LONGEST) -> str:
    """Any text as it is drawn: `$` begins no formula, `_` hides nothing from a legend, and what is long is cut."""
    name = name if len(name) <= longest else f"{name[: longest - 1]}…"
    name = " ".join(name.split())
    # matplotlib leaves out of a legend what begins with an underscore; a blank before it does not show.
    return (f" {name}" if name.startswith("_") else name).replace("$", r"\$")


def _points(axes: Axes, x: Floats, y: Labels, classes: tuple[str, ...]) -> None:
    for index, name in enumerate(classes):
        rows = x[y == index]
        axes.scatter(rows[:, 0], rows[:, 1], color=_colour(index), marker=_marker(index), s=16, alpha=0.8, label=name)


def _legend(axes: Axes, title: str | None = None) -> None:
    # Beside the picture: where it would hide least among thousands of points, takes seconds to find.
    handles, labels = axes.get_legend_handles_labels()
    corner = (1.0, 1.0)
    axes.legend(handles[:NAMED], labels[:NAMED], title=title, loc="upper left", bbox_to_anchor=corner, frameon=False)


def _shades(light: bool) -> str:  # noqa: FBT001 - what two functions are told by name
    return "gray" if light else "gray_r"


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _marker(index: int) -> str:
    # Shifted by one where the colours begin anew, so that no class looks like another.
    return MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]


def drawn(
    draw: Callable[..., None],
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] | None = None,
    heights: tuple[float, ...] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw on fresh axes, without pyplot's global state.

    Args:
        draw: given `rows * columns` axes.
        rows: of axes.
        columns: of axes.
        size: of each of the axes, width and height in inches; if not given, a row of axes is 4.6 high.
        heights: of the rows, relative to each other.
        title: of all axes together.
    """
    width, height = (size[0] * columns, size[1] * rows) if size else (5.2 * columns, 4.6)
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=heights).ravel()
    for each in axes:
        each.grid(visible=True, alpha=0.25)
        each.spines[["top", "right"]].set_visible(False)
    draw(*axes)
    figure.suptitle(title or "")
    return figure


def write(figure: Figure, path: Path) -> Path:
    """Write a PNG, whole or not at all."""
    with whole_file(path) as temporary, warnings.catch_warnings():
        # Names may be in any script; a letter that no font has shows as a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        # No software version and no date in the file: the same picture has the same bytes.
        figure.savefig(temporary, metadata={"Software": None})
    return path
