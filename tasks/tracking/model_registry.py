"""The model registry: proven files as versions of registered models. Beside `tracking` the one that imports mlflow."""

import difflib
import logging
import re
from contextlib import redirect_stderr
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
import onnx
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, RunTag
from mlflow.entities.model_registry import ModelVersion as Entry
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec

from hallmark.tasks.common.digests import check
from hallmark.tasks.common.errors import DamagedError, InputError, without_secrets
from hallmark.tasks.common.files import is_writable, whole_file
from hallmark.tasks.common.records import Artifact, Dataset, ModelVersion, Proof, Run
from hallmark.tasks.runtime import settings
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.tracking.client import connect

logger = logging.getLogger(__name__)

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
"""Aliases of a registered model."""
SHA256 = "hallmark.onnx_sha256"
"""Tag of a version, and of its run: the digest of its file."""
SERVED_WITH = ("mlflow", "numpy", "onnx", "onnxruntime")

_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow answers about a name that nobody has, or that nobody can have."""


@held()
def register(
    run: Run,
    name: str,
    artifact: Artifact,
    proof: Proof,
    dataset: Dataset,
    example: dict[str, np.ndarray],
) -> ModelVersion:
    """Log the proven file as an MLflow model and register it as a new version of `name`.

    The first version becomes `champion`. Called again for the same run, it returns the version that is there.

    Args:
        run: the open run.
        name: the registered model.
        artifact: the file that passed.
        proof: its evidence.
        dataset: what the file takes and gives.
        example: a few real rows by input name.

    Raises:
        DamagedError: the file that MLflow stores is not the one that was proven.
    """
    client = connect()
    version = _version_of(client, run) or _log_model(client, run, name, artifact, proof, dataset, example)
    client.set_tag(run.id, "hallmark.model_version", version)
    if CHAMPION not in client.get_registered_model(name).aliases:
        client.set_registered_model_alias(name, CHAMPION, version)
    champion = client.get_model_version_by_alias(name, CHAMPION)
    return ModelVersion(name=name, version=int(version), is_champion=str(champion.version) == version)


def fetch(reference: str, *, anew: bool = False) -> Path:
    """Bring a registered model's file to this machine, once, and return its path.

    It lies in Hallmark's home under its SHA-256, which is compared with the one that it was registered with.

    Args:
        reference: a registered name, which means its champion; `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        anew: look at what the store has now, even if the file was fetched before.

    Raises:
        InputError: the store cannot be reached, or there is no such name, alias or version, or no file of ours.
        DamagedError: the stored file is not the one that was registered.
    """
    home = settings.read().home
    if not is_writable(home):
        raise InputError(f"HALLMARK_HOME: {home} cannot be written: make it writable or choose another folder")
    client = connect()
    try:
        name, number = _resolve(client, reference)
        sha256 = client.get_model_version(name, number).tags.get(SHA256, "")
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise InputError(f"{name} version {number}: was not registered by Hallmark: it has no tag with a sha256")
        return _download(name, number, sha256, home, anew=anew)
    except (MlflowException, OSError) as error:
        said = " ".join(without_secrets(str(error)).split())[:200]
        raise InputError(f"{reference}: cannot be fetched from the model registry: {said}") from error


def known(name: str, missing: str = "no registered model") -> RegisteredModel:
    """A registered model, with its aliases and tags.

    Args:
        name: of the model.
        missing: what is said not to be there, if it is not.

    Raises:
        InputError: there is none of this name.
    """
    client = connect()
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        raise InputError(_no_such_model(client, name, missing)) from error


def bearer(name: str, alias: str) -> int | None:
    """The version that bears an alias, if one does.

    Raises:
        InputError: there is no such model.
    """
    number = known(name).aliases.get(alias)
    return int(number) if number else None


def entry(name: str, number: int) -> Entry:
    """What the registry keeps of a version: its tags, its run, when it was made."""
    return connect().get_model_version(name, str(number))


def resolve(reference: str) -> tuple[str, int]:
    """Name and version that a reference means.

    Raises:
        InputError: there is no such name, alias or version.
    """
    name, number = _resolve(connect(), reference)
    return name, int(number)


def versions_of(sha256: str) -> list[str]:
    """The registered versions of a file, in words: `iris version 3 (champion), run 07309d70...`."""
    client = connect()
    said = []
    for found in client.search_model_versions(f"tags.`{SHA256}` = '{sha256}'"):
        aliases = client.get_model_version(found.name, found.version).aliases
        known_as = f" ({', '.join(aliases)})" if aliases else ""
        said.append(f"{found.name} version {found.version}{known_as}, run {found.run_id}")
    return sorted(said)


def signature(example: dict[str, np.ndarray], classes: int) -> ModelSignature:
    """MLflow's description of what the artifact takes and gives, for any number of rows."""
    # NumPy has text as objects, MLflow as text.
    types = {name: np.dtype(str) if value.dtype == object else value.dtype for name, value in example.items()}
    inputs = [TensorSpec(types[name], (-1, *value.shape[1:]), name) for name, value in example.items()]
    outputs = [
        TensorSpec(np.dtype(np.int64), (-1,), "label"),
        TensorSpec(np.dtype(np.float32), (-1, classes), "probabilities"),
    ]
    return ModelSignature(Schema(inputs), Schema(outputs))


def _resolve(client: MlflowClient, reference: str) -> tuple[str, str]:
    """Name and version that a reference means."""
    pattern = r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>[1-9]\d*))"
    found = re.fullmatch(pattern, reference)
    if reference.startswith("models:") and not found:
        raise InputError(f"{reference}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, version = found.group("name", "alias", "version") if found else (reference, CHAMPION, None)
    registered = known(name, "no file and no registered model")
    versions = sorted(int(one.version) for one in client.search_model_versions(f"name = '{name}'"))
    said = ", ".join(map(str, versions))
    if not versions:
        raise InputError(f"{name}: has no version: train it first")
    if version and int(version) not in versions:
        raise InputError(f"{name}: has no version {version}: its versions are {said}")
    if alias and alias not in registered.aliases:
        aliases = ", ".join(registered.aliases) or "none"
        raise InputError(f"{name}: has no {alias}: its aliases are {aliases}, and models:/{name}/VERSION takes {said}")
    return name, version or str(registered.aliases[alias])


def _no_such_model(client: MlflowClient, name: str, what: str) -> str:
    names = [model.name for model in client.search_registered_models(max_results=1000)]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(sorted(names)) or 'none at all yet'}"
    return f"there is {what} '{name}': {hint}"


def _download(name: str, number: str, sha256: str, home: Path, *, anew: bool) -> Path:
    path = home / "models" / sha256 / f"{name}.onnx"
    if path.exists() and not anew:
        try:
            return check(path, sha256)
        except DamagedError as error:
            logger.warning("a model that was fetched before is fetched anew: %s", error)
    said = StringIO()
    with whole_file(path) as temporary, redirect_stderr(said):  # MLflow draws a bar for one small file
        folder = temporary.with_name("stored")
        folder.mkdir()
        stored = mlflow.artifacts.download_artifacts(f"models:/{name}/{number}/model.onnx", dst_path=str(folder))
        check(Path(stored), sha256).replace(temporary)
    return path


def _version_of(client: MlflowClient, run: Run) -> str | None:
    versions = client.search_model_versions(f"run_id = '{run.id}'")
    return str(versions[0].version) if versions else None


def _log_model(
    client: MlflowClient,
    run: Run,
    name: str,
    artifact: Artifact,
    proof: Proof,
    dataset: Dataset,
    example: dict[str, np.ndarray],
) -> str:
    tags = {
        SHA256: artifact.sha256,
        "hallmark.parity": "passed",
        "hallmark.parity_max_abs_diff": f"{proof.max_abs_diff:.3g}",
        "hallmark.parity_rows": str(proof.rows),
    }
    model = _logged_model(client, run, artifact)
    if model is None:
        stored = client.get_run(run.id)
        model = client.create_logged_model(stored.info.experiment_id, "model", run.id, tags, stored.data.params)
    said = StringIO()
    try:
        with redirect_stderr(said):  # MLflow prints what it does; it belongs in the log
            if model.status != LoggedModelStatus.READY:
                _fill(client, model, run, artifact, dataset, example)
            client.log_batch(run.id, tags=[RunTag(key, value) for key, value in tags.items()])
            return str(mlflow.register_model(model.model_uri, name, tags=tags).version)
    finally:
        logger.info(said.getvalue().strip())


def _logged_model(client: MlflowClient, run: Run, artifact: Artifact) -> LoggedModel | None:
    """The run's model of this file, if another process came so far."""
    experiment = client.get_run(run.id).info.experiment_id
    models = client.search_logged_models([experiment], f"source_run_id = '{run.id}'")
    return next((model for model in models if model.tags.get(SHA256) == artifact.sha256), None)


def _fill(
    client: MlflowClient,
    model: LoggedModel,
    run: Run,
    artifact: Artifact,
    dataset: Dataset,
    example: dict[str, np.ndarray],
) -> None:
    """Store the file as an MLflow model, and check that it is stored as it was proven.

    As MLflow's own `log_model` does, which cannot be called for a model that another process began to fill.
    """
    import mlflow.onnx

    outputs = client.get_run(run.id).outputs
    linked = outputs.model_outputs if outputs else []
    if model.model_id not in [output.model_id for output in linked]:
        client.log_outputs(run.id, [LoggedModelOutput(model.model_id, step=0)])
    location = model.artifact_location
    with TemporaryDirectory() as folder:
        mlflow.onnx.save_model(
            onnx.load(check(artifact.path, artifact.sha256), load_external_data=False),
            f"{folder}/model",
            mlflow_model=Model(location, run.id, model_uuid=model.model_id, model_id=model.model_id),
            save_as_external_data=False,
            signature=signature(example, len(dataset.classes)),
            input_example=example,
            # Given, or MLflow spends seconds guessing them.
            pip_requirements=[f"{library}=={version(library)}" for library in SERVED_WITH],
            onnx_execution_providers=["CPUExecutionProvider"],
        )
        client.log_model_artifacts(model.model_id, f"{folder}/model")
        stored = mlflow.artifacts.download_artifacts(f"{location}/model.onnx", dst_path=f"{folder}/stored")
        check(Path(stored), artifact.sha256)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
