"""The card of a model: what a person wants to know before using it, as one page that opens offline.

What is said of the test split is what the shipped file says of it, which was asked again for this page.
"""

import io
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.digests import SHOWN
from hallmark.tasks.common.records import SPLITS, Dataset, Outcome
from hallmark.tasks.ml.artifact.certificate import Certificate, Input
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data.dataset_store import open_split, unlabelled
from hallmark.tasks.ml.evaluation import intervals as bootstrap
from hallmark.tasks.ml.evaluation.intervals import Interval
from hallmark.tasks.ml.reports import charts, code_snippets, pages
from hallmark.tasks.ml.reports.pages import (
    Charts,
    Code,
    Facts,
    File,
    Folded,
    Gallery,
    Image,
    Matrix,
    Part,
    Picture,
    Section,
    Table,
    Words,
)
from hallmark.tasks.ml.reports.run_comparison.differences import row_losses
from hallmark.tasks.ml.reports.run_comparison.tables import number
from hallmark.tasks.ml.reports.test_rows import Tested, ask
from hallmark.tasks.ml.training import history

MISTAKES = 24
"""So many images that it got wrong are shown, or rows."""
COLUMNS = 8
"""So many columns of such a row are shown."""
VALUES = 8
"""So many values of a column of text are shown."""
MATRIX = 25
"""Of more classes the confusions are listed, those that occur most often first."""
CONFUSIONS = 25
EXAMPLE = 0
"""Which of the golden rows is put to the file in the lines to copy."""

MEANINGS = {
    "accuracy": "share of rows that are right",
    "log_loss": "log-loss of the probabilities: 0 is best, {even:.4f} is guessing evenly",
    "loss": "mean of the loss that was trained on",
    "f1_macro": "mean over classes of the harmonic mean of precision and recall",
    "roc_auc_macro": "mean over classes of the area under the ROC curve",
    "roc_auc_micro": "area under the ROC curve of all classes together",
    "brier": "squared error of the probabilities: 0 is best, 2 is worst",
    "calibration_error": "mean gap between how sure it is and how often it is right",
}
"""In the order in which they are shown."""

LABELS = {"train": "training", "val": "validation", "test": "test"}


def build(experiment: Experiment, outcome: Outcome, written: datetime) -> str:
    """Lay out the card.

    Args:
        experiment: what was asked for.
        outcome: what came of it.
        written: when; it stands in the card, and nowhere in the shipped file.

    Raises:
        DamagedError: the shipped file's seal is broken.
    """
    tested = ask(outcome)
    intervals = _intervals(tested)
    found = (
        _about(experiment, outcome, tested),
        _data(outcome.dataset, tested.said),
        _metrics(outcome, tested, intervals),
        _curves(outcome),
        _classes(tested),
        _mistakes(tested),
        _diagnosis(outcome),
        _proof(tested.said),
        _use(outcome, tested.said),
    )
    version = outcome.model_version
    champion = ", champion when this was written" if version.is_champion else ""
    day = f"{written.astimezone(UTC):%d %B %Y}".lstrip("0")
    lead = f"Version {version.version}{champion}. Run {outcome.run.id[:8]}, {day}."
    return pages.sections(experiment.name, lead, _figures(tested, intervals["accuracy"]), found)


def _figures(tested: Tested, accuracy: Interval | None) -> list[pages.Figure]:
    proof = tested.said.proof
    right, rows = int(tested.right.sum()), len(tested.y)
    return [
        ("Test accuracy", _percent(right / rows), _between(accuracy, _percent)),
        ("Wrong", f"{rows - right:,}", f"of {rows:,} test rows"),
        ("Proof", str(proof["verdict"]), f"largest error {proof['largest_error']:.1e}"),
        (
            "Classes",
            f"{len(tested.said.classes):,}",
            "images" if code_snippets.takes_images(tested.said) else "columns",
        ),
    ]


def _about(experiment: Experiment, outcome: Outcome, tested: Tested) -> Section:
    version, run = outcome.model_version, outcome.run
    rows = (
        ("model", f"{version.name} version {version.version}"),
        ("file", f"{outcome.artifact.path.name}, {outcome.artifact.path.stat().st_size:,} bytes"),
        ("sha256", outcome.artifact.sha256),
        ("takes", _takes(tested.said)),
        ("gives", f"label (int64) and probabilities (float32) of {len(tested.said.classes)} classes"),
        ("network", _network(experiment)),
        ("run", f"{run.name}, {run.id}"),
        ("experiment", experiment.digest),
        ("dataset", outcome.dataset.digest),
    )
    options = tuple((name, str(value)) for name, value in experiment.flat().items())
    told = Table("All options", "", ("option", "value"), options, has_numbers=False)
    return Section("about", "What it is", (Facts(rows), Folded(told)))


