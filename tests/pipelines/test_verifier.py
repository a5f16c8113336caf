import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from hallmark.flows.experiments import options
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.errors import DamagedError, ParityError
from hallmark.tasks.common.records import OUTPUT_NAMES, Artifact, Dataset, Fit, Proof
from hallmark.tasks.ml.artifact import exporter, graph_form, runtimes
from hallmark.tasks.ml.artifact.proof import row_verdicts, verifier
from hallmark.tasks.ml.artifact.proof.float64_reference import TorchReference
from hallmark.tasks.ml.artifact.proof.row_verdicts import WayResult
from hallmark.tasks.ml.artifact.runtimes import Asked, Predicted
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data.dataset_store import training_range
from hallmark.tasks.ml.models import networks
from tests.bench import blind_sides, image_mutants
from tests.conftest import fit, load, prepare
from tests.support import owned

Change = Callable[[onnx.ModelProto], None]
NUMERIC = {"age": (18.0, 80.0), "children, at home": (0.0, 3.0), "is.member": (0.0, 1.0)}


@pytest.fixture
def classifier(iris: tuple[Experiment, Dataset], fitted: Fit) -> networks.Classifier:
    return load(fitted, iris[1], iris[0])


def verify(artifact: Artifact, classifier: networks.Classifier, dataset: Dataset) -> tuple[Proof, dict[str, Any]]:
    """Verify a file, and return the proof and its report."""
    report = artifact.path.with_name("parity.json")
    proof = verifier.verify(artifact, classifier, dataset, report)
    return proof, json.loads(report.read_text())


def refuse(artifact: Artifact, classifier: networks.Classifier, dataset: Dataset, message: str) -> dict[str, Any]:
    """Check that a file is refused with this message in one line, and return its report."""
    with pytest.raises(ParityError, match=message) as refused:
        verify(artifact, classifier, dataset)
    assert "\n" not in str(refused.value)
    report: dict[str, Any] = json.loads(artifact.path.with_name("parity.json").read_text())
    assert report["verdict"] == "failed"
    return report


