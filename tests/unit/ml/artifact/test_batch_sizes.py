from dataclasses import replace
from pathlib import Path

import pytest

from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.artifact.proof.batch_sizes import batch_sizes

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