def _takes(said: Certificate) -> str:
    if code_snippets.takes_images(said):
        return f"{said.inputs[0].name}: {said.inputs[0].description}"
    kinds = " and ".join(sorted({one.dtype for one in said.inputs}))
    return f"{len(said.inputs)} column{'s' * (len(said.inputs) > 1)}, {kinds}, raw: scaling is inside"


def _network(experiment: Experiment) -> str:
    told = experiment.model.model_dump(mode="json")
    return ", ".join(
        [told.pop("kind"), *(f"{name} {value}" for name, value in told.items() if value not in (None, []))]
    )


def _data(dataset: Dataset, said: Certificate) -> Section:
    used = [split for split in SPLITS if dataset.rows[split]]
    counts = {split: np.bincount(open_split(dataset, split).y, minlength=len(dataset.classes)) for split in used}
    rows = [
        (name, *(f"{counts[split][index]:,} ({counts[split][index] / dataset.rows[split]:.1%})" for split in used))
        for index, name in enumerate(dataset.classes)
    ]
    rows.append(("all", *(f"{dataset.rows[split]:,}" for split in used)))
    shares = Table("Rows by split, and their share", "", ("class", *used), tuple(rows), has_numbers=True)
    left_out = unlabelled(dataset)
    more = f" {left_out:,} row{'s' * (left_out != 1)} without a label were left out." if left_out else ""
    lead = Words(f"Dataset {dataset.name}, digest {dataset.digest[:SHOWN]}.{more}")
    return Section("data", "The data", (lead, shares, _columns(said)))


def _columns(said: Certificate) -> Table | Folded:
    rows = tuple((one.name, one.kind or one.dtype, _range(one), one.description) for one in said.inputs)
    remark = "Beyond what training has seen, a prediction is a guess."
    headings = ("input", "type", "in training", "what it is")
    table = Table("What it takes", remark, headings, rows, has_numbers=False)
    return Folded(table) if len(rows) > MATRIX else table


def _range(one: Input) -> str:
    if one.lowest is not None and one.highest is not None:
        return f"{one.lowest:.6g} to {one.highest:.6g}"
    more = f" and {len(one.values) - VALUES:,} more" if len(one.values) > VALUES else ""
    return ", ".join(one.values[:VALUES]) + more


def _metrics(outcome: Outcome, tested: Tested, intervals: dict[str, Interval | None]) -> Section:
    found = outcome.evaluation.metrics
    even = math.log(len(tested.said.classes))
    rows = tuple(
        (
            name,
            number(found[f"test/{name}"]),
            _between(intervals[name], number) if name in intervals else "",
            meaning.format(even=even),
        )
        for name, meaning in MEANINGS.items()
        if f"test/{name}" in found
    )
    remark = (
        "95 % of such intervals hold what all rows there could be would give, and more of calibration_error's. They "
        "come from resampling the rows, or, for an accuracy of 0 or 1, from Clopper and Pearson. " + _without(tested)
    )
    headings = ("metric", "value", "95 % interval", "what it is")
    table = Table(f"On {len(tested.y):,} test rows", remark, headings, rows, has_numbers=False)
    return Section("metrics", "Test metrics", (table,))


def _without(tested: Tested) -> str:
    if tested.probabilities.size > bootstrap.LARGEST:
        return "So many rows and classes leave f1_macro, the areas and calibration_error without."
    return "What resampling does not change has none, nor has the loss that was trained on: the file does not know it."


def _intervals(tested: Tested) -> dict[str, Interval | None]:
    p = tested.probabilities.astype(np.float64)
    squares = ((p - np.eye(p.shape[1])[tested.y]) ** 2).sum(axis=1)
    return {
        "accuracy": bootstrap.share(tested.right),
        "log_loss": bootstrap.mean(row_losses(tested.y, tested.probabilities)),
        "brier": bootstrap.mean(squares),
        **bootstrap.metrics(tested.y, tested.probabilities),
    }


