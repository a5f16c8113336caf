import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from hallmark.tasks.common.errors import DamagedError
from hallmark.tasks.common.records import SPLITS
from hallmark.tasks.ml.config.data import Iris, Split
from hallmark.tasks.ml.data import dataset_store, sources, splits
from tests.conftest import prepare

IRIS = Iris(kind="iris")


def test_a_prepared_dataset_holds_rows_labels_and_row_digests(tmp_path: Path) -> None:
    table = sources.read(IRIS, tmp_path)
    divided = splits.divide(table, IRIS.split)
    dataset = prepare(IRIS, tmp_path)
    assert dataset.folder == tmp_path / "datasets" / dataset.digest
    assert dataset.rows == {"train": 90, "validation": 30, "test": 30}
    for split in SPLITS:
        rows = dataset_store.open_split(dataset, split)
        assert isinstance(rows.x, np.memmap)
        np.testing.assert_array_equal(rows.x, table.x[divided[split]])
        np.testing.assert_array_equal(rows.y, table.y[divided[split]])
        digests = np.load(dataset.folder / f"{split}.rows.npy")
        assert bytes(digests[0]) == hashlib.sha256(rows.x[0].tobytes()).digest()
    files = json.loads((dataset.folder / "dataset.json").read_text())["files"]
    assert len(files) == 9
    for name, digest in files.items():
        assert hashlib.sha256((dataset.folder / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int64])
@pytest.mark.parametrize("shape", [(), (3,), (4, 5), (4, 5, 3)])
def test_chunked_writing_gives_the_same_file_as_numpy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: type, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(dataset_store, "_CHUNK_BYTES", 100)
    array = np.random.default_rng(0).integers(0, 200, (50, *shape)).astype(dtype)
    for rows in (np.array([7, 3, 3, 49, 0] * 9), np.array([], np.int64)):
        chosen = dataset_store.Selection(array, rows)
        chosen.save(tmp_path / "some.npy")
        np.save(tmp_path / "all.npy", array[rows])
        assert (tmp_path / "some.npy").read_bytes() == (tmp_path / "all.npy").read_bytes()
        assert chosen.digest() == hashlib.sha256(array[rows].tobytes()).hexdigest()


def test_the_digest_depends_only_on_the_content(tmp_path: Path) -> None:
    first = prepare(IRIS, tmp_path / "one")
    assert prepare(IRIS, tmp_path / "two").digest == first.digest
    # Scaling is not part of the rows.
    assert prepare(Iris(kind="iris", scaling="none"), tmp_path / "one").digest == first.digest
    assert prepare(Iris(kind="iris", split=Split(seed=1)), tmp_path / "one").digest != first.digest
    assert len(list((tmp_path / "one" / "datasets").iterdir())) == 2


def test_a_stored_dataset_is_loaded_as_it_was_prepared(tmp_path: Path) -> None:
    dataset = prepare(IRIS, tmp_path)
    assert dataset_store.load(dataset.folder) == dataset
    file = dataset.folder / "test.x.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert dataset_store.load(dataset.folder, ["train.x.npy"]) == dataset
    with pytest.raises(DamagedError, match=r"test\.x\.npy"):
        dataset_store.load(dataset.folder, ["test.x.npy"])


def test_an_intact_dataset_is_reused_and_a_damaged_one_is_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = prepare(IRIS, tmp_path)
    file = dataset.folder / "train.x.npy"
    content, inode = file.read_bytes(), file.stat().st_ino
    prepare(IRIS, tmp_path)
    assert file.stat().st_ino == inode
    file.write_bytes(content[:-1] + b"!")
    with caplog.at_level(logging.WARNING):
        prepare(IRIS, tmp_path)
    assert file.read_bytes() == content
    assert "damaged" in caplog.text
    (dataset.folder / "dataset.json").unlink()
    prepare(IRIS, tmp_path)
    assert (dataset.folder / "dataset.json").exists()


def test_the_training_range_is_that_of_the_training_rows_and_is_read_once(tmp_path: Path) -> None:
    dataset = prepare(IRIS, tmp_path)
    x = dataset_store.open_split(dataset, "train").x
    lowest, highest = dataset_store.training_range(dataset)
    np.testing.assert_array_equal([lowest, highest], [x.min(axis=0), x.max(axis=0)])
    assert dataset_store.training_range(dataset)[0] is lowest
    with pytest.raises(ValueError, match="read-only"):
        lowest[0] = 0
