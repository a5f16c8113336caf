import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from hallmark.flows.experiments import presets
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import SPLITS, Column, SplitName
from hallmark.tasks.ml.config.data import Blobs, Data, Digits, Iris, Split, Threshold
from hallmark.tasks.ml.data import splits
from hallmark.tasks.ml.data.source_rows import SourceRows
from hallmark.tasks.ml.data.sources import read

IRIS = Iris(kind="iris")


def table(data: Data) -> SourceRows:
    return read(data, Path("/nowhere"))


def content(x: np.ndarray, split: Split) -> dict[SplitName, set[bytes]]:
    """Return the rows of each split, as bytes."""
    rows = SourceRows(x, np.zeros(len(x), dtype=np.int64), (), ("only",))
    return {name: {x[row].tobytes() for row in indices} for name, indices in splits.divide(rows, split).items()}


@pytest.mark.parametrize("source", [IRIS, Digits(kind="digits")])
def test_splits_are_disjoint_and_complete_and_keep_the_class_proportions(source: Data) -> None:
    y = table(source).y
    divided = splits.divide(table(source), source.split)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(divided.values()))), np.arange(len(y)))
    for rows in divided.values():
        share = np.bincount(y[rows]) / len(rows)
        np.testing.assert_allclose(share, np.bincount(y) / len(y), atol=0.01)
    assert len(divided["test"]) == pytest.approx(0.2 * len(y), abs=1)
    assert len(divided["validation"]) == pytest.approx(0.2 * len(y), abs=1)


@pytest.mark.parametrize("method", ["stratified", "shuffled", "content"])
def test_the_same_seed_gives_the_same_split(method: str) -> None:
    def divide(seed: int) -> dict[SplitName, splits.Indices]:
        return splits.divide(table(IRIS), Split.model_validate({"method": method, "seed": seed}))

    first, again, other = divide(0), divide(0), divide(1)
    for split in SPLITS:
        np.testing.assert_array_equal(first[split], again[split])
        assert not np.array_equal(first[split], other[split])


def test_the_published_split_equals_the_tutorials() -> None:
    _, test = train_test_split(np.arange(150), test_size=0.2, random_state=2)
    divided = splits.divide(table(IRIS), presets.get("iris_as_published").data.split)
    np.testing.assert_array_equal(divided["test"], test)
    assert (len(divided["train"]), len(divided["validation"])) == (120, 0)


def test_a_given_split_keeps_the_test_rows_and_takes_validation_from_the_rest() -> None:
    split = Split(method="given", validation=0.2, test=0)
    divided = splits.divide(table(Threshold(kind="threshold")), split)
    np.testing.assert_array_equal(divided["test"], np.arange(40, 79))
    assert len(divided["validation"]) == round(0.2 * 79)
    np.testing.assert_array_equal(np.sort([*divided["train"], *divided["validation"]]), np.arange(40))


def test_resubstitution_tests_on_the_training_rows_and_ignores_the_sources_test_rows() -> None:
    divided = splits.divide(table(Threshold(kind="threshold")), Split(method="resubstitution", validation=0, test=0))
    np.testing.assert_array_equal(divided["train"], np.arange(40))
    np.testing.assert_array_equal(divided["test"], np.arange(40))
    assert len(divided["validation"]) == 0


def test_a_row_split_by_content_keeps_its_split_as_data_grows_or_is_reordered() -> None:
    x = np.random.default_rng(0).normal(size=(3000, 3)).astype(np.float32)
    split = Split(method="content", validation=0.1, test=0.3)
    few, many, reordered = content(x[:1000], split), content(x, split), content(x[::-1], split)
    for name in SPLITS:
        assert few[name] < many[name] == reordered[name]
    # Within four standard deviations of a binomial.
    assert len(many["test"]) == pytest.approx(900, abs=100)
    assert len(many["validation"]) == pytest.approx(300, abs=66)