def _curves(outcome: Outcome) -> Section:
    fit = outcome.fit
    recorded = history.curves(fit.history)
    kept = fit.best_epoch if fit.best_epoch < fit.epochs else None
    pictures = []
    for metric in ("loss", "accuracy"):
        lines = {LABELS[split]: recorded[f"{split}/{metric}"] for split in LABELS if f"{split}/{metric}" in recorded}
        pictures.append(Picture(metric.capitalize(), charts.curves(lines, kept)))
    lead = f"{fit.epochs:,} epoch{'s' * (fit.epochs > 1)} on {fit.device}; it stopped because: {fit.stopped}."
    return Section("curves", "Learning curves", (Words(lead), Charts(tuple(pictures))))


def _classes(tested: Tested) -> Section:
    counts, classes = tested.confusion(), tested.said.classes
    rows = tuple(_class(name, index, counts) for index, name in enumerate(classes))
    remark = (
        "Precision: of the rows that it gave this class, the share that are of it. Recall: of the rows of this class, "
        "the share that it found. Intervals: Clopper and Pearson's."
    )
    headings = ("class", "rows", "precision", "95 % interval", "recall", "95 % interval", "f1")
    table = Table("Each class", remark, headings, rows, has_numbers=True)
    return Section("classes", "The classes", (table, _confusion(counts, classes)))


def _class(name: str, index: int, counts: NDArray[np.int64]) -> tuple[str, ...]:
    right, given, rows = (int(each) for each in (counts[index, index], counts[:, index].sum(), counts[index].sum()))
    f1 = 2 * right / max(given + rows, 1)
    return (name, f"{rows:,}", *_share(right, given), *_share(right, rows), number(f1))


def _share(right: int, rows: int) -> tuple[str, str]:
    return (number(right / rows), _between(bootstrap.exact(right, rows), number)) if rows else ("none", "")


