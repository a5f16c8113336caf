"""Columns of float64, from the file to the proof: numbers that float32 cannot hold, and dates."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch
from onnx import TensorProto, numpy_helper

from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.errors import ParityError
from hallmark.tasks.common.records import Artifact, Dataset
from hallmark.tasks.ml.artifact import exporter, runtimes, stamping
from hallmark.tasks.ml.artifact.proof import verifier
from hallmark.tasks.ml.artifact.proof.probe_rows import probes
from hallmark.tasks.ml.config.experiment import Export
from hallmark.tasks.ml.data import dataset_store
from hallmark.tasks.ml.data.tables.wide_numbers import lower_median
from hallmark.tasks.ml.models.networks import Classifier
from hallmark.tasks.ml.predict import input_rows
from tests.conftest import fit, load, prepare
from tests.support import owned

ROWS = 300
TIMES = 1_700_000_000 + np.random.default_rng(0).permutation(ROWS)
"""Unix times a second apart: float32 has three values for all of them."""
NOISE = np.random.default_rng(1).normal(size=ROWS).round(3)
LABEL = np.where(np.median(TIMES) < TIMES, "late", "early")
DATES = TIMES + np.random.default_rng(2).integers(0, 400, ROWS) * 86_400
WRITTEN = [f"{datetime.fromtimestamp(time, UTC):%d.%m.%Y %H:%M:%S}" if time % 7 else "" for time in DATES.tolist()]
TABLE = pa.table({"noise": NOISE, "time": pa.array(TIMES, mask=TIMES % 49 == 0), "day": WRITTEN, owned.TARGET: LABEL})

Trained = tuple[Dataset, Classifier, Artifact]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("times")
    path = owned.write(TABLE, folder / "times.csv")
    experiment = owned.experiment(
        path, "", "--training.epochs", "25", "--training.lr", "0.02", "--data.columns.day", "date"
    )
    dataset = prepare(experiment.data, folder)
    classifier = load(fit(experiment, dataset, folder), dataset, experiment)
    return dataset, classifier, exporter.export(classifier, dataset, Export(), folder / "times.onnx")


def by_session(path: Path, dataset: Dataset, x: np.ndarray) -> np.ndarray:
    given = runtimes.feeds(dataset.columns, x, wide=dataset.wide)
    return np.asarray(runtimes.open_session(str(path)).run(None, given)[1])


def test_a_wide_column_is_stored_exactly_and_shifted_by_a_number_of_the_training_rows(trained: Trained) -> None:
    dataset = trained[0]
    train = dataset_store.open_split(dataset, "train").x
    assert (dataset.wide, dataset.dtype, str(train.dtype)) == (("time", "day"), "float64", "float64")
    stored = np.concatenate([dataset_store.open_split(dataset, split).x for split in ("train", "validation", "test")])
    known = TIMES % 49 != 0
    assert sorted(stored[~np.isnan(stored[:, 1]), 1]) == sorted(TIMES[known])
    assert set(stored[:, 0]) <= set(NOISE.astype(np.float32).astype(np.float64))
    _, column, day = dataset_store.columns_of(dataset_store.load(dataset.folder))
    assert (column.offset, column.merged) == (lower_median(train[:, 1]), 0)
    assert column.offset in train[:, 1]
    assert [one.name for one in day.parts] == ["day: year", "day: month", "day: weekday", "day: hour", "day: seconds"]
    assert day.offset == day.parts[-1].offset == np.nanmin(train[:, 2])


def test_the_model_learns_from_times_and_the_file_takes_them_as_float64(trained: Trained, tmp_path: Path) -> None:
    dataset, classifier, artifact = trained
    test = dataset_store.open_split(dataset, "test")
    probabilities = by_session(artifact.path, dataset, test.x)
    assert (probabilities.argmax(axis=1) == test.y).mean() > 0.9
    inputs = {one.name: one for one in stamping.inputs(dataset)}
    times, day = inputs["time"], inputs["day"]
    assert (day.kind, day.dtype, day.date_form) == ("date", "float64", "DD.MM.YYYY")
    assert "(Monday is 0), hour and the seconds since 2023-11-1" in day.description
    assert (times.dtype, times.highest) == ("float64", np.nanmax(dataset_store.open_split(dataset, "train").x[:, 1]))
    assert f"{dataset_store.columns_of(dataset)[1].offset:.0f} is subtracted" in times.description
    proof = verifier.verify(artifact, classifier, dataset, tmp_path / "parity.json")
    assert proof.largest_error < 1e-5
    for suffix in (".csv", ".parquet"):
        path = owned.write(TABLE, tmp_path / f"times{suffix}")
        (batch,) = input_rows.open_source(str(path), stamping.inputs(dataset)).batches
        assert batch.feeds["time"].dtype == np.float64
        np.testing.assert_array_equal(batch.feeds["time"][:, 0], np.where(TIMES % 49, TIMES, np.nan))
        np.testing.assert_array_equal(batch.feeds["day"][:, 0], np.where(DATES % 7, DATES, np.nan))


def test_a_proof_asks_times_that_float32_cannot_tell_apart(trained: Trained) -> None:
    dataset, classifier, _ = trained
    x = probes(dataset).x
    beside = x[(x[:, 1] != x[:, 1].astype(np.float32)) & ~np.isnan(x[:, 1])]
    assert len(np.unique(beside[:, 1])) > 50
    assert np.abs(beside[:, 1] - np.round(beside[:, 1])).max() > 0  # the next float64
    np.testing.assert_array_equal(x[:, 0], x[:, 0].astype(np.float32))
    with torch.no_grad():
        encoded = classifier.scaling(torch.tensor(x))
    assert encoded.dtype == torch.float32


def _narrow_first(model: onnx.ModelProto) -> None:
    """Cast to float32 before the subtraction."""
    (sub,) = [node for node in model.graph.node if node.op_type == "Sub" and node.input[0] == "time"]
    (offset,) = [one for one in model.graph.initializer if one.name == sub.input[1]]
    (cast,) = [node for node in model.graph.node if node.input[:1] == sub.output[:1]]
    offset.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(offset).astype(np.float32), offset.name))
    end = cast.output[0]
    cast.input[0], cast.output[0], sub.input[0], sub.output[0] = "time", "narrow", "narrow", end
    nodes = [node for node in model.graph.node if node not in (sub, cast)]
    del model.graph.node[:]
    model.graph.node.extend([cast, sub, *nodes])
    del model.graph.value_info[:]


def _other_offset(model: onnx.ModelProto) -> None:
    (offset,) = [one for one in model.graph.initializer if one.name.endswith("c1_offset")]
    offset.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(offset) + 30, offset.name))


def _other_calendar(model: onnx.ModelProto) -> None:
    """Know no leap years."""
    (number,) = [one for one in model.graph.initializer if one.name.endswith("number_1460")]
    number.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(number) + 1e9, number.name))


def _other_weekday(model: onnx.ModelProto) -> None:
    (number,) = [one for one in model.graph.initializer if one.name.endswith("number_7")]
    number.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(number) + 1, number.name))


def test_a_graph_that_rounds_before_the_subtraction_is_refused(trained: Trained, tmp_path: Path) -> None:
    dataset, classifier, artifact = trained
    path = changed(artifact, _narrow_first, tmp_path)
    with pytest.raises(ParityError, match=r"disagree.*first node that differs"):
        verifier.verify(Artifact(path, file_digest(path)), classifier, dataset, tmp_path / "parity.json")
    model = onnx.load(path)
    next(one for one in model.graph.input if one.name == "time").type.tensor_type.elem_type = TensorProto.FLOAT
    assert "expected 'time', DOUBLE" in verifier.contract_violation(model, dataset)


@pytest.mark.parametrize("change", [_other_offset, _other_calendar, _other_weekday])
def test_the_rows_of_a_proof_show_another_offset_and_another_calendar(
    change: Callable[[onnx.ModelProto], None], trained: Trained, tmp_path: Path
) -> None:
    dataset, _, artifact = trained
    rows = probes(dataset)
    near = np.delete(rows.x, np.arange(rows.far.start, rows.far.stop), axis=0)
    honest, other = (by_session(path, dataset, near) for path in (artifact.path, changed(artifact, change, tmp_path)))
    assert np.abs(honest - other).max() > 1e-3


def changed(artifact: Artifact, change: Callable[[onnx.ModelProto], None], folder: Path) -> Path:
    """Write a changed file, and return its path."""
    model = onnx.load(artifact.path)
    change(model)
    onnx.save(model, folder / "changed.onnx")
    return folder / "changed.onnx"
