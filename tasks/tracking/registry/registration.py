"""Register a verified file as a version of a model, in steps that can be repeated after a crash."""

import logging
from contextlib import redirect_stderr
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import mlflow
import numpy as np
import onnx
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, RunTag
from mlflow.entities.model_registry import ModelVersion as RegisteredVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec

from hallmark.tasks.common.digests import check
from hallmark.tasks.common.errors import DamagedError
from hallmark.tasks.common.files import temporary_folder
from hallmark.tasks.common.records import Artifact, Champion, Dataset, ModelVersion, Proof, Run
from hallmark.tasks.ml.evaluation.promotion import disqualification
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.tracking import run_queries, tags
from hallmark.tasks.tracking.client import connect
from hallmark.tasks.tracking.registry.model_registry import CHAMPION
from hallmark.tasks.tracking.store_calls import is_temporary, until_answered

logger = logging.getLogger(__name__)

SERVED_WITH = ("mlflow", "numpy", "onnx", "onnxruntime")
"""Libraries that MLflow installs to serve the model."""


@held()
def register(
    run: Run,
    name: str,
    artifact: Artifact,
    proof: Proof,
    dataset: Dataset,
    example: dict[str, np.ndarray],
) -> ModelVersion:
    """Log the verified file as an MLflow model, and register it as a new version of `name`.

    If a file with these bytes is registered already, no version is added: the run is linked to the version that exists.
    The first version becomes `champion`. Called again for the same run, it returns the same version, so it is repeated
    while the store does not answer.

    Args:
        run: the open run.
        name: the registered model.
        artifact: the stamped file.
        proof: its proof.
        dataset: its data.
        example: a few real rows by input name.

    Raises:
        DamagedError: the file that MLflow stores is not the stamped one.
    """
    client = connect()

    def ensure() -> ModelVersion:
        existing = next(iter(client.search_model_versions(f"run_id = '{run.id}'")), None)
        same = None if existing else _same_file(client, name, artifact.sha256)
        if existing:
            number = str(existing.version)
        elif same:
            number = _link(client, run, same, artifact, proof)
        else:
            number = _log_model(client, run, name, artifact, proof, dataset, example)
            if same := _registered_before(client, name, artifact.sha256, number):
                client.delete_model_version(name, number)
                number = _link(client, run, same, artifact, proof)
        client.set_tag(run.id, tags.MODEL_VERSION, number)
        if CHAMPION not in client.get_registered_model(name).aliases:
            client.set_registered_model_alias(name, CHAMPION, number)
        return ModelVersion(name, int(number), _champion(client, name), is_new=same is None)

    return until_answered(ensure)


def _champion(client: MlflowClient, name: str) -> Champion:
    known = client.get_model_version_by_alias(name, CHAMPION)
    made = run_queries.get(known.run_id or "")
    accuracy, codes = (made.metrics.get("test/accuracy"), made.findings) if made else (None, ())
    return Champion(int(known.version), accuracy, disqualification.describe(codes))


def _same_file(client: MlflowClient, name: str, sha256: str) -> RegisteredVersion | None:
    """Return the version of a model that has this file, the champion or else the newest; None if there is none.

    A version whose stored bytes are no longer those of the file is passed over.
    """
    found = client.search_model_versions(f"name = '{name}' AND tags.`{tags.ONNX_SHA256}` = '{sha256}'")
    if not found:
        return None
    champion = client.get_registered_model(name).aliases.get(CHAMPION)
    order = sorted(found, key=lambda one: (str(one.version) == str(champion), int(one.version)), reverse=True)
    return next((one for one in order if _is_intact(name, int(one.version), sha256)), None)


def _registered_before(client: MlflowClient, name: str, sha256: str, number: str) -> RegisteredVersion | None:
    """Return the version with this file that another home has registered at the same moment, but before `number`."""
    found = client.search_model_versions(f"name = '{name}' AND tags.`{tags.ONNX_SHA256}` = '{sha256}'")
    before = sorted((one for one in found if int(one.version) < int(number)), key=lambda one: int(one.version))
    return next((one for one in before if _is_intact(name, int(one.version), sha256)), None)


def _is_intact(name: str, number: int, sha256: str) -> bool:
    """Return whether a version's stored file is whole."""
    try:
        with temporary_folder() as folder, redirect_stderr(StringIO()):  # MLflow shows a progress bar
            location = f"models:/{name}/{number}/model.onnx"
            stored_file = mlflow.artifacts.download_artifacts(location, dst_path=str(folder))
            check(Path(stored_file), sha256)
    except (DamagedError, MlflowException, OSError) as error:
        if is_temporary(error):
            raise
        logger.warning("%s version %s has this file, but not in its store, so it is not used: %s", name, number, error)
        return False
    return True