def _confusion(counts: NDArray[np.int64], classes: tuple[str, ...]) -> Part:
    if len(classes) <= MATRIX:
        rows = tuple(tuple(map(int, row)) for row in counts)
        remark = "Right ones are shaded by their share of the class, wrong ones beside the most frequent mistake."
        return Matrix("Test rows: true class down, predicted class across", remark, classes, rows)
    wrong = counts * (1 - np.eye(len(classes), dtype=np.int64))
    most = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [(int(place // len(classes)), int(place % len(classes))) for place in most]
    listed = tuple(
        (classes[true], classes[said], f"{wrong[true, said]:,}") for true, said in pairs if wrong[true, said]
    )
    return Table("Most frequent confusions", "", ("true class", "predicted", "rows"), listed, has_numbers=False)


def _mistakes(tested: Tested) -> Section:
    worst, rows = tested.worst, len(tested.y)
    if not worst:
        return Section("mistakes", "Worst mistakes", (Words(f"None: all {rows:,} test rows are right."),))
    shown = worst[:MISTAKES]
    is_are = "is" if len(worst) == 1 else "are"
    more = f" Here are the {len(shown)} of which it was most sure." if len(shown) < len(worst) else ""
    lead = f"{len(worst):,} of {rows:,} test rows {is_are} wrong.{more}"
    part = _wrong_images(tested, shown) if code_snippets.takes_images(tested.said) else _wrong_rows(tested, shown)
    return Section("mistakes", "Worst mistakes", (Words(lead), part))


def _wrong_images(tested: Tested, rows: Sequence[int]) -> Gallery:
    one = tested.said.inputs[0]
    images = []
    for row in rows:
        said, sure, true = tested.verdict(row)
        alt = f"test row {row + 1}, of class {true}, taken for {said}"
        pixels = _visible(tested.feeds[one.name][row], one.highest or 255)
        images.append(Image(png(pixels), alt, f"said {said}, {_percent(sure)}; is {true}"))
    return Gallery(tuple(images))


def _wrong_rows(tested: Tested, rows: Sequence[int]) -> Table:
    shown = tested.said.inputs[:COLUMNS]
    more = len(tested.said.inputs) - len(shown)
    cells = tuple(
        (str(row + 1), *_verdict(tested, row), *(_cell(tested.feeds[one.name][row, 0]) for one in shown))
        for row in rows
    )
    headings = ("test row", "said", "how sure", "is", *(one.name for one in shown))
    remark = f"{more:,} more column{'s' * (more > 1)} not shown." if more else ""
    return Table("Rows that it got wrong", remark, headings, cells, has_numbers=False)


def _cell(value: Any) -> str:  # noqa: ANN401 - a cell holds what it holds
    if value is None or value == "" or (isinstance(value, np.floating) and np.isnan(value)):
        return "missing"
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value)


def _diagnosis(outcome: Outcome) -> Section:
    if not outcome.findings:
        return Section("diagnosis", "Diagnosis", (Words("Nothing was found to be wrong with the experiment."),))
    items = tuple((found.code, found.sentence, found.remedy) for found in outcome.findings)
    lead = Words("What is wrong with the experiment, or may be, and what helps:")
    return Section("diagnosis", "Diagnosis", (lead, pages.Points(items)))


def _proof(said: Certificate) -> Section:
    proof = said.proof
    lead = (
        "Before the file was shipped, runtimes were asked about the same rows as torch in float64. Nothing that failed "
        "would have been registered."
    )
    rows = (
        ("verdict", str(proof["verdict"])),
        (
            "test rows",
            f"{proof['rows']:,}, on each the same label" + f", but for {proof['ties']} ties" * bool(proof["ties"]),
        ),
        ("further rows", f"{proof['rows_made']:,} at the edges of what can come in, and noise"),
        ("in every way", f"{proof['rows_in_every_way']:,} rows"),
        ("largest error", f"{proof['largest_error']:.1e} of a probability; {proof['tolerance']:.1e} were allowed"),
        ("torch's own", f"{proof['own_error']:.1e}, in float32"),
        ("ways", "; ".join(proof["ways"])),
    )
    return Section("proof", "The proof", (Words(lead), Facts(rows)))


def _use(outcome: Outcome, said: Certificate) -> Section:
    file, version = outcome.artifact.path.name, outcome.model_version
    golden = said.golden
    answer = said.classes[golden.label[EXAMPLE]]
    told = f"{answer}, with {_percent(max(golden.probabilities[EXAMPLE]))}"
    lead = Words(f"The file needs onnxruntime alone. These lines ask about a test row; the answer is {told}.")
    python, javascript = (make(said, file, EXAMPLE) for make in (code_snippets.python, code_snippets.javascript))
    where = "in a browser" if code_snippets.takes_images(said) else "onnxruntime-node, or onnxruntime-web in a browser"
    given = code_snippets.picture_name(file) if code_snippets.takes_images(said) else "row.csv"
    shell = (
        f"hallmark predict {file} {given}\n"
        f"hallmark predict models:/{version.name}/{version.version} {given}  # the same, from the registry\n"
        f"hallmark verify {file}  # sealed, and right on its golden rows?\n"
        f"sha256sum {file}  # {outcome.artifact.sha256}\n"
    )
    codes = Code("Python", python), Code(f"JavaScript: {where}", javascript), Code("Command line", shell)
    return Section("use", "How to use it", (lead, *_example(said, given), *codes))


def _example(said: Certificate, name: str) -> Iterator[Part]:
    """The row that is asked about."""
    if not code_snippets.takes_images(said):
        yield Code(name, code_snippets.table(said, EXAMPLE))
        return
    one, true = said.inputs[0], said.classes[said.golden.label[EXAMPLE]]
    pixels = np.array(said.golden.inputs[one.name][EXAMPLE], dtype=np.uint8)
    caption = f"{code_snippets.form(one)}, as the file takes it."
    yield File(name, Image(png(pixels), f"a test row, which the model takes for {true}", caption))


def png(pixels: NDArray[Any]) -> bytes:
    """A PNG file of `(H, W)` grey or `(H, W, 3)` colours, uint8, pixel by pixel."""
    from PIL import Image as Pictures

    file = io.BytesIO()
    Pictures.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)).save(file, format="png")
    return file.getvalue()


def _visible(pixels: NDArray[Any], highest: float) -> NDArray[Any]:
    """Lighter, where the largest value that training has seen is far from white."""
    return pixels if highest > 127 else np.clip(pixels * (255 / max(highest, 1)), 0, 255)


def _between(interval: Interval | None, show: Any) -> str:  # noqa: ANN401 - `number` or `_percent`
    return f"{show(interval.low)} to {show(interval.high)}" if interval else ""


def _verdict(tested: Tested, row: int) -> tuple[str, str, str]:
    said, sure, true = tested.verdict(row)
    return said, _percent(sure), true


def _percent(share: float) -> str:
    if share == 1 or share < 0.9995:
        return f"{share:.1%}"
    return f"{share:.3%}" if share < 0.999995 else "over 99.999%"
