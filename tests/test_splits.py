from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from flows import presets
from tasks.ml import splits
from tasks.ml.config_data import Blobs, Data, Digits, Iris, Split, Threshold
from tasks.ml.errors import InputError
from tasks.ml.records import SPLITS, SplitName
from tasks.ml.sources import Table, read

IRIS = Iris(kind="iris")


def table(data: Data) -> Table:
    return read(data, Path("/nowhere"))


def content(x: np.ndarray, split: Split) -> dict[SplitName, set[bytes]]:
    """The rows of each split by their bytes."""
    rows = Table(x, np.zeros(len(x), dtype=np.int64), (), ("only",))
    return {name: {x[row].tobytes() for row in taken} for name, taken in splits.divide(rows, split).items()}


@pytest.mark.parametrize("source", [IRIS, Digits(kind="digits")])
def test_splits_share_no_row_leave_none_out_and_keep_the_class_shares(source: Data) -> None:
    y = table(source).y
    divided = splits.divide(table(source), source.split)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(divided.values()))), np.arange(len(y)))
    for rows in divided.values():
        share = np.bincount(y[rows]) / len(rows)
        np.testing.assert_allclose(share, np.bincount(y) / len(y), atol=0.01)
    assert len(divided["test"]) == pytest.approx(0.2 * len(y), abs=1)
    assert len(divided["validation"]) == pytest.approx(0.2 * len(y), abs=1)


@pytest.mark.parametrize("method", ["stratified", "shuffled", "content"])
def test_the_split_is_a_function_of_its_seed(method: str) -> None:
    def divide(seed: int) -> dict[SplitName, splits.Indices]:
        return splits.divide(table(IRIS), Split.model_validate({"method": method, "seed": seed}))

    first, again, other = divide(0), divide(0), divide(1)
    for split in SPLITS:
        np.testing.assert_array_equal(first[split], again[split])
        assert not np.array_equal(first[split], other[split])


def test_the_published_split_is_the_tutorials() -> None:
    _, test = train_test_split(np.arange(150), test_size=0.2, random_state=2)
    divided = splits.divide(table(IRIS), presets.get("iris_as_published").data.split)
    np.testing.assert_array_equal(divided["test"], test)
    assert (len(divided["train"]), len(divided["validation"])) == (120, 0)


def test_a_given_split_keeps_the_sources_test_rows_and_cuts_validation_from_the_others() -> None:
    split = Split(method="given", validation=0.2, test=0)
    divided = splits.divide(table(Threshold(kind="threshold")), split)
    np.testing.assert_array_equal(divided["test"], np.arange(40, 79))
    assert len(divided["validation"]) == round(0.2 * 79)
    np.testing.assert_array_equal(np.sort([*divided["train"], *divided["validation"]]), np.arange(40))


def test_resubstitution_tests_on_the_training_rows_in_their_order_and_leaves_out_the_sources_own_test() -> None:
    divided = splits.divide(table(Threshold(kind="threshold")), Split(method="resubstitution", validation=0, test=0))
    np.testing.assert_array_equal(divided["train"], np.arange(40))
    np.testing.assert_array_equal(divided["test"], np.arange(40))
    assert len(divided["validation"]) == 0


def test_by_content_a_row_never_moves_as_data_grows_or_is_reordered() -> None:
    x = np.random.default_rng(0).normal(size=(3000, 3)).astype(np.float32)
    split = Split(method="content", validation=0.1, test=0.3)
    few, many, turned = content(x[:1000], split), content(x, split), content(x[::-1], split)
    for name in SPLITS:
        assert few[name] < many[name] == turned[name]
    # Within four standard deviations of a binomial.
    assert len(many["test"]) == pytest.approx(900, abs=100)
    assert len(many["validation"]) == pytest.approx(300, abs=66)


def test_by_content_duplicates_stay_together() -> None:
    x = np.repeat(np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32), 5, axis=0)
    found = content(x, Split(method="content"))
    assert sum(len(rows) for rows in found.values()) == 200
    assert not found["train"] & found["test"]


def test_by_content_a_row_keeps_its_place_when_the_other_share_changes() -> None:
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


def test_a_class_that_has_no_row_at_all_is_refused() -> None:
    source = Blobs(kind="blobs", rows=10, centers=20, split=Split(method="resubstitution", validation=0, test=0))
    with pytest.raises(InputError, match="hold none of class '10'"):
        splits.divide(table(source), source.split)


def test_zero_is_zero_whatever_its_sign() -> None:
    digests = splits.row_digests(np.array([[0.0], [-0.0]], dtype=np.float32))
    assert bytes(digests[0]) == bytes(digests[1])


def test_rows_with_the_same_input_share_a_digest() -> None:
    x = np.array([[1, 2], [3, 4], [1, 2]], dtype=np.float32)
    digests = splits.row_digests(x)
    assert (digests.shape, digests.dtype) == ((3, 32), np.uint8)
    assert bytes(digests[0]) == bytes(digests[2]) != bytes(digests[1])
