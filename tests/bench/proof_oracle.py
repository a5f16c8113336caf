"""How much harm a mutant does: its answers for many rows and batch sizes beside those of the honest file.

The rows are not those of the proof: training and test rows, and rows made from them in other ways than the proof does.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.artifact import runtimes
from hallmark.tasks.ml.artifact.runtimes import Feeds, Predicted
from hallmark.tasks.ml.data import dataset_store
from tests.bench import blind_sides, rows

MOVED = 1e-4
"""Maximum difference of a probability. A mutant that exceeds it is harmful."""
ROWS = 400
"""Maximum number of training rows."""
BASES = 40
"""Number of test rows that are changed in each way."""
FEW = 64
"""Number of rows in the smallest batches."""
SIZES = {1: FEW, 7: FEW, runtimes.ROWS_AT_ONCE: None}
"""Batch sizes for every mutant, and the number of test rows for each."""
FURTHER_SIZES = (*blind_sides.BATCHES, *blind_sides.LARGE_BATCHES, *blind_sides.ODD_BATCHES, 1500)
"""Batch sizes for mutants that may depend on them. The rows are repeated as often as necessary."""
SPANS = (-8, -3, -1.5, -0.5, -0.2, -0.05, 1.05, 1.2, 1.5, 2.5, 4, 9)
"""Values of a column, in spans of its training range from its lower end. The proof asks up to -9 and 10."""
RARE = 0.05
"""Share of the rows of a family below which a proof that asks some fifty of them may miss a random defect."""


@dataclass(frozen=True)
class Harm:
    """The difference that a mutant makes."""

    moved: float
    """Largest difference in probability. Infinite for a NaN, another shape or a failed run."""
    flipped: int
    """Number of rows with another label."""
    share: float
    """Share of wrong rows in the family of rows (training rows, far values, gaps, ...) with the most of them."""

    @property
    def is_harmful(self) -> bool:
        return self.flipped > 0 or not self.moved <= MOVED


class Oracle:
    """The honest answers, computed once for all mutants of a file."""

    def __init__(self, file: Path, dataset: Dataset) -> None:
        """Predict all rows with an honest file."""
        self.usual, self._many = _usual(dataset), list(_changed(dataset))
        self._honest = list(self._answers(file, searched=True, batched=True))

    def harm(self, file: Path, *, searched: bool, batched: bool) -> Harm:
        """Compare a mutant with the honest file.

        Args:
            file: the mutant.
            searched: whether to ask changed rows too.
            batched: whether to ask further batch sizes after them.
        """
        moved, flipped, wrong, asked = 0.0, 0, Counter[str](), Counter[str]()
        try:
            for (family, honest), (_, found) in zip(
                self._honest, self._answers(file, searched=searched, batched=batched), strict=False
            ):
                if _form(honest) != _form(found) or not np.isfinite(found.probabilities).all():
                    return Harm(np.inf, 0, 1.0)
                apart = np.abs(honest.probabilities - found.probabilities).max(axis=1)
                other = honest.label != found.label
                moved, flipped = max(moved, float(apart.max())), max(flipped, int(other.sum()))
                wrong[family] += int((other | (apart > MOVED)).sum())
                asked[family] += len(other)
        except Exception:  # noqa: BLE001 - any error of onnxruntime
            return Harm(np.inf, 0, 1.0)
        return Harm(moved, flipped, max(wrong[family] / asked[family] for family in asked))

    def _answers(self, file: Path, *, searched: bool, batched: bool) -> Iterator[tuple[str, Predicted]]:
        """Yield the family and the answers of each part of the rows."""
        predict = runtimes.runner(runtimes.open_session(str(file)))
        for size, count in SIZES.items():
            few = {name: value[:count] for name, value in self.usual.items()}
            yield "test rows", runtimes.predict_in_batches(predict, few, size)
        if searched:
            for family, given in self._many:
                yield family, runtimes.predict_in_batches(predict, given, runtimes.ROWS_AT_ONCE)
        if searched and batched:
            count = len(next(iter(self.usual.values())))
            for size in FURTHER_SIZES:
                places = np.arange(size) % count
                batch = {name: value[places] for name, value in self.usual.items()}
                yield f"batches of {size}", runtimes.predict_in_batches(predict, batch, size)


def _form(answer: Predicted) -> list[object]:
    return [(values.shape, values.dtype) for values in (answer.label, answer.probabilities)]


def _usual(dataset: Dataset) -> Feeds:
    return _feeds(dataset, np.asarray(dataset_store.open_split(dataset, "test").x))


def _feeds(dataset: Dataset, x: NDArray[np.generic]) -> Feeds:
    return rows.feeds(dataset, x, dataset_store.category_values(dataset))


def _changed(dataset: Dataset) -> Iterator[tuple[str, Feeds]]:
    """Yield rows and the family that they are of."""
    x = np.asarray(dataset_store.open_split(dataset, "train").x)[:ROWS]
    yield "training rows", _feeds(dataset, x)
    bases = np.asarray(dataset_store.open_split(dataset, "test").x)[:BASES]
    if not dataset.columns:
        yield from (("images", {"image": images}) for images in _images(bases, int(dataset.largest or 0)))
        return
    lowest, highest = (bound.astype(np.float64) for bound in dataset_store.training_range(dataset))
    random = np.random.default_rng(5)
    kinds = dataset.kinds or ("numeric",) * len(dataset.columns)
    for place in range(len(dataset.columns)):
        if kinds[place] == "numeric":
            span = highest[place] - lowest[place] or 1.0
            whole = np.round(random.uniform(lowest[place], highest[place], BASES))
            values = [*(np.full(len(bases), lowest[place] + spans * span) for spans in SPANS), whole[: len(bases)]]
            values.append(np.full(len(bases), blind_sides.rare(lowest[place], highest[place])))
            yield from (("values", _feeds(dataset, _put(bases, place, value))) for value in values)
    if dataset.is_table:
        for chosen in _gaps(len(dataset.columns)):
            yield "gaps", _feeds(dataset, _put(bases, list(chosen), np.nan))
        for column in dataset_store.columns_of(dataset):
            if column.kind == "categorical":
                yield from _texts(column.name, column.values, _feeds(dataset, bases))


def _put(bases: NDArray[np.generic], place: int | list[int], values: object) -> NDArray[np.generic]:
    changed = bases.copy()
    changed[:, place] = values
    return changed


def _gaps(columns: int) -> Iterator[tuple[int, ...]]:
    for count in (1, 2, 3):
        yield from itertools.islice(itertools.combinations(range(columns), count), 200)


def _texts(name: str, values: tuple[str, ...], given: Feeds) -> Iterator[tuple[str, Feeds]]:
    """Yield test rows with each text like a known one, and with a rare text."""
    yield "texts", given | {name: np.full(given[name].shape, blind_sides.RARE_TEXT, dtype=object)}
    for spell in blind_sides.SPELLINGS.values():
        for text in {other for value in values for other in spell(value) if other and other not in values}:
            yield "texts", given | {name: np.full(given[name].shape, text, dtype=object)}


def _images(bases: NDArray[np.generic], largest: int) -> Iterator[NDArray[np.generic]]:
    """Yield images made faint, negative, or plain at their borders."""
    yield (largest - bases.astype(np.int64)).astype(bases.dtype)
    for by in (2, 5, 12):
        yield from (bases // by, largest - bases // by)
    height, width = bases.shape[1:3]
    for value in (0, largest // 2, largest):
        for tall, wide in ((1, 1), (0, 1), (1, 0), (0, width // 3), (height // 3, 0)):
            framed = np.full_like(bases, value)
            inner = (slice(None), slice(tall, height - tall), slice(wide, width - wide))
            framed[inner] = bases[inner]
            yield framed
