"""`hallmark verify` and `hallmark reproduce` on the command line."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from hallmark.flows.experiments import presets
from hallmark.flows.train import train
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.artifact import file_format
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.tracking.client import connect
from tests.support.consoles import Call


@pytest.fixture(scope="module")
def trained(prefect_server: str) -> tuple[Experiment, Outcome]:  # noqa: ARG001 - the server comes first
    preset = presets.iris()
    changed = preset.training.model_copy(update={"device": "cpu", "epochs": 20, "seed": 17})
    experiment = preset.model_copy(update={"name": f"v{uuid.uuid4().hex[:12]}", "training": changed})
    return experiment, train(experiment)


def test_a_shipped_file_passes(console: Call, trained: tuple[Experiment, Outcome]) -> None:
    artifact = trained[1].artifact
    code, out, error = console("verify", str(artifact.path))
    assert (code, error) == (0, "")
    assert out.splitlines()[-1] == "verdict         holds"
    for expected in (artifact.sha256, trained[0].digest, "setosa, versicolor, virginica", "30 test rows and"):
        assert expected in out


def test_json_is_the_last_line(console: Call, trained: tuple[Experiment, Outcome]) -> None:
    code, out, _ = console("verify", str(trained[1].artifact.path), "--json")
    result = json.loads(out.splitlines()[-1])
    assert (code, result["status"], result["sha256"]) == (0, "holds", trained[1].artifact.sha256)
    assert [check["passed"] for check in result["checks"]] == [True] * 3
    assert result["certificate"]["proof"]["verdict"] == "passed"


def test_an_edited_file_fails(console: Call, trained: tuple[Experiment, Outcome], tmp_path: Path) -> None:
    model = onnx.load(trained[1].artifact.path)
    model.graph.node[0].name = "renamed"
    onnx.save(model, tmp_path / "edited.onnx")
    code, out, error = console("verify", str(tmp_path / "edited.onnx"))
    assert code == 1
    assert "does not hold" in out.splitlines()[-1]
    assert error.count("\n") == 1
    assert "edited.onnx: verification failed: seal: " in error


@pytest.mark.parametrize("content", [b"", b"text", onnx.ModelProto(ir_version=10).SerializeToString()])
def test_other_files_are_refused(console: Call, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    code, out, error = console("verify", str(path))
    assert (code, out) == (2, "")
    assert error.count("\n") == 1


def test_the_registry_knows_a_shipped_file_by_its_digest(
    console: Call, trained: tuple[Experiment, Outcome], tmp_path: Path
) -> None:
    experiment, outcome = trained
    code, out, _ = console("verify", str(outcome.artifact.path), "--registered")
    assert code == 0
    assert f"{experiment.name} version 1 (champion), run {outcome.run.id}" in out
    forged = tmp_path / "forged.onnx"
    model = onnx.load(outcome.artifact.path)
    model.producer_name = "forger"
    del model.metadata_props[-1]
    body = model.SerializeToString(deterministic=True)
    from hallmark.tasks.ml.artifact.certificate import _seal

    forged.write_bytes(body + _seal(body))
    assert console("verify", str(forged))[0] == 0
    code, _, error = console("verify", str(forged), "--registered")
    assert code == 1
    assert "registry: no registered version has this sha256" in error


def test_a_registered_model_is_fetched_and_checked(console: Call, trained: tuple[Experiment, Outcome]) -> None:
    experiment, outcome = trained
    for reference in (f"models:/{experiment.name}@champion", f"models:/{experiment.name}/1"):
        code, out, _ = console("verify", reference)
        assert code == 0
        assert outcome.artifact.sha256 in out
    code, out, error = console("verify", f"models:/{experiment.name}@nobody")
    assert (code, out, error.count("\n")) == (2, "", 1)


def test_verifying_a_file_imports_no_heavy_library(
    trained: tuple[Experiment, Outcome], python: Callable[..., str]
) -> None:
    code = (
        "import sys; from hallmark.flows.__main__ import run; assert run(['verify', sys.argv[1]]) == 0\n"
        "print(sorted({'torch', 'mlflow', 'prefect', 'pydantic', 'sklearn'} & set(sys.modules)))"
    )
    assert python(code, trained[1].artifact.path).splitlines()[-1] == "[]"


def test_a_refused_file_leaves_its_evidence_with_the_run(
    trained: tuple[Experiment, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hallmark.tasks.common.errors import ParityError
    from hallmark.tasks.common.records import Artifact
    from hallmark.tasks.ml.artifact import exporter

    honest = exporter.export

    def export_damaged(*given: object) -> Artifact:
        artifact = honest(*given)  # type: ignore[arg-type]
        model = onnx.load(artifact.path)
        next(node for node in model.graph.node if node.op_type == "ArgMax").op_type = "ArgMin"
        onnx.save(model, artifact.path)
        return Artifact(artifact.path, file_digest(artifact.path))

    monkeypatch.setattr(exporter, "export", export_damaged)
    experiment = trained[0].model_copy(update={"name": f"v{uuid.uuid4().hex[:12]}"})
    with pytest.raises(ParityError, match="ArgMin"):
        train(experiment)
    client = connect()
    (stored,) = client.search_runs(
        [one.experiment_id for one in client.search_experiments()], f"tags.`hallmark.name` = '{experiment.name}'"
    )
    assert stored.info.status == "FAILED"
    kept = {item.path for item in client.list_artifacts(stored.info.run_id, "parity")}
    assert kept == {"parity/parity.json", f"parity/{experiment.name}.unproven.onnx"}
    report = json.loads(
        Path(client.download_artifacts(stored.info.run_id, "parity/parity.json", str(tmp_path))).read_text()
    )
    assert report["verdict"] == "failed"
    assert report["node"]["operator"] == "ArgMin"
    assert not client.search_model_versions(f"name = '{experiment.name}'")
    assert not list(trained[1].artifact.path.parent.glob(f"{experiment.name}.onnx"))


@pytest.mark.usefixtures("prefect_server")
def test_a_run_is_reproduced_identically(console: Call, trained: tuple[Experiment, Outcome]) -> None:
    before = len(connect().search_model_versions(f"name = '{trained[0].name}'"))
    code, out, _ = console("reproduce", trained[1].run.id, "--json")
    result = json.loads(out.splitlines()[-1])
    assert code == 0
    assert result == {"status": "identical", "weights": True, "file": True, "differences": []}
    assert len(connect().search_model_versions(f"name = '{trained[0].name}'")) == before


@pytest.mark.usefixtures("prefect_server")
def test_changes_since_the_run_are_named(console: Call, trained: tuple[Experiment, Outcome]) -> None:
    client, run_id = connect(), trained[1].run.id
    weights = client.get_run(run_id).data.tags["hallmark.weights_sha256"]
    fingerprint = client.get_run(run_id).data.tags["hallmark.fingerprint"]
    versions = json.loads(client.get_run(run_id).data.tags["hallmark.versions"])
    try:
        client.set_tag(run_id, "hallmark.weights_sha256", "0" * 64)
        client.set_tag(run_id, "hallmark.fingerprint", json.dumps(json.loads(fingerprint) | {"torch": "1.0"}))
        # A run of before the form of exported files was recorded.
        client.set_tag(run_id, "hallmark.versions", json.dumps({k: v for k, v in versions.items() if k != "export"}))
        code, out, error = console("reproduce", run_id[:8])
        assert code == 1
        assert out.splitlines()[0].split() == ["weights", "different"]
        assert "torch: was 1.0, is " in error
        assert f"export: was 1, is {file_format.VERSION}" in error
        assert error.splitlines()[-1].startswith(f"hallmark: {run_id[:8]}: the result is different: ")
    finally:
        client.set_tag(run_id, "hallmark.weights_sha256", weights)
        client.set_tag(run_id, "hallmark.fingerprint", fingerprint)
        client.set_tag(run_id, "hallmark.versions", json.dumps(versions))


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("run_id", "message"), [("ffffffff", "no run id begins"), ("no run", "is not a run id")])
def test_an_unknown_run_is_refused(console: Call, run_id: str, message: str) -> None:
    code, out, error = console("reproduce", run_id)
    assert (code, out) == (2, "")
    assert message in error


@pytest.mark.usefixtures("prefect_server")
def test_an_unseeded_run_is_reproduced_from_the_seed_it_drew(console: Call) -> None:
    preset = presets.blobs_as_published()
    changed = preset.training.model_copy(update={"device": "cpu", "epochs": 5})
    outcome = train(preset.model_copy(update={"name": f"v{uuid.uuid4().hex[:12]}", "training": changed}))
    assert console("reproduce", outcome.run.id)[0] == 0


@pytest.mark.usefixtures("prefect_server")
def test_a_run_whose_experiment_cannot_be_read_is_refused(
    console: Call, trained: tuple[Experiment, Outcome], tmp_path: Path
) -> None:
    client = connect()
    stored = client.get_run(trained[1].run.id)
    run_id = client.create_run(stored.info.experiment_id, tags=stored.data.tags).info.run_id
    code, out, error = console("reproduce", run_id, "--json")
    assert (code, json.loads(out)["status"], error.count("\n")) == (2, "refused", 1)
    assert f"run {run_id[:8]}: its experiment.toml is not in the store" in error
    (tmp_path / "experiment.toml").write_text("[training]\nwarp = 9\n")
    client.log_artifact(run_id, tmp_path / "experiment.toml")
    code, out, error = console("reproduce", run_id)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert f"run {run_id[:8]}: its experiment was recorded by another version of Hallmark: " in error
