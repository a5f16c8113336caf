import hashlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import train_test_split

from flows import presets
from tasks.ml import data
from tasks.ml.config import Data, Digits, Iris, Split, Training
from tasks.ml.errors import InputError
from tasks.ml.records import SPLITS

IRIS = Iris(kind="iris")


def test_iris_and_digits_are_scikit_learns() -> None:
    iris, digits = data.read(IRIS), data.read(Digits(kind="digits"))
    np.testing.assert_array_equal(iris.x, load_iris().data.astype(np.float32))
    assert iris.columns == ("sepal_length", "sepal_width", "petal_length", "petal_width")
    assert iris.classes == ("setosa", "versicolor", "virginica")
    np.testing.assert_array_equal(digits.x, load_digits().images)
    assert (digits.x.dtype, digits.x.shape, digits.x.max(), digits.largest) == (np.uint8, (1797, 8, 8), 16, 16.0)


@pytest.mark.parametrize("source", [IRIS, Digits(kind="digits")])
def test_splits_share_no_row_leave_none_out_and_keep_the_class_shares(source: Data) -> None:
    y = data.read(source).y
    divided = data.divide(y, source.split)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(divided.values()))), np.arange(len(y)))
    for rows in divided.values():
        share = np.bincount(y[rows]) / len(rows)
        np.testing.assert_allclose(share, np.bincount(y) / len(y), atol=0.01)
    assert len(divided["test"]) == pytest.approx(0.2 * len(y), abs=1)
    assert len(divided["validation"]) == pytest.approx(0.2 * len(y), abs=1)


def test_the_split_is_a_function_of_its_seed() -> None:
    y = data.read(IRIS).y
    first, again, other = (data.divide(y, Split(seed=seed)) for seed in (0, 0, 1))
    for split in SPLITS:
        np.testing.assert_array_equal(first[split], again[split])
        assert not np.array_equal(first[split], other[split])


def test_the_published_split_is_the_tutorials() -> None:
    _, test = train_test_split(np.arange(150), test_size=0.2, random_state=2)
    divided = data.divide(load_iris().target, presets.get("iris_as_published").data.split)
    np.testing.assert_array_equal(divided["test"], test)
    assert (len(divided["train"]), len(divided["validation"])) == (120, 0)


@pytest.mark.parametrize(
    "split",
    [
        Split(test=0.01),
        Split(validation=0.01),
        Split(validation=0.8, test=0.19),
        Split(method="shuffled", test=0.02, seed=1),
        Split(method="shuffled", validation=0.02, seed=1),
    ],
)
def test_a_split_that_leaves_a_class_empty_is_refused(split: Split) -> None:
    with pytest.raises(InputError, match=r"data\.split: .*class"):
        data.refuse_impossible(Iris(kind="iris", split=split), Training())


def test_a_batch_larger_than_the_training_split_is_refused() -> None:
    data.refuse_impossible(IRIS, Training(batch_size=90))
    with pytest.raises(InputError, match=r"training\.batch_size: 91 is more than the 90 rows"):
        data.refuse_impossible(IRIS, Training(batch_size=91))


def test_a_prepared_dataset_holds_the_rows_their_labels_and_their_digests(tmp_path: Path) -> None:
    table = data.read(IRIS)
    divided = data.divide(table.y, IRIS.split)
    dataset = data.prepare(IRIS, tmp_path)
    assert dataset.folder == tmp_path / "datasets" / dataset.digest
    assert dataset.rows == {"train": 90, "validation": 30, "test": 30}
    for split in SPLITS:
        rows = data.open_split(dataset, split)
        assert isinstance(rows.x, np.memmap)
        np.testing.assert_array_equal(rows.x, table.x[divided[split]])
        np.testing.assert_array_equal(rows.y, table.y[divided[split]])
        digests = np.load(dataset.folder / f"{split}.rows.npy")
        assert bytes(digests[0]) == hashlib.sha256(rows.x[0].tobytes()).digest()
    files = json.loads((dataset.folder / "dataset.json").read_text())["files"]
    assert len(files) == 9
    for name, digest in files.items():
        assert hashlib.sha256((dataset.folder / name).read_bytes()).hexdigest() == digest


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    first = data.prepare(IRIS, tmp_path / "one")
    assert data.prepare(IRIS, tmp_path / "two").digest == first.digest
    # How the rows are scaled is no matter of the rows.
    assert data.prepare(Iris(kind="iris", scaling="none"), tmp_path / "one").digest == first.digest
    assert data.prepare(Iris(kind="iris", split=Split(seed=1)), tmp_path / "one").digest != first.digest
    assert len(list((tmp_path / "one" / "datasets").iterdir())) == 2


def test_an_intact_dataset_is_reused_and_a_damaged_one_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = data.prepare(IRIS, tmp_path)
    file = dataset.folder / "train.x.npy"
    content, made = file.read_bytes(), file.stat().st_ino
    data.prepare(IRIS, tmp_path)
    assert file.stat().st_ino == made
    file.write_bytes(content[:-1] + b"!")
    with caplog.at_level(logging.WARNING):
        data.prepare(IRIS, tmp_path)
    assert file.read_bytes() == content
    assert "damaged" in caplog.text
    (dataset.folder / "dataset.json").unlink()
    data.prepare(IRIS, tmp_path)
    assert (dataset.folder / "dataset.json").exists()


def test_many_processes_make_one_dataset(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tasks.ml import data; from tasks.ml.config import Digits\n"
        "write = data._write\n"
        "def slowly(*given):\n"
        "    time.sleep(0.5)  # long enough for all others to arrive\n"
        "    write(*given); print('wrote', end=' ')\n"
        "data._write = slowly\n"
        "data.read(Digits(kind='digits')); print('ready', flush=True); sys.stdin.readline()\n"
        "data.prepare(Digits(kind='digits'), Path(sys.argv[1])); print('done')"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    racing = [subprocess.Popen(command, text=True, env=os.environ, **pipes) for _ in range(4)]
    assert [process.stdout.readline() for process in racing if process.stdout] == ["ready\n"] * 4
    for process in racing:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = sorted(process.communicate()[0].strip() for process in racing)
    assert said == ["done", "done", "done", "wrote done"]
    assert len(list((tmp_path / "datasets").iterdir())) == 1


def test_rows_with_the_same_input_share_a_digest() -> None:
    x = np.array([[1, 2], [3, 4], [1, 2]], dtype=np.float32)
    digests = data.row_digests(x)
    assert (digests.shape, digests.dtype) == ((3, 32), np.uint8)
    assert bytes(digests[0]) == bytes(digests[2]) != bytes(digests[1])
