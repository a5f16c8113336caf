from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
from pyarrow import parquet

from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.ml.predict import input_rows, predictor
from hallmark.tasks.ml.predict.input_rows import Batch
from tests.support import certified


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return certified.columns(tmp_path / "iris.onnx")


def batch(x: np.ndarray) -> Batch:
    feeds = {name: x[:, index : index + 1].astype(np.float32) for index, name in enumerate(certified.COLUMNS)}
    return Batch(range(1, len(x) + 1), feeds)


def no_progress() -> AbstractContextManager[predictor.Show]:
    """Return a progress display that shows nothing."""
    return nullcontext(lambda *_: None)


def test_columns_give_the_probabilities_of_a_simple_reference(model: Path) -> None:
    x = np.random.default_rng(1).uniform(0, 8, (100, 4))
    predicted = predictor.Scorer(model).score(batch(x))
    expected = certified.expected(x.astype(np.float32), 3)
    assert predicted.rows == range(1, 101)
    np.testing.assert_allclose(predicted.probabilities, expected, atol=1e-6)
    np.testing.assert_array_equal(predicted.label, expected.argmax(axis=1))


def test_images_give_the_probabilities_of_a_simple_reference(tmp_path: Path) -> None:
    x = np.random.default_rng(1).integers(0, 9, (100, *certified.SIDES)).astype(np.uint8)
    predicted = predictor.Scorer(certified.images(tmp_path / "x.onnx")).score(Batch(range(1, 101), {"image": x}))
    np.testing.assert_allclose(predicted.probabilities, certified.expected(x.reshape(100, -1), 2), atol=1e-6)


def test_rows_outside_the_training_range_are_counted_once(model: Path) -> None:
    x = np.full((5, 4), 4.0)
    x[1, 2] = np.nextafter(np.float32(certified.HIGHEST), np.float32(9))
    x[2] = -1
    x[3] = [certified.LOWEST, certified.HIGHEST, certified.LOWEST, certified.HIGHEST]
    scorer = predictor.Scorer(model)
    scorer.score(batch(x))
    assert (scorer.rows, scorer.outside) == (5, 2)
    scorer.score(batch(x))
    assert (scorer.rows, scorer.outside) == (10, 4)


def test_an_image_is_outside_if_one_pixel_is(tmp_path: Path) -> None:
    x = np.zeros((3, *certified.SIDES), np.uint8)
    x[1, 0, 0], x[2, 2, 3] = certified.HIGHEST, certified.HIGHEST + 1
    scorer = predictor.Scorer(certified.images(tmp_path / "x.onnx"))
    scorer.score(Batch(["a", "b", "c"], {"image": x}))
    assert scorer.outside == 1


def test_rows_that_give_no_probabilities_are_refused(tmp_path: Path) -> None:
    names = tuple(f"x{index}" for index in range(40))
    model = certified.columns(tmp_path / "x.onnx", names)
    x = np.array([[1], [3e38], [1]], np.float32)
    signs = np.sign(certified.weights(40, 3)[0][:, 0])  # so that no terms cancel
    feeds = {name: x * sign for name, sign in zip(names, signs, strict=True)}
    with pytest.raises(InputError, match=r"row 2: values too far outside the training range"):
        predictor.Scorer(model).score(Batch(range(1, 4), feeds))


def test_the_record_has_counts_shares_and_paths(model: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).uniform(-1, 9, (1000, 4)).astype(np.float32)
    parquet.write_table(pa.table(dict(zip(certified.COLUMNS, x.T, strict=True))), tmp_path / "x.parquet")
    reported: list[tuple[int, int | None]] = []
    source, output = str(tmp_path / "x.parquet"), tmp_path / "y.parquet"
    scored = predictor.score(
        model, source, output, "parquet", lambda: nullcontext(lambda *progress: reported.append(progress))
    )
    label = certified.expected(x, 3).argmax(axis=1)
    assert scored.rows == 1000
    assert scored.class_shares == {name: (label == index).mean() for index, name in enumerate(certified.CLASSES)}
    assert scored.training_class_shares == pytest.approx(dict.fromkeys(certified.CLASSES, 1 / 3))
    assert scored.outside_training_range == ((x < certified.LOWEST) | (x > certified.HIGHEST)).any(axis=1).sum()
    assert (scored.model, scored.output, scored.source) == (model, output, source)
    assert scored.sha256 == file_digest(model)
    assert reported[-1] == (1000, 1000)
    written = parquet.read_table(output)
    assert written["row"].to_pylist() == list(range(1, 1001))
    assert written["class"].to_pylist() == [certified.CLASSES[index] for index in label]


def test_batches_of_any_size_give_the_same_predictions(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(1).uniform(0, 8, (500, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    results = []
    for size in (4, 28, 4000):
        monkeypatch.setattr(input_rows, "NUMBERS_AT_ONCE", size)
        predictor.score(model, str(tmp_path / "x.npy"), tmp_path / f"{size}.parquet", "parquet", no_progress)
        table = parquet.read_table(tmp_path / f"{size}.parquet")
        results.append(np.stack([table[f"p_{name}"].to_numpy() for name in certified.CLASSES]))
    np.testing.assert_allclose(results[0], results[1], atol=1e-6)
    np.testing.assert_allclose(results[0], results[2], atol=1e-6)


def test_an_error_in_a_late_row_leaves_no_file(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_rows, "NUMBERS_AT_ONCE", 400)
    x = np.ones((1000, 4))
    x[-1, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    before = set(tmp_path.rglob("*"))
    for form in ("csv", "parquet", "jsonl"):
        with pytest.raises(InputError, match="row 1000, column 'sepal_width'"):
            predictor.score(model, str(tmp_path / "x.npy"), tmp_path / f"y.{form}", form, no_progress)  # type: ignore[arg-type]
    assert set(tmp_path.rglob("*")) == before


def test_invalid_model_files_are_refused(model: Path, tmp_path: Path) -> None:
    bare = onnx.load(model)
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    with pytest.raises(InputError, match="without Hallmark's seal"):
        predictor.Scorer(tmp_path / "bare.onnx")
    (tmp_path / "text.onnx").write_text("a,b\n")
    with pytest.raises(InputError, match="not an ONNX file"):
        predictor.Scorer(tmp_path / "text.onnx")
    with pytest.raises(InputError, match="cannot be read"):
        predictor.Scorer(tmp_path / "nowhere.onnx")
    outside = onnx.load(model)
    outside.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    outside.graph.initializer[0].external_data.add(key="location", value="../../etc/passwd")
    (tmp_path / "outside.onnx").write_bytes(outside.SerializeToString())
    with pytest.raises(InputError, match=r"weights are in another file, 'weight' in '\.\./\.\./etc/passwd'"):
        predictor.Scorer(tmp_path / "outside.onnx")
    content = model.read_bytes()
    model.write_bytes(content.replace(b"virginica", b"Virginica"))
    with pytest.raises(DamagedError, match="the content has changed since it was sealed"):
        predictor.Scorer(model)
