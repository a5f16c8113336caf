"""Rows of a proof that differ from the training rows: far values, gaps, text like a known one, faint images.

The same dataset gives the same rows.
"""

import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import MISSING, Column, Dataset
from hallmark.tasks.ml.data.dataset_store import as_stored, category_values, columns_of, open_split, training_range
from hallmark.tasks.ml.data.source_rows import RawRows
from hallmark.tasks.ml.data.tables.date_columns import date_parts

SPANS = (1.1, 2.0, 10.0)
"""Distances from one end of a column's training range, in spans of that range, towards and beyond the other end."""
MAX_GROUPS = 128
"""Maximum number of groups of columns whose values are changed at a time; up to so many columns change one by one."""
BESIDE = (0.0, 1 / 16, 0.5, 2.0)
"""Distances from a value of a wide column in steps of float32 at this value; 0 stands for the next float64."""
DAYS = (
    *("1600-01-01", "1900-02-28", "1900-03-01", "1970-01-01", "2000-02-29", "2000-03-01", "2023-03-01", "2024-01-01"),
    *("2024-02-29", "2024-03-01", "2024-12-31", "2025-01-01", "2038-01-19", "2100-02-28", "2100-03-01", "2400-02-29"),
)
"""Days that are asked of a date, from the second before them to their second hour."""
MONTHS = 12
"""Maximum number of months whose first day is asked, too, if it is in the training range."""
MAX_GAPS = 512
"""Maximum number of rows with two or three missing values."""
MAX_NEIGHBOURS = 256
"""Maximum number of rows with text like a known one."""
BASES = 16
"""Number of test rows that are changed."""
IMAGES = 4
"""Number of test images that are changed."""