def test_duplicates_split_by_content_stay_together() -> None:
    x = np.repeat(np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32), 5, axis=0)
    found = content(x, Split(method="content"))
    assert sum(len(rows) for rows in found.values()) == 200
    assert not found["train"] & found["test"]


def test_test_rows_split_by_content_do_not_depend_on_the_validation_fraction() -> None:
    x = table(Blobs(kind="blobs")).x
    narrow, wide = (content(x, Split(method="content", validation=share, test=0.2)) for share in (0.1, 0.3))
    assert narrow["test"] == wide["test"]
    assert narrow["validation"] < wide["validation"]


@pytest.mark.parametrize(
    "split",
    [
        Split(test=0.01),
        Split(validation=0.01),
        Split(validation=0.8, test=0.19),
        Split(method="shuffled", test=0.02, seed=1),
        Split(method="shuffled", validation=0.02, seed=1),
        Split(method="content", test=0.01),
    ],
)
def test_a_split_that_leaves_a_class_empty_is_refused(split: Split) -> None:
    with pytest.raises(InputError, match=r"data\.split: .*class"):
        splits.divide(table(IRIS), split)


def test_a_class_without_rows_is_refused() -> None:
    source = Blobs(kind="blobs", rows=10, centers=20, split=Split(method="resubstitution", validation=0, test=0))
    with pytest.raises(InputError, match="include none of class '10'"):
        splits.divide(table(source), source.split)


def test_positive_and_negative_zero_have_the_same_digest() -> None:
    digests = splits.row_digests(np.array([[0.0], [-0.0]], dtype=np.float32))
    assert bytes(digests[0]) == bytes(digests[1])


def test_rows_with_the_same_input_share_a_digest() -> None:
    x = np.array([[1, 2], [3, 4], [1, 2]], dtype=np.float32)
    digests = splits.row_digests(x)
    assert (digests.shape, digests.dtype) == ((3, 32), np.uint8)
    assert bytes(digests[0]) == bytes(digests[2]) != bytes(digests[1])


ROWS = 400


def own_table(divider: np.ndarray, y: np.ndarray | None = None) -> SourceRows:
    """Return a user's table that is split by a column."""
    labels = np.arange(len(divider)) % 2 if y is None else y
    x = np.arange(len(divider), dtype=np.float32)[:, None]
    return SourceRows(x, labels, ("a",), ("no", "yes"), table_columns=(Column("a", "numeric", 0),), split_key=divider)


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_in_exactly_one_split(seed: int) -> None:
    group = np.random.default_rng(seed).permutation(ROWS) % 60
    divided = splits.divide(own_table(group), Split(group="patient", seed=seed))
    np.testing.assert_array_equal(np.sort(np.concatenate(list(divided.values()))), np.arange(ROWS))
    found = {split: set(group[rows].tolist()) for split, rows in divided.items()}
    assert sum(map(len, found.values())) == 60
    assert {split: len(groups) for split, groups in found.items()} == {"train": 36, "validation": 12, "test": 12}


@pytest.mark.parametrize("validation", [0.2, 0.0])
@pytest.mark.parametrize("times", [ROWS, 40, 7])
def test_test_rows_are_later_than_training_rows_and_equal_times_share_a_split(times: int, validation: float) -> None:
    rank = np.random.default_rng(0).integers(0, times, ROWS)
    divided = splits.divide(own_table(rank), Split(time="day", validation=validation))
    np.testing.assert_array_equal(np.sort(np.concatenate(list(divided.values()))), np.arange(ROWS))
    ends = [(rank[rows].min(), rank[rows].max()) for rows in divided.values() if len(rows)]
    for (_, before), (after, _) in itertools.pairwise(ends):
        assert before < after
    assert len(ends) == (3 if validation else 2)
    assert len(divided["test"]) >= 0.2 * ROWS  # a cut between equal times moves to the first of them
    assert len(divided["test"]) <= 0.2 * ROWS + np.bincount(rank).max()