def test_an_unchanged_file_passes(
    artifact: Artifact, classifier: networks.Classifier, iris: tuple[Experiment, Dataset]
) -> None:
    proof, report = verify(artifact, classifier, iris[1])
    assert proof.rows == 30
    assert proof.max_abs_diff < 1e-6
    assert proof.ties == 0
    assert report["verdict"] == "passed"
    assert report["rows"] == {"test": 30, "made": proof.rows_made, "in_every_way": proof.rows_in_every_way}
    assert proof.rows_in_every_way >= 512
    assert proof.largest_error == report["smallest_tolerance"] < report["tolerance"]["test"] < 1e-5
    own = report["own_float32_error"]
    assert 0 < proof.own_error == max(own["test"], own["made"])
    ways = [way["way"] for way in report["ways"]]
    assert list(proof.ways) == ways
    assert ways[-3:] == ["onnxruntime, graph not optimised", "onnxruntime, all at once", "onnx's reference evaluator"]
    assert all(way["wrong"] == 0 for way in report["ways"])
    sizes = {size for way in report["ways"] for size in way["sizes"]}
    powers = {2**exponent + by for exponent in range(6, 13) for by in (-1, 0, 1)}
    assert sizes >= {*range(1, 34), *powers, 30, 1000, runtimes.NUMBERS_AT_ONCE // 4}


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


def label_the_least_probable(model: onnx.ModelProto) -> None:
    """Return the label of the smallest probability. Nothing else is wrong."""
    next(node for node in model.graph.node if node.op_type == "ArgMax").op_type = "ArgMin"


def drop_a_class(model: onnx.ModelProto) -> None:
    for name in ("network.4.weight", "network.4.bias"):
        put(model, name, weight(model, name)[:2])
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 2


@pytest.mark.parametrize(
    ("change", "message", "operator"),
    [
        (nudge, r"onnxruntime, batches of 1 to 33: .*; the worst is .* in a batch of \d+: torch predicts", "Gemm"),
        (swap_classes, "rows disagree", "Gemm"),
        (break_with_nan, r"(\d+) of \1 rows disagree.*nan", "Gemm"),
        (drop_the_scaling, "rows disagree.*normalisation left out", "Sub"),
        (softmax_over_rows, "rows disagree.*softmax over the wrong axis", "Softmax"),
        (label_the_least_probable, r"(\d+) of \1 rows disagree", "ArgMin"),
        (drop_a_class, r"'probabilities' is FLOAT \[0, 2\], expected .* \[0, 3\]", None),
    ],
)
def test_a_file_with_other_predictions_is_refused(
    artifact: Artifact,
    classifier: networks.Classifier,
    iris: tuple[Experiment, Dataset],
    change: Change,
    message: str,
    operator: str | None,
) -> None:
    report = refuse(changed(artifact, change), classifier, iris[1], message)
    if operator:
        assert report["node"]["operator"] == operator
        worst = report["worst_rows"][0]
        assert len(worst["torch_float64"]) == len(worst["probabilities"]) == 3
        assert worst["error"] is None or worst["error"] > worst["tolerance"] or worst["label"] != worst["torch_label"]


def changed(artifact: Artifact, change: Change) -> Artifact:
    """Change a file in place, and return it with its new digest."""
    model = onnx.load(artifact.path)
    change(model)
    del model.graph.value_info[:]
    onnx.save(model, artifact.path)
    return Artifact(artifact.path, file_digest(artifact.path))


def test_defects_of_some_batches_and_some_values_are_found_by_asking(
    artifact: Artifact, classifier: networks.Classifier, iris: tuple[Experiment, Dataset]
) -> None:
    ranges = zip(iris[1].columns, *(bound.tolist() for bound in training_range(iris[1])), strict=True)
    bounds = {name: (low, high) for name, low, high in ranges if name.startswith("petal")}
    kinds: set[str] = set()
    for kind, name, mutant in blind_sides.blind_sides(onnx.load(artifact.path), bounds):
        if kind not in kinds:
            kinds.add(kind)
            onnx.save(mutant, artifact.path)
            assert verifier.compare(artifact.path, classifier, iris[1]).refused, (kind, name)
    assert len(kinds) == 8


def test_a_table_is_asked_for_text_like_a_known_one_and_for_several_gaps(tmp_path: Path) -> None:
    experiment = owned.experiment(owned.write(owned.mixed(), tmp_path / "people.parquet"), "people")
    dataset = prepare(experiment.data, tmp_path)
    classifier = load(fit(experiment, dataset, tmp_path), dataset, experiment)
    artifact = exporter.export(classifier, dataset, experiment.export, tmp_path / "people.onnx")
    honest = onnx.load(artifact.path)
    assert verify(artifact, classifier, dataset)[0].rows == 41
    cities = dict(zip(owned.CITIES, owned.CITIES, strict=True)) | {"": ""}
    mutants = [
        blind_sides.labelled_alike(honest, "c0", cities | {"SÃO PAULO": "São Paulo"}),
        blind_sides.labelled_alike(honest, "c0", cities | {"Sao Paulo": "São Paulo"}),
        blind_sides.labelled_alike(honest, "c0", cities | {" 日本": "日本"}),
        *(graph for kind, _, graph in blind_sides.blind_sides(honest, NUMERIC) if kind == "logits halved, many gaps"),
    ]
    for mutant in mutants:
        onnx.save(mutant, artifact.path)
        comparison = verifier.compare(artifact.path, classifier, dataset)
        assert (comparison.problem, bool(comparison.refused)) == ("", True)
        assert comparison.refused  # for mypy
        wrong = {comparison.rows.name(row) for row in comparison.refused.rows[comparison.refused.is_wrong].tolist()}
        named = "edge row 'text" if mutant is not mutants[-1] else "edge row 'no "
        assert any(name.startswith(named) for name in wrong), wrong


def test_images_are_asked_faint_light_and_with_plain_borders(tmp_path: Path) -> None:
    experiment = options.experiment("digits", ["--model.kind=linear", "--training.epochs=1"])
    dataset = prepare(experiment.data, tmp_path)
    classifier = load(fit(experiment, dataset, tmp_path), dataset, experiment)
    artifact = exporter.export(classifier, dataset, experiment.export, tmp_path / "digits.onnx")
    wanted = {"no pixel above 10%": "faint", "contrast below 30%": "light", "grey above, below": "grey bands above"}
    for _, name, mutant in image_mutants.drawings(onnx.load(artifact.path), int(dataset.largest or 0)):
        if name in wanted:
            onnx.save(mutant, artifact.path)
            refused = verifier.compare(artifact.path, classifier, dataset).refused
            assert refused, name
            wrong = verifier.probes(dataset).edges
            rows = refused.rows[refused.is_wrong] - dataset.rows["test"]
            assert any(wanted[name] in wrong[row] for row in rows[rows < len(wrong)].tolist() if row >= 0), name


def test_graphs_that_mix_rows_are_refused_by_their_form(artifact: Artifact) -> None:
    honest = onnx.load(artifact.path)
    assert graph_form.form_violation(honest) == ""
    mutants = [*blind_sides.structural(honest), *blind_sides.blind_sides(honest, {})]
    found = {(kind, name): graph_form.form_violation(mutant) for kind, name, mutant in mutants}
    assert all(found.values()), found
    assert "RandomUniform is not among the operators" in found["random operator", "RandomUniform"]
    assert "depend on the other rows" in found["operator over the batch", "ReduceSum"]
    rare = blind_sides.unfindable(honest, "sepal_length", 5.123)[2]
    assert graph_form.form_violation(rare) == ""  # what neither asking nor the form can find


def judge(predicted: Predicted, exact: np.ndarray) -> WayResult:
    """Judge predictions as if torch computed `exact` in float32 too, up to rounding."""

    class Torch:
        float32 = Predicted(exact.argmax(axis=1), exact.astype(np.float32))
        probabilities = exact
        is_exact = np.ones(len(exact), dtype=bool)
        is_asked = np.ones(len(exact), dtype=bool)
        tolerance = np.full(len(exact), 1e-5)

        def look_up(self, rows: np.ndarray) -> None:
            """Do nothing, because all rows are known."""

    rows = np.arange(len(exact))
    return row_verdicts.judge(Asked("here", predicted, rows, rows), cast(TorchReference, Torch()))


def test_a_row_is_wrong_beyond_the_tolerance_or_with_another_label() -> None:
    exact = np.tile([0.6, 0.4], (4, 1))
    label, probabilities = np.zeros(4, dtype=np.int64), exact.astype(np.float32)
    assert not judge(Predicted(label, probabilities), exact).is_wrong.any()
    off = probabilities + np.array([[0, 0], [1e-3, -1e-3], [2e-3, -2e-3], [4e-6, -4e-6]], dtype=np.float32)
    judged = judge(Predicted(label, off), exact)
    assert judged.is_wrong.tolist() == [False, True, True, False]
    assert judged.worst.tolist() == [2, 1]
    flipped = judge(Predicted(np.array([0, 0, 0, 1]), probabilities), exact)
    assert flipped.is_wrong.tolist() == [False, False, False, True]
    sums = probabilities.copy()
    sums[1] += 9e-6
    assert judge(Predicted(label, sums), exact).is_wrong.tolist() == [False, True, False, False]


def test_another_label_is_accepted_only_at_a_tie() -> None:
    exact = np.array([[0.5 + 1e-9, 0.5 - 1e-9], [0.5 + 1e-6, 0.5 - 1e-6]])
    probabilities = np.array([[0.5 - 6e-8, 0.5 + 6e-8], [0.5 - 6e-8, 0.5 + 6e-8]], dtype=np.float32)
    judged = judge(Predicted(np.array([1, 1]), probabilities), exact)
    assert judged.is_tie.tolist() == [True, True]  # the second is off by a little over 1e-6, more than half its margin
    away = np.array([[0.5, 0.5], [0.5 + 1e-6, 0.5 - 1e-6]])
    judged = judge(Predicted(np.array([0, 1]), away.astype(np.float32)), away)
    assert judged.is_wrong.tolist() == [False, True]


def test_a_model_that_is_not_finite_is_refused(
    artifact: Artifact, classifier: networks.Classifier, iris: tuple[Experiment, Dataset]
) -> None:
    next(classifier.network.parameters()).data.fill_(float("nan"))
    changed(artifact, break_with_nan)
    broken = Artifact(artifact.path, file_digest(artifact.path))
    refuse(broken, classifier, iris[1], "rows disagree.*nan")


def test_a_graph_made_for_one_batch_size_is_refused(
    classifier: networks.Classifier, iris: tuple[Experiment, Dataset], tmp_path: Path
) -> None:
    served = exporter.Served(classifier).eval()
    example = tuple(torch.zeros(30, 1) for _ in range(4))
    path = tmp_path / "fixed.onnx"
    torch.onnx.export(
        served, example, path, dynamo=True, verbose=False, external_data=False,
        input_names=runtimes.input_names(iris[1].columns), output_names=OUTPUT_NAMES,
    )  # fmt: skip
    refuse(Artifact(path, file_digest(path)), classifier, iris[1], r"'sepal_length' is FLOAT \[30, 1\], expected")


def test_a_file_changed_since_it_was_written_is_not_opened(
    artifact: Artifact, classifier: networks.Classifier, iris: tuple[Experiment, Dataset]
) -> None:
    artifact.path.write_bytes(artifact.path.read_bytes() + b"!")
    with pytest.raises(DamagedError, match=r"iris\.onnx"):
        verify(artifact, classifier, iris[1])


@pytest.mark.parametrize(
    "tokens",
    [
        ("--model.output=sigmoid",),
        ("--model.output=softmax",),
        ("--model.output=log_softmax", "--training.loss.kind=nll"),
        ("--model.output=softmax", "--training.loss.kind=mse"),
        ("--model.output=sigmoid", "--training.loss.kind=bce"),
        # So confident that onnxruntime cannot distinguish most of the ten sigmoids from 0.
        ("--training.loss.kind=bce_with_logits", "--model.kind=linear", "--training.lr=0.5"),
        ("--model.kind=cnn", "--model.channels=4,8", "--model.hidden=16"),
        ("--model.kind=cnn", "--model.channels=4", "--model.kernel=2", "--model.padding=valid"),
        ("--model.kind=cnn", "--model.channels=4", "--model.kernel=5", "--model.padding=valid"),
    ],
)
def test_every_loss_and_output_is_exported_as_trained(tokens: tuple[str, ...], tmp_path: Path) -> None:
    experiment = options.experiment("digits", [*tokens, "--training.epochs=3"])
    dataset = prepare(experiment.data, tmp_path)
    classifier = load(fit(experiment, dataset, tmp_path), dataset, experiment)
    artifact = exporter.export(classifier, dataset, experiment.export, tmp_path / "digits.onnx")
    assert verify(artifact, classifier, dataset)[0].rows == 360


def test_one_unit_is_exported_as_two_classes(tmp_path: Path) -> None:
    experiment = options.experiment("threshold", ["--training.epochs=5"])
    dataset = prepare(experiment.data, tmp_path)
    classifier = load(fit(experiment, dataset, tmp_path), dataset, experiment)
    artifact = exporter.export(classifier, dataset, experiment.export, tmp_path / "threshold.onnx")
    assert verify(artifact, classifier, dataset)[0].rows == 39
    x = np.array([[-2.0], [1.9]], dtype=np.float32)
    label, probabilities = runtimes.open_session(str(artifact.path)).run(None, {"x": x})
    assert (label.tolist(), probabilities.shape) == ([0, 1], (2, 2))


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [3, 2]},
        {"kernel_shape": [2, 2], "strides": [1, 1]},
        {"kernel_shape": [2, 2]},
        {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ],
)
def test_pooling_equals_that_of_onnx(attributes: dict[str, Any]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 8)).astype(np.float32)
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MaxPool", ["x"], ["y"], **attributes)], "pool", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    expected, found = ReferenceEvaluator(model), runtimes.reference_evaluator(model)
    np.testing.assert_array_equal(found.run(None, {"x": x})[0], expected.run(None, {"x": x})[0])
