"""The model registry: proven files as versions of registered models. Beside `tracking` the one that imports mlflow."""

import logging
from contextlib import redirect_stderr
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import onnx
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec

from tasks.ml.digests import check
from tasks.ml.records import Artifact, Dataset, ModelVersion, Proof, Run
from tasks.signals import held
from tasks.tracking import connect

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

logger = logging.getLogger(__name__)

CHAMPION = "champion"
SERVED_WITH = ("mlflow", "numpy", "onnx", "onnxruntime")


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


def signature(example: dict[str, np.ndarray], classes: int) -> ModelSignature:
    """MLflow's description of what the artifact takes and gives, for any number of rows."""
    inputs = [TensorSpec(value.dtype, (-1, *value.shape[1:]), name) for name, value in example.items()]
    outputs = [
        TensorSpec(np.dtype(np.int64), (-1,), "label"),
        TensorSpec(np.dtype(np.float32), (-1, classes), "probabilities"),
    ]
    return ModelSignature(Schema(inputs), Schema(outputs))


def is_network_failure(task: object, task_run: object, state: "State") -> bool:  # noqa: ARG001 - Prefect's shape
    """Whether a task's failure is worth another try: MLflow or the way to it failed, not what we gave it."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, MlflowException):
        return bool(error.get_http_status_code() >= 500)
    return isinstance(error, (ConnectionError, TimeoutError))


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
        "hallmark.onnx_sha256": artifact.sha256,
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
    return next((model for model in models if model.tags.get("hallmark.onnx_sha256") == artifact.sha256), None)


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
