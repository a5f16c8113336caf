"""References to models, as typed, are resolved to shipped files, against a real registry."""

import uuid
from pathlib import Path

import pytest

from hallmark.flows.experiments import presets
from hallmark.flows.train import train
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.runtime import settings
from hallmark.tasks.tracking.client import connect
from hallmark.tasks.tracking.registry import model_reference, model_registry
from tests.support import certified


def register(folder: Path, name: str, digest: str | None = None) -> Path:
    """Register the next version of a model, as the pipeline does, and return its file."""
    stored = folder / uuid.uuid4().hex
    stored.mkdir()
    classes = tuple(f"{kind} {len(list(folder.iterdir()))}" for kind in certified.CLASSES)
    path = certified.columns(stored / "model.onnx", classes=classes)
    client = connect()
    tags = {"hallmark.onnx_sha256": file_digest(path) if digest is None else digest}
    client.create_model_version(name, stored.as_uri(), tags=tags)
    return path


@pytest.fixture
def name() -> str:
    """Register a model without a version, and return its name."""
    name = f"f{uuid.uuid4().hex[:12]}"
    connect().create_registered_model(name)
    return name


def refused(reference: str) -> str:
    with pytest.raises(InputError) as error:
        model_reference.find(reference)
    message = str(error.value)
    assert "\n" not in message
    return message


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_reference_is_a_path_if_it_exists_or_looks_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for model, expected in {
        "file": True,
        "folder": False,
        "iris": False,
        "iris.onnx": True,
        "./iris": True,
        "models:/iris@champion": False,
        "models:/iris/1": False,
    }.items():
        assert model_reference.is_file(model) is expected
    assert model_reference.find("iris.onnx") == Path("iris.onnx")


def test_a_name_means_its_champion_and_a_uri_any_version(home: Path, name: str, tmp_path: Path) -> None:
    first, second = register(tmp_path, name), register(tmp_path, name)
    assert file_digest(first) != file_digest(second)
    client = connect()
    client.set_registered_model_alias(name, "champion", "2")
    client.set_registered_model_alias(name, "previous", "1")
    for reference, expected in {
        name: second,
        f"models:/{name}@champion": second,
        f"models:/{name}@previous": first,
        f"models:/{name}/1": first,
        f"models:/{name}/2": second,
    }.items():
        found = model_reference.find(reference)
        assert found.read_bytes() == expected.read_bytes()
        assert found == home / "models" / file_digest(expected) / f"{name}.onnx"
    assert len(files(home)) == 2
    client.set_registered_model_alias(name, "champion", "1")
    assert model_reference.find(name).read_bytes() == first.read_bytes()


def test_a_file_is_downloaded_once_and_again_if_damaged(
    home: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    original = register(tmp_path, name)
    found = model_reference.find(f"models:/{name}/1")
    content = original.read_bytes()
    original.unlink()
    assert model_reference.find(f"models:/{name}/1") == found
    original.write_bytes(content)
    found.write_bytes(content[:-1])
    assert model_reference.find(f"models:/{name}/1").read_bytes() == content
    assert "is downloaded again" in caplog.text
    assert files(home) == [found]
    assert capsys.readouterr().out == ""


def test_a_missing_model_or_version_is_refused_in_one_line(home: Path, name: str, tmp_path: Path) -> None:
    assert refused(name[:-1]) == f"there is no file and no registered model '{name[:-1]}': did you mean '{name}'?"
    assert "there is no file and no registered model 'a:b@c'" in refused("a:b@c")
    assert refused(name) == f"{name}: has no version: train it first"
    register(tmp_path, name)
    register(tmp_path, name)
    aliases = f"its aliases are none, and models:/{name}/VERSION takes 1, 2"
    assert refused(name) == f"{name}: has no champion: {aliases}"
    assert refused(f"models:/{name}@best") == f"{name}: has no best: {aliases}"
    assert refused(f"models:/{name}/3") == f"{name}: has no version 3: its versions are 1, 2"
    for reference in (
        f"models:/{name}",
        f"models:/{name}/latest",
        f"models:/{name}@a/b",
        f"models:/{name}/0",
        "models:/",
    ):
        assert refused(reference) == f"{reference}: expected models:/NAME@ALIAS or models:/NAME/VERSION"
    assert files(home) == []


def test_a_file_that_is_not_the_registered_one_is_refused(home: Path, name: str, tmp_path: Path) -> None:
    register(tmp_path, name, digest="0" * 64)
    with pytest.raises(DamagedError, match="expected sha256 000000000000"):
        model_reference.find(f"models:/{name}/1")
    register(tmp_path, name, digest="../../elsewhere")
    assert "version 2: was not registered by Hallmark" in refused(f"models:/{name}/2")
    register(tmp_path, name).unlink()
    assert f"models:/{name}/3: cannot be fetched from the model registry" in refused(f"models:/{name}/3")
    assert files(home) == []


def test_a_store_or_a_home_that_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HALLMARK_HOME", "/dev/null/home")
    assert "HALLMARK_HOME: /dev/null/home cannot be written" in refused("iris")
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "MLFLOW_TRACKING_URI: http://127.0.0.1:9 cannot be reached" in refused("iris")


@pytest.mark.usefixtures("prefect_server")
def test_a_model_registered_by_the_pipeline_is_found() -> None:
    preset = presets.iris()
    changed = preset.training.model_copy(update={"device": "cpu", "epochs": 2})
    name = f"f{uuid.uuid4().hex[:12]}"
    outcome = train(preset.model_copy(update={"name": name, "training": changed}))
    found = model_registry.fetch(name)
    assert found.is_relative_to(settings.read().home / "models")
    assert file_digest(found) == outcome.artifact.sha256