def test_a_column_assigns_each_row_to_a_split() -> None:
    assigned = np.random.default_rng(0).integers(0, 3, ROWS)
    divided = splits.divide(own_table(assigned), Split(column="split"))
    for index, split in enumerate(SPLITS):
        np.testing.assert_array_equal(divided[split], np.flatnonzero(assigned == index))


@pytest.mark.parametrize(
    ("table", "split", "message"),
    [
        (own_table(np.zeros(ROWS, int)), Split(group="g"), "column 'g' has 1 groups, too few for every split"),
        (own_table(np.zeros(ROWS, int)), Split(time="t"), "0 train rows include none of class 'no'"),
        (
            own_table(np.arange(ROWS), np.arange(ROWS) // 200),
            Split(time="t"),
            "80 validation rows include none of class 'no'",
        ),
        (own_table(np.arange(ROWS) // 4 % 2), Split(column="s"), "0 test rows include .*: assign rows of every class"),
        (
            own_table(np.arange(9), np.array([0] * 8 + [1])),
            Split(),
            "class 'yes' has 1 of 9 rows, too few for every split",
        ),
    ],
)
def test_a_table_that_cannot_be_split_is_refused(table: SourceRows, split: Split, message: str) -> None:
    with pytest.raises(InputError, match=message):
        splits.divide(table, split)


def described(values: tuple[str, ...]) -> tuple[Column, ...]:
    return Column("n", "numeric", 0), Column("c", "categorical", 0, values)


def test_a_rows_digest_covers_values_and_not_their_indices() -> None:
    nan = np.nan
    x = np.array([[1, 0], [1, 1], [nan, 1], [-0.0, nan], [2, 0]], np.float32)
    more = np.array([[1, 1], [1, 3], [nan, 3], [0.0, nan], [2, 1], [2, 0], [2, 2]], np.float32)
    before = splits.row_digests(x, described(("a", "b")))
    after = splits.row_digests(more, described(("0", "a", "aa", "b")))
    np.testing.assert_array_equal(before, after[:5])
    assert len({row.tobytes() for row in after}) == 7


def test_a_missing_text_differs_from_an_empty_text() -> None:
    x = np.array([[1, 0], [1, np.nan]], np.float32)
    assert len({row.tobytes() for row in splits.row_digests(x, described(("",)))}) == 2


def test_rows_split_by_content_keep_their_split_when_a_table_gains_values() -> None:
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(size=ROWS), rng.integers(0, 3, ROWS)], axis=1).astype(np.float32)
    more = np.concatenate([x, [[0.5, -1]] * 5]).astype(np.float32)
    more[:, 1] += 1  # a new value sorts before the others
    y = np.arange(len(more)) % 2
    split = Split(method="content")
    before = splits.divide(
        SourceRows(x, y[:ROWS], ("n", "c"), ("no", "yes"), table_columns=described(("b", "c", "d"))), split
    )
    after = splits.divide(
        SourceRows(more, y, ("n", "c"), ("no", "yes"), table_columns=described(("a", "b", "c", "d"))), split
    )
    for name in SPLITS:
        np.testing.assert_array_equal(before[name], after[name][after[name] < ROWS])


@pytest.mark.parametrize("folders", [(0, 1, 2), (0, 0, 2)])
def test_folders_of_images_give_the_split(folders: tuple[int, ...]) -> None:
    key = np.repeat(folders, 20)
    x = np.arange(60, dtype=np.uint8).reshape(60, 1, 1)
    source = SourceRows(x, np.arange(60) % 2, (), ("a", "b"), split_key=key)
    divided = splits.divide(source, Split(method="given", test=0, validation=0.2))
    assert divided["test"].tolist() == list(range(40, 60))
    assert len(divided["validation"]) == (20 if 1 in folders else 12)
    assert sorted([*divided["train"], *divided["validation"]]) == list(range(40))
    with pytest.raises(InputError, match="the source has no test rows of its own"):
        splits.divide(replace(source, split_key=None), Split(method="given", test=0))
