from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnxruntime.quantization import quantize_dynamic

from hallmark.flows.experiments import presets
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.records import Artifact, Dataset, Fit
from hallmark.tasks.ml.artifact import exporter, runtimes
from hallmark.tasks.ml.config.experiment import Experiment, Export
from hallmark.tasks.ml.data import dataset_store
from tests.conftest import ROOT, fit, load, prepare


def types_and_shapes(values: list[onnx.ValueInfoProto]) -> dict[str, tuple[int, list[str | int]]]:
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim],
        )
        for value in values
    }


def test_inputs_are_named_columns_and_outputs_are_label_and_probabilities(artifact: Artifact) -> None:
    model = onnx.load(artifact.path)
    columns = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    assert types_and_shapes(list(model.graph.input)) == {name: (TensorProto.FLOAT, ["N", 1]) for name in columns}
    assert types_and_shapes(list(model.graph.output)) == {
        "label": (TensorProto.INT64, ["N"]),
        "probabilities": (TensorProto.FLOAT, ["N", 3]),
    }
    assert not model.metadata_props  # the certificate is added after the proof


def test_image_input_has_the_type_and_shape_of_decoded_images(tmp_path: Path) -> None:
    experiment = presets.get("digits")
    experiment = experiment.model_copy(update={"training": experiment.training.model_copy(update={"epochs": 1})})
    dataset = prepare(experiment.data, tmp_path)
    classifier = load(fit(experiment, dataset, tmp_path), dataset, experiment)
    path = exporter.export(classifier, dataset, Export(), tmp_path / "digits.onnx").path
    assert types_and_shapes(list(onnx.load(path).graph.input)) == {"image": (TensorProto.UINT8, ["N", 8, 8])}
    images = dataset_store.open_split(dataset, "test").x
    label, probabilities = onnxruntime.InferenceSession(path).run(None, {"image": images})
    assert (label.shape, probabilities.shape) == ((360,), (360, 10))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(label, probabilities.argmax(axis=1))
    quantize_dynamic(path, tmp_path / "quantized.onnx")
    quantized = onnxruntime.InferenceSession(tmp_path / "quantized.onnx").run(None, {"image": images})[0]
    assert (quantized == label).mean() > 0.9


def test_the_file_is_self_contained(artifact: Artifact) -> None:
    assert [file.name for file in artifact.path.parent.iterdir() if ".onnx" in file.name] == ["iris.onnx"]
    model = onnx.load(artifact.path, load_external_data=False)
    assert all(tensor.data_location == TensorProto.DEFAULT for tensor in model.graph.initializer)
    content = artifact.path.read_bytes()
    assert str(ROOT).encode() not in content
    assert b".py" not in content
    assert artifact.sha256 == file_digest(artifact.path)


@pytest.mark.parametrize("rows", [1, 2, 7, 30])
def test_the_batch_is_dynamic(artifact: Artifact, iris: tuple[Experiment, Dataset], rows: int) -> None:
    x = dataset_store.open_split(iris[1], "test").x[:rows]
    label, probabilities = onnxruntime.InferenceSession(artifact.path).run(None, runtimes.feeds(iris[1].columns, x))
    assert (label.shape, probabilities.shape) == ((rows,), (rows, 3))


def test_the_graph_has_the_form_that_old_runtimes_and_other_tools_read(artifact: Artifact) -> None:
    model = onnx.load(artifact.path)
    assert model.ir_version == 8
    domains = [entry.domain for entry in model.opset_import]
    assert len(domains) == len(set(domains))
    described = {value.name for value in model.graph.value_info}
    assert not described & {tensor.name for tensor in model.graph.initializer}


def test_the_opset_is_the_configured_one(iris: tuple[Experiment, Dataset], fitted: Fit, tmp_path: Path) -> None:
    classifier = load(fitted, iris[1], iris[0])
    path = exporter.export(classifier, iris[1], Export(opset=21), tmp_path / "iris.onnx").path
    assert [(entry.domain, entry.version) for entry in onnx.load(path).opset_import] == [("", 21)]
