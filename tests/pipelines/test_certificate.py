"""The certificate of a shipped file, and the detection of changes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hallmark.flows.experiments import options
from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.common.records import Artifact, Dataset
from hallmark.tasks.ml.artifact import certificate, exporter, stamping
from hallmark.tasks.ml.artifact.certificate import Certificate
from hallmark.tasks.ml.artifact.proof import verifier
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation import evaluator
from tests.conftest import fit, load, prepare

Change = Callable[[onnx.ModelProto], None]


def ship(experiment: Experiment, dataset: Dataset, folder: Path) -> Artifact:
    """Train, export, prove and stamp."""
    fitted = fit(experiment, dataset, folder)
    classifier = load(fitted, dataset, experiment)
    evaluation = evaluator.evaluate(classifier, dataset, experiment.data, folder).record
    bare = exporter.export(classifier, dataset, experiment.export, folder / "bare.onnx")
    proof = verifier.verify(bare, classifier, dataset, folder / "parity.json")
    return stamping.stamp(bare, classifier, experiment, dataset, evaluation, proof, folder / "shipped.onnx")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Dataset, Artifact]:
    """Train the preset iris for a few epochs and ship it."""
    folder = tmp_path_factory.mktemp("iris")
    experiment = options.experiment("iris", ["--training.epochs=20", "--training.device=cpu"])
    dataset = prepare(experiment.data, folder)
    return experiment, dataset, ship(experiment, dataset, folder)


@pytest.fixture
def file(shipped: tuple[Experiment, Dataset, Artifact], tmp_path: Path) -> Path:
    """Copy the shipped file, so that a test may damage the copy."""
    path = tmp_path / "iris.onnx"
    path.write_bytes(shipped[2].path.read_bytes())
    return path


def change(path: Path, how: Change) -> None:
    """Edit a file with the tools of onnx."""
    model = onnx.load(path)
    how(model)
    onnx.save(model, path)


def failures(path: Path) -> dict[str, str]:
    """Return what the failed checks found, by name."""
    return {check.name: check.found for check in certificate.check(path).checks if not check.passed}


def test_a_shipped_file_passes_its_checks_and_names_its_origin(shipped: tuple[Experiment, Dataset, Artifact]) -> None:
    experiment, dataset, artifact = shipped
    verdict = certificate.check(artifact.path)
    assert verdict.holds
    assert verdict.sha256 == artifact.sha256
    assert [check.name for check in verdict.checks] == ["ONNX checker", "seal", "golden vectors"]
    found, content = certificate.read(artifact.path)
    assert found == verdict.certificate
    assert content == artifact.path.read_bytes()
    assert (found.experiment, found.dataset) == (experiment.digest, dataset.digest)
    assert [one.name for one in found.inputs] == list(dataset.columns)
    assert all(one.lowest < one.highest and one.shape == (1,) for one in found.inputs)
    assert found.classes == dataset.classes
    assert sum(found.class_shares) == pytest.approx(1)
    assert found.metrics["test/accuracy"] > 0.8
    assert (found.proof["verdict"], found.proof["rows"]) == ("passed", 30)
    assert found.proof["largest_error"] <= found.proof["tolerance"] == found.golden.tolerance
    assert set(found.golden.label) == {0, 1, 2}
    assert not list(artifact.path.parent.glob("bare*"))


def test_any_tool_reads_the_certificate_as_json(shipped: tuple[Experiment, Dataset, Artifact]) -> None:
    properties = {entry.key: entry.value for entry in onnx.load(shipped[2].path).metadata_props}
    assert list(properties)[-1] == "hallmark.digest"
    assert json.loads(properties["hallmark.classes"]) == ["setosa", "versicolor", "virginica"]
    assert json.loads(properties["hallmark.experiment"]) == shipped[0].digest


def test_the_same_experiment_gives_the_same_bytes(
    shipped: tuple[Experiment, Dataset, Artifact], tmp_path: Path
) -> None:
    assert ship(shipped[0], prepare(shipped[0].data, tmp_path), tmp_path).sha256 == shipped[2].sha256


def test_saving_an_unchanged_file_keeps_the_seal(file: Path) -> None:
    before = file.read_bytes()
    change(file, lambda model: None)  # noqa: ARG005 - nothing is changed
    assert file.read_bytes() == before


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def edit_a_number(model: onnx.ModelProto) -> None:
    entry = next(entry for entry in model.metadata_props if entry.key == "hallmark.metrics")
    entry.value = entry.value.replace('"test/accuracy":', '"test/accuracy":0.99,"was":')


def add_a_note(model: onnx.ModelProto) -> None:
    helper.set_model_props(model, {entry.key: entry.value for entry in model.metadata_props} | {"note": "mine"})


def double_a_weight(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda tensor: numpy_helper.to_array(tensor).size)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(2), tensor.name))


@pytest.mark.parametrize("how", [edit_a_number, add_a_note, double_a_weight])
def test_an_edit_breaks_the_seal(file: Path, how: Change) -> None:
    change(file, how)
    assert "has changed since it was sealed" in failures(file)["seal"]
    with pytest.raises(DamagedError, match=r"iris\.onnx: the content has changed since it was sealed"):
        certificate.read(file)


def test_damage_breaks_the_seal(file: Path) -> None:
    flip_a_bit(file)
    assert "seal" in failures(file)


def reseal(path: Path) -> None:
    """Replace the seal, as a forger would."""
    model = onnx.load(path)
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != "hallmark.digest"}
    helper.set_model_props(model, kept)
    body = model.SerializeToString(deterministic=True)
    path.write_bytes(body + certificate._seal(body))


def test_golden_vectors_detect_a_resealed_change(file: Path) -> None:
    change(file, double_a_weight)
    reseal(file)
    assert list(failures(file)) == ["golden vectors"]
    assert "rows differ" in failures(file)["golden vectors"]


def test_an_unreadable_certificate_is_reported_as_a_failed_check(file: Path) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        next(entry for entry in model.metadata_props if entry.key == "hallmark.golden").value = "{"

    change(file, spoil)
    reseal(file)
    assert list(failures(file)) == ["certificate"]
    with pytest.raises(DamagedError, match="its certificate cannot be read"):
        certificate.read(file)


def test_a_malformed_graph_is_detected(file: Path) -> None:
    change(file, lambda model: model.graph.node[0].input.__setitem__(0, "nothing"))
    reseal(file)
    assert set(failures(file)) == {"ONNX checker", "golden vectors"}


def move_weights_outside(model: onnx.ModelProto, location: str) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


@pytest.mark.parametrize("location", ["weights.bin", "../../etc/passwd", "/etc/passwd"])
def test_weights_outside_the_file_are_refused_wherever_they_are(file: Path, location: str) -> None:
    model = onnx.load(file)
    move_weights_outside(model, location)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=f"weights are in another file, .* in '{location}'"):
        certificate.check(file)


def test_weights_outside_are_found_in_inner_graphs_too(file: Path) -> None:
    model = onnx.load(file)
    inner = onnx.GraphProto()
    inner.initializer.add(name="hidden", data_location=TensorProto.EXTERNAL).external_data.add(
        key="location", value="x"
    )
    model.graph.node[0].attribute.add(name="branch", type=onnx.AttributeProto.GRAPH).g.CopyFrom(inner)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="'hidden' in 'x'"):
        certificate.check(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not an ONNX file"), (b"not a model at all", "not an ONNX file"), (None, "cannot be read: No such file")],
)
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        certificate.check(path)


def test_a_truncated_file_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(InputError):
        certificate.check(file)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as large:
        large.truncate(certificate.LIMIT + 1)  # a sparse file, which takes no disk space
    with pytest.raises(InputError, match=r"has 536,870,913 bytes: expected at most 536,870,912"):
        certificate.check(path)


def test_an_onnx_file_without_a_seal_is_refused(file: Path) -> None:
    change(file, lambda model: model.metadata_props.__delitem__(slice(None)))
    with pytest.raises(InputError, match="without Hallmark's seal"):
        certificate.check(file)


def test_a_file_that_fails_a_check_is_not_shipped(
    shipped: tuple[Experiment, Dataset, Artifact], tmp_path: Path
) -> None:
    valid, content = certificate.read(shipped[2].path)
    wrong = replace(valid, golden=replace(valid.golden, label=[0] * len(valid.golden.label)))
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(content)
    with pytest.raises(DamagedError, match="fails its checks: golden vectors"):
        certificate.stamp(bare, wrong, tmp_path / "never.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["bare.onnx"]


def test_golden_vectors_are_the_least_confident_rows_of_all_classes() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.50001, 0.49999], [0.45, 0.55]])
    assert stamping._least_confident(probabilities) == [1, 4, 0, 2, 3]


def test_the_certificate_has_one_entry_for_each_field(file: Path) -> None:
    keys = {entry.key for entry in onnx.load(file).metadata_props}
    assert keys == {f"hallmark.{name}" for name in Certificate.__dataclass_fields__} | {"hallmark.digest"}
