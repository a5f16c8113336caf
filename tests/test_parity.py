from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from flows import options
from tasks.ml import models, onnx_export, parity
from tasks.ml.config import Experiment
from tasks.ml.digests import file_digest
from tasks.ml.errors import DamagedError, ParityError
from tasks.ml.records import Artifact, Dataset, Fit
from tests.conftest import fit, load, prepare

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture
def classifier(iris: tuple[Experiment, Dataset], fitted: Fit) -> models.Classifier:
    return load(fitted, iris[1], iris[0])


@pytest.fixture
def artifact(iris: tuple[Experiment, Dataset], classifier: models.Classifier, tmp_path: Path) -> Artifact:
    return onnx_export.export(classifier, iris[1], iris[0].export, tmp_path / "iris.onnx")


def test_an_honest_file_passes(
    artifact: Artifact, classifier: models.Classifier, iris: tuple[Experiment, Dataset]
) -> None:
    proof = parity.verify(artifact, classifier, iris[1])
    assert proof.rows == 30
    assert proof.max_abs_diff < 1e-6


def weight(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(
        next(tensor for tensor in model.graph.initializer if tensor.name.endswith(name))
    ).copy()


def put(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name.endswith(name))
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def nudge(model: onnx.ModelProto) -> None:
    put(model, "network.4.weight", weight(model, "network.4.weight") * np.float32(1.001))


def swap_classes(model: onnx.ModelProto) -> None:
    for name in ("network.4.weight", "network.4.bias"):
        put(model, name, weight(model, name)[[1, 0, 2]])


def break_with_nan(model: onnx.ModelProto) -> None:
    put(model, "network.4.bias", np.full(3, np.nan, dtype=np.float32))


def drop_the_scaling(model: onnx.ModelProto) -> None:
    put(model, "scaling.shift", np.zeros(4, dtype=np.float32))


def softmax_over_rows(model: onnx.ModelProto) -> None:
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    softmax.attribute[0].CopyFrom(helper.make_attribute("axis", 0))


def other_labels(model: onnx.ModelProto) -> None:
    """Only the label is wrong: it is the smallest probability's."""
    next(node for node in model.graph.node if node.op_type == "ArgMax").op_type = "ArgMin"


def one_column_of_probabilities_less(model: onnx.ModelProto) -> None:
    for name in ("network.4.weight", "network.4.bias"):
        put(model, name, weight(model, name)[:2])
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nudge, r"whole test split.*rows disagree; the worst is test row \d+: torch says label \d of \["),
        (swap_classes, "rows disagree"),
        (break_with_nan, "30 of 30 rows disagree.*nan"),
        (drop_the_scaling, "rows disagree"),
        (softmax_over_rows, "30 of 30 rows disagree"),
        (other_labels, "30 of 30 rows disagree"),
        (one_column_of_probabilities_less, r"expected float32 \(30, 3\), the ONNX file gives float32 \(30, 2\)"),
    ],
)
def test_a_file_that_predicts_otherwise_is_refused(
    artifact: Artifact,
    classifier: models.Classifier,
    iris: tuple[Experiment, Dataset],
    change: Change,
    message: str,
) -> None:
    model = onnx.load(artifact.path)
    change(model)
    del model.graph.value_info[:]
    onnx.save(model, artifact.path)
    changed = Artifact(artifact.path, file_digest(artifact.path))
    with pytest.raises(ParityError, match=message) as refused:
        parity.verify(changed, classifier, iris[1])
    assert "\n" not in str(refused.value)


def test_the_worst_row_is_named() -> None:
    rows = np.arange(4)
    expected = parity.Answer(np.zeros(4, dtype=np.int64), np.full((4, 2), 0.5, dtype=np.float32))
    found = parity.Answer(expected.label.copy(), expected.probabilities.copy())
    assert parity._compare(found, expected, rows, "here") == 0.0
    found.probabilities[1] += 1e-3
    found.probabilities[2] += 2e-3
    with pytest.raises(ParityError, match=r"here.*2 of 4 rows disagree; the worst is test row 2"):
        parity._compare(found, expected, rows, "here")
    found.probabilities[:] = expected.probabilities + np.float32(1.4e-5)
    assert parity._compare(found, expected, rows, "here") == pytest.approx(1.4e-5, rel=1e-2)
    found.label[3] = 1
    with pytest.raises(ParityError, match="1 of 4 rows disagree; the worst is test row 3: torch says label 0"):
        parity._compare(found, expected, rows, "here")


def test_a_graph_made_for_one_batch_size_is_refused(
    classifier: models.Classifier, iris: tuple[Experiment, Dataset], tmp_path: Path
) -> None:
    served = onnx_export.Served(classifier).eval()
    example = tuple(torch.zeros(30, 1) for _ in range(4))
    path = tmp_path / "fixed.onnx"
    torch.onnx.export(
        served, example, path, dynamo=True, verbose=False, external_data=False,
        input_names=onnx_export.input_names(iris[1]), output_names=onnx_export.OUTPUTS,
    )  # fmt: skip
    with pytest.raises(ParityError, match=r"batches of 1.*cannot be run"):
        parity.verify(Artifact(path, file_digest(path)), classifier, iris[1])


def test_a_file_changed_since_it_was_written_is_not_even_opened(
    artifact: Artifact, classifier: models.Classifier, iris: tuple[Experiment, Dataset]
) -> None:
    artifact.path.write_bytes(artifact.path.read_bytes() + b"!")
    with pytest.raises(DamagedError, match=r"iris\.onnx"):
        parity.verify(artifact, classifier, iris[1])


@pytest.mark.parametrize(
    "tokens",
    [
        ("--model.output=sigmoid",),
        ("--model.output=softmax",),
        ("--model.output=log_softmax", "--training.loss.kind=nll"),
        ("--model.output=softmax", "--training.loss.kind=mse"),
        ("--model.output=sigmoid", "--training.loss.kind=bce"),
        # So confident that most of the ten sigmoids are far below what onnxruntime's own can tell from 0.
        ("--training.loss.kind=bce_with_logits", "--model.kind=linear", "--training.lr=0.5"),
        ("--model.kind=cnn", "--model.channels=4,8", "--model.hidden=16"),
        ("--model.kind=cnn", "--model.channels=4", "--model.kernel=2", "--model.padding=valid"),
        ("--model.kind=cnn", "--model.channels=4", "--model.kernel=5", "--model.padding=valid"),
    ],
)
def test_every_loss_and_output_is_served_as_it_was_trained(tokens: tuple[str, ...], tmp_path: Path) -> None:
    experiment = options.experiment("digits", [*tokens, "--training.epochs=3"])
    dataset = prepare(experiment.data, tmp_path)
    classifier = load(fit(experiment, dataset, tmp_path), dataset, experiment)
    artifact = onnx_export.export(classifier, dataset, experiment.export, tmp_path / "digits.onnx")
    assert parity.verify(artifact, classifier, dataset).rows == 360


def test_one_unit_is_served_as_two_classes(tmp_path: Path) -> None:
    experiment = options.experiment("threshold", ["--training.epochs=5"])
    dataset = prepare(experiment.data, tmp_path)
    classifier = load(fit(experiment, dataset, tmp_path), dataset, experiment)
    artifact = onnx_export.export(classifier, dataset, experiment.export, tmp_path / "threshold.onnx")
    assert parity.verify(artifact, classifier, dataset).rows == 39
    x = np.array([[-2.0], [1.9]], dtype=np.float32)
    label, probabilities = parity.open_session(str(artifact.path)).run(None, {"x": x})
    assert (label.tolist(), probabilities.shape) == ([0, 1], (2, 2))