def _link(client: MlflowClient, run: Run, version: RegisteredVersion, artifact: Artifact, proof: Proof) -> str:
    """Record on a run that its file is that of a version, also for the MLflow UI, and return the number."""
    made = run_queries.get(version.run_id or "")
    if made and (model := _logged_model(client, made.id, artifact)):
        _show(client, run, model)
    client.log_batch(run.id, tags=[RunTag(key, value) for key, value in _evidence(artifact, proof).items()])
    return str(version.version)


def _show(client: MlflowClient, run: Run, model: LoggedModel) -> None:
    """Show a model as an output of a run, once."""
    outputs = client.get_run(run.id).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run.id, [LoggedModelOutput(model.model_id, step=0)])


def _evidence(artifact: Artifact, proof: Proof) -> dict[str, str]:
    return {
        tags.ONNX_SHA256: artifact.sha256,
        tags.PARITY: "passed",
        tags.PARITY_MAX_ABS_DIFF: f"{proof.max_abs_diff:.3g}",
        tags.PARITY_ROWS: str(proof.rows),
    }


def signature(example: dict[str, np.ndarray], classes: int) -> ModelSignature:
    """Return MLflow's description of the file's inputs and outputs, for any number of rows."""
    # NumPy stores text as objects, MLflow expects strings.
    types = {name: np.dtype(str) if value.dtype == object else value.dtype for name, value in example.items()}
    inputs = [TensorSpec(types[name], (-1, *value.shape[1:]), name) for name, value in example.items()]
    outputs = [
        TensorSpec(np.dtype(np.int64), (-1,), "label"),
        TensorSpec(np.dtype(np.float32), (-1, classes), "probabilities"),
    ]
    return ModelSignature(Schema(inputs), Schema(outputs))


def _log_model(
    client: MlflowClient,
    run: Run,
    name: str,
    artifact: Artifact,
    proof: Proof,
    dataset: Dataset,
    example: dict[str, np.ndarray],
) -> str:
    evidence = _evidence(artifact, proof)
    model = _logged_model(client, run.id, artifact)
    if model is None:
        known = client.get_run(run.id)
        model = client.create_logged_model(known.info.experiment_id, "model", run.id, evidence, known.data.params)
    output = StringIO()
    try:
        with redirect_stderr(output):  # MLflow prints what it does; it belongs in the log
            if model.status != LoggedModelStatus.READY:
                _fill(client, model, run, artifact, dataset, example)
            client.log_batch(run.id, tags=[RunTag(key, value) for key, value in evidence.items()])
            return str(mlflow.register_model(model.model_uri, name, tags=evidence).version)
    finally:
        logger.info(output.getvalue().strip())


def _logged_model(client: MlflowClient, run_id: str, artifact: Artifact) -> LoggedModel | None:
    """Return the run's model of this file, if an earlier process created it."""
    experiment = client.get_run(run_id).info.experiment_id
    models = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    return next((model for model in models if model.tags.get(tags.ONNX_SHA256) == artifact.sha256), None)


def _fill(
    client: MlflowClient,
    model: LoggedModel,
    run: Run,
    artifact: Artifact,
    dataset: Dataset,
    example: dict[str, np.ndarray],
) -> None:
    """Store the file as an MLflow model, and check the stored bytes.

    MLflow's own `log_model` cannot be called for a model that an earlier process began to fill.
    """
    import mlflow.onnx

    _show(client, run, model)
    location = model.artifact_location
    with temporary_folder() as folder:
        mlflow.onnx.save_model(
            onnx.load(check(artifact.path, artifact.sha256), load_external_data=False),
            f"{folder}/model",
            mlflow_model=Model(location, run.id, model_uuid=model.model_id, model_id=model.model_id),
            save_as_external_data=False,
            signature=signature(example, len(dataset.classes)),
            input_example=example,
            # Without these, MLflow spends seconds guessing them.
            pip_requirements=[f"{library}=={version(library)}" for library in SERVED_WITH],
            onnx_execution_providers=["CPUExecutionProvider"],
        )
        client.log_model_artifacts(model.model_id, f"{folder}/model")
        downloaded = mlflow.artifacts.download_artifacts(f"{location}/model.onnx", dst_path=f"{folder}/stored")
        check(Path(downloaded), artifact.sha256)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
