import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from hallmark.flows.experiments import options
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import SPLITS
from hallmark.tasks.ml.config.data import Data, Iris, Split
from hallmark.tasks.ml.config.experiment import Training
from hallmark.tasks.ml.config.models import MLP, Model
from hallmark.tasks.ml.data import dataset_store, sources, splits
from tests.conftest import prepare

IRIS = Iris(kind="iris")


def refuse(source: Data, training: Training, model: Model = MLP(kind="mlp")) -> None:  # noqa: B008 - immutable
    table = sources.read(source, Path("nowhere"))
    dataset_store.refuse_impossible(table, source.split, model, training)


def test_a_split_that_leaves_a_class_empty_is_refused_before_anything_is_written() -> None:
    with pytest.raises(InputError, match=r"data\.split: .*class"):
        refuse(Iris(kind="iris", split=Split(test=0.01)), Training())


def test_a_batch_larger_than_the_training_split_is_refused() -> None:
    refuse(IRIS, Training(batch_size=90))
    with pytest.raises(InputError, match=r"training\.batch_size: 91 is more than the 90 rows"):
        refuse(IRIS, Training(batch_size=91))


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


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (("--training.loss.weight=1,2",), r"training.loss.weight: expected 3 factors.*output of the network, found 2"),
        (
            ("--training.loss.kind=bce_with_logits", "--training.loss.pos_weight=1,2,3,4"),
            r"training.loss.pos_weight: expected 3 factors.*output of the network, found 4",
        ),
        (("--training.loss.ignore_index=3",), r"training.loss.ignore_index: there is no class 3"),
    ],
)
def test_loss_factors_that_do_not_match_the_classes_are_refused(tokens: tuple[str, ...], message: str) -> None:
    experiment = options.experiment("iris", list(tokens))
    with pytest.raises(InputError, match=message):
        refuse(experiment.data, experiment.training, experiment.model)


def test_a_one_cycle_schedule_without_increasing_updates_is_refused() -> None:
    tokens = ["--training.schedule.kind=one_cycle", "--training.schedule.warmup=0.1", "--training.epochs"]
    experiment = options.experiment("iris", [*tokens, "9"])
    with pytest.raises(InputError, match=r"training\.schedule\.warmup: 0\.1 of 9 updates"):
        refuse(experiment.data, experiment.training)
    experiment = options.experiment("iris", [*tokens, "10"])
    refuse(experiment.data, experiment.training)


def test_images_too_small_for_the_poolings_are_refused() -> None:
    experiment = options.experiment("digits", ["--model.kind=cnn", "--model.channels=4,4,4"])
    refuse(experiment.data, experiment.training, experiment.model)
    experiment = options.experiment("digits", ["--model.kind=cnn", "--model.channels=4,4,4,4"])
    with pytest.raises(InputError, match=r"4 convolutions and poolings leave nothing of 8 x 8 pixels: give fewer$"):
        refuse(experiment.data, experiment.training, experiment.model)


def test_images_too_small_for_convolutions_without_padding_are_refused() -> None:
    tokens = ["--model.kind=cnn", "--model.padding=valid", "--model.kernel=5"]
    experiment = options.experiment("digits", [*tokens, "--model.channels=4"])
    refuse(experiment.data, experiment.training, experiment.model)
    experiment = options.experiment("digits", [*tokens, "--model.channels=4,4"])
    with pytest.raises(InputError, match=r"2 convolutions .* 8 x 8 pixels: give fewer, or model.padding 'same'"):
        refuse(experiment.data, experiment.training, experiment.model)


def test_the_training_range_is_that_of_the_training_rows_and_is_read_once(tmp_path: Path) -> None:
    dataset = prepare(IRIS, tmp_path)
    x = dataset_store.open_split(dataset, "train").x
    lowest, highest = dataset_store.training_range(dataset)
    np.testing.assert_array_equal([lowest, highest], [x.min(axis=0), x.max(axis=0)])
    assert dataset_store.training_range(dataset)[0] is lowest
    with pytest.raises(ValueError, match="read-only"):
        lowest[0] = 0
