"""Batch sizes, gaps and texts that a proof asks."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from hallmark.tasks.common.records import Column, Dataset
from hallmark.tasks.ml.artifact.proof.batch_sizes import batch_sizes
from hallmark.tasks.ml.artifact.proof.further_rows import MAX_GAPS, MAX_NEIGHBOURS, chosen_gaps, neighbours

IMAGES = Dataset(
    name="images", folder=Path("images"), digest="0" * 64, columns=(), shape=(28, 28), dtype="uint8", largest=255,
    classes=("a", "b"), rows={"train": 60_000, "validation": 0, "test": 10_000},
)  # fmt: skip
ALWAYS = {*range(1, 34), *(2**exponent for exponent in range(6, 13)), 63, 65, 127, 129, 255, 257, 100, 200, 500, 1000}
LARGE = {2**exponent + by for exponent in range(9, 13) for by in (-1, 1)}


@pytest.mark.parametrize(
    ("dataset", "asked", "left_out"),
    [
        (IMAGES, ALWAYS | LARGE, {10_000}),
        (replace(IMAGES, shape=(8, 8), rows=IMAGES.rows | {"test": 360}), ALWAYS | {360}, LARGE),
        (replace(IMAGES, shape=(96, 96, 3)), {one for one in ALWAYS if one <= 500}, {512, 1000, 10_000}),
        (replace(IMAGES, columns=("x",), shape=(1,), dtype="float32", largest=None), ALWAYS | LARGE | {10_000}, set()),
    ],
    ids=["many images", "few small images", "large images", "one column"],
)
def test_batches_have_all_small_sizes_and_as_many_large_ones_as_the_cost_allows(
    dataset: Dataset, asked: set[int], left_out: set[int]
) -> None:
    sizes = {size for those in batch_sizes(dataset, dataset.rows["test"] + 100, "ab" * 32).values() for size in those}
    assert asked - {500} <= sizes if dataset.columns else asked <= sizes
    assert not left_out & sizes
    other = {size for those in batch_sizes(dataset, 600, "cd" * 32).values() for size in those}
    assert not other <= sizes  # random sizes come from the file's digest


@pytest.mark.parametrize("columns", [3, 14, 20, 60])
def test_pairs_of_columns_are_left_out_together_and_almost_all_triples(columns: int) -> None:
    gaps = [set(places) for places in chosen_gaps(columns)]
    assert len(gaps) <= MAX_GAPS
    assert all(any({*pair} <= gap for gap in gaps) for pair in itertools.combinations(range(columns), 2))
    triples = list(itertools.combinations(range(columns), 3))[::17]
    assert sum(any({*triple} <= gap for gap in gaps) for triple in triples) >= 0.99 * len(triples)


def test_many_values_are_asked_in_every_other_spelling_too() -> None:
    values = tuple(f"Zürich {number}" for number in range(200))
    near = neighbours(Column("city", "categorical", 0, values, kept=tuple(range(200))))
    assert len(near) == MAX_NEIGHBOURS
    for starts in ("zürich", "ZÜRICH", " Zürich", "Zurich", "Zu\u0308rich", "ürich"):
        assert any(text.startswith(starts) for text in near), starts
    assert neighbours(Column("city", "categorical", 0, ("x",), kept=(0,)))