_Named = tuple[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class FurtherRows:
    """Changed test rows."""

    x: RawRows
    """`(N, F) float32` (float64 if a column is wide) or images; far rows first."""
    names: tuple[str, ...]
    far: int
    """Number of rows with values beyond the training range, where float32 itself is less exact."""


def further_rows(dataset: Dataset) -> FurtherRows:
    """Return changed test rows of a dataset."""
    test = open_split(dataset, "test").x
    bases = np.asarray(test[np.unique(np.linspace(0, len(test) - 1, BASES).astype(np.int64))])
    if not dataset.columns:
        named = list(_images(bases[:IMAGES], dataset))
        return FurtherRows(np.stack([row for _, row in named]).astype(np.uint8), tuple(name for name, _ in named), 0)
    far = [*_far(bases, dataset), *_calendar(bases, dataset, DAYS)]
    near = [*_gaps(bases, dataset), *_neighbours(bases, dataset)] if dataset.is_table else []
    near += [*_beside(bases, dataset), *_calendar(bases, dataset)]
    names, rows = zip(*far, *near, strict=True)
    return FurtherRows(as_stored(np.stack(rows), dataset), names, len(far))


def texts(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Return the values of each categorical column by name, then text like them; raw rows hold indices into these."""
    near = {column.name: neighbours(column) for column in columns_of(dataset) if column.kind == "categorical"}
    return {name: (*values, *near[name]) for name, values in category_values(dataset).items()}


def neighbours(column: Column) -> tuple[str, ...]:
    """Return text that differs from a known value of a column by case, blanks, accents or one letter."""
    kept = [column.values[code] for code in column.kept if code != MISSING]
    variants = zip(*(list(_variants(value)) for value in kept), strict=True)
    found = dict.fromkeys(itertools.chain.from_iterable(variants))
    return tuple(text for text in found if text and text not in column.values)[:MAX_NEIGHBOURS]


def _variants(value: str) -> Iterator[str]:
    """Yield the same number of variants for every value; some may be the value itself."""
    composed, apart = (unicodedata.normalize(form, value) for form in ("NFC", "NFD"))
    yield from (value.lower(), value.upper(), value.swapcase(), f" {value}", f"{value} ", composed, apart)
    yield "".join(letter for letter in apart if not unicodedata.combining(letter))
    yield from (value[:-1], value[1:], f"{value}s", f"{value[:-1]}{'b' if value.endswith('a') else 'a'}")
    yield unicodedata.normalize("NFC", f"{value[:1]}\u0301{value[1:]}")


def _far(bases: NDArray[np.generic], dataset: Dataset) -> Iterator[_Named]:
    """Change one numeric column at a time (or a group, if there are many), and all together."""
    numeric = [
        index
        for index, kind in enumerate(dataset.kinds or ["numeric"] * len(dataset.columns))
        if kind in ("numeric", "date")
    ]
    if not numeric:
        return
    lowest, highest = (bound.astype(np.float64) for bound in training_range(dataset))
    values = dict(_far_values(lowest, highest))
    groups = np.array_split(np.array(numeric), min(len(numeric), MAX_GROUPS))
    changes = [*groups, np.array(numeric)] if len(numeric) > 1 else groups
    for number, (group, (what, value)) in enumerate(itertools.product(changes, values.items())):
        row = bases[number % len(bases)].copy()
        row[group] = value[group]
        where = "all numeric columns" if len(group) > 1 else f"'{dataset.columns[group[0]]}'"
        yield f"{what} in {where}", row
    for place in numeric[:2]:
        row = bases[0].copy()
        row[numeric] = (lowest[place] + highest[place]) / 2
        yield f"the middle of '{dataset.columns[place]}' in all numeric columns", row


def _far_values(lowest: NDArray[np.float64], highest: NDArray[np.float64]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield a name and a value for each column, limited to what float32 holds."""
    limit = float(np.finfo(np.float32).max) / 16
    span = np.where(highest > lowest, highest - lowest, np.maximum(np.abs(highest), 1))
    for spans in SPANS:
        yield f"{spans:g} spans up", np.clip(lowest + spans * span, -limit, limit)
        yield f"{spans:g} spans down", np.clip(highest - spans * span, -limit, limit)
    whole = np.round((lowest + highest) / 2)
    whole = np.where(whole == 0, 1, whole)
    yield from (("a whole number", whole), ("a negative whole number", -whole))
    yield from (("zero", np.zeros_like(whole)), ("negative zero", -np.zeros_like(whole)))


def _gaps(bases: NDArray[np.generic], dataset: Dataset) -> Iterator[_Named]:
    """Leave out two and three values at a time: all pairs and triples, or some of them if there are many."""
    columns = range(len(dataset.columns))
    for number, places in enumerate(_chosen_gaps(columns)):
        row = bases[number % len(bases)].copy()
        row[list(places)] = np.nan
        yield f"no {', '.join(repr(dataset.columns[place]) for place in places)}", row


def _chosen_gaps(columns: Sequence[int]) -> Iterable[tuple[int, ...]]:
    count = len(columns)
    if count * (count - 1) // 2 + count * (count - 1) * (count - 2) // 6 <= MAX_GAPS:
        return [*itertools.combinations(columns, 2), *itertools.combinations(columns, 3)]
    random = np.random.default_rng(2)
    return [tuple(sorted(random.choice(count, 3, replace=False).tolist())) for _ in range(MAX_GAPS)]


def _neighbours(bases: NDArray[np.generic], dataset: Dataset) -> Iterator[_Named]:
    """Put text like a known one into every categorical column."""
    known = category_values(dataset)
    near = {name: all_texts[len(known[name]) :] for name, all_texts in texts(dataset).items()}
    places = {name: dataset.columns.index(name) for name in near}
    for number in range(max(map(len, near.values()), default=0)):
        row = bases[number % len(bases)].copy()
        given = {name: those[number] for name, those in near.items() if number < len(those)}
        for name in given:
            row[places[name]] = len(known[name]) + number
        yield f"text {', '.join(map(repr, given.values()))}", row


def _beside(bases: NDArray[np.generic], dataset: Dataset) -> Iterator[_Named]:
    """Change a wide column by less than float32 can hold, and by a little more."""
    places = [dataset.columns.index(name) for name in dataset.wide[:MAX_GROUPS]]
    changes = itertools.product(places, BESIDE, (-1, 1))
    for number, (place, steps, direction) in enumerate(changes):
        known = bases[~np.isnan(bases[:, place].astype(np.float64))]
        if not len(known):
            continue
        row = known[number % len(known)].astype(np.float64)
        value = float(row[place])
        step = steps * float(np.spacing(np.abs(np.float32(value)))) or abs(float(np.nextafter(value, np.inf)) - value)
        row[place] = value + direction * step
        yield f"{value:.17g} {direction * step:+g} in '{dataset.columns[place]}'", row


def _calendar(bases: NDArray[np.generic], dataset: Dataset, days: Sequence[str] = ()) -> Iterator[_Named]:
    """Put seconds around midnight into a date: of these days, or of first days of months in the training range."""
    places = [index for index, kind in enumerate(dataset.kinds) if kind == "date"][:MAX_GROUPS]
    for place in places:
        lowest, highest = (float(bound[place]) for bound in training_range(dataset))
        asked = days or date_parts.months(lowest, highest, MONTHS)
        midnights = np.array(asked, "datetime64[s]").astype(np.int64)
        for number, (midnight, second) in enumerate(itertools.product(midnights.tolist(), (-1, 0, 3599.5))):
            row = bases[number % len(bases)].astype(np.float64)
            row[place] = midnight + second
            yield f"{date_parts.in_words(midnight + second)} in '{dataset.columns[place]}'", row


def _images(bases: NDArray[np.generic], dataset: Dataset) -> Iterator[_Named]:
    """Make images faint, negative, or plain at their borders."""
    largest = int(dataset.largest or 0)
    edge = max(1, min(dataset.shape[:2]) // 8)
    for number, base in enumerate(bases):
        yield from ((f"image {number}, faint", base // 4), (f"image {number}, very faint", base // 16))
        yield f"image {number}, negative", (largest - base.astype(np.int64)).astype(base.dtype)
        for what, value in (("dark", 0), ("light", largest)):
            framed = np.full_like(base, value)
            inner = (slice(edge, -edge), slice(edge, -edge))
            framed[inner] = base[inner]
            yield f"image {number}, {what} border", framed
