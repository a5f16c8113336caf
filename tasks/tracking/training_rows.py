"""Digests of the rows that a registered model was trained on or chosen by, stored with its run."""

import logging
from pathlib import Path

from hallmark.tasks.common.digests import SHOWN
from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.common.files import temporary_folder
from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.data import dataset_store
from hallmark.tasks.ml.evaluation.promotion import compare_files
from hallmark.tasks.ml.evaluation.promotion.compare_files import Digests
from hallmark.tasks.runtime import settings
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.tracking import run_queries
from hallmark.tasks.tracking.client import connect
from hallmark.tasks.tracking.registry import model_registry

logger = logging.getLogger(__name__)

FOLDER = "rows"
"""Folder of a run's artifacts. With it another machine can judge the model."""


@held()
def keep(run_id: str, dataset: Dataset) -> None:
    """Store the digests with a run, once."""
    client = connect()
    stored = {Path(file.path).name for file in client.list_artifacts(run_id, FOLDER)}
    for split in compare_files.SEEN:
        path = dataset.folder / f"{split}.rows.npy"
        if path.name not in stored:
            client.log_artifact(run_id, str(path), FOLDER)


def find(name: str, version: int) -> Digests:
    """Return the digests of a version's rows, from the dataset on this machine or from the version's run.

    Raises:
        InputError: neither has them.
        DamagedError: the file on this machine is not the one that was written.
    """
    run_id = model_registry.version(name, version).run_id
    digest = run_queries.digests(run_id).get("dataset_digest") if run_id else None
    folder = settings.read().home / "datasets" / str(digest)
    damaged: DamagedError | None = None
    if digest and (folder / dataset_store.FACTS).exists():
        try:
            return compare_files.seen(folder, dataset_store.file_digests(folder))
        except DamagedError as error:
            damaged = error
    client = connect()
    if digest and client.list_artifacts(run_id, FOLDER):
        if damaged:
            logger.warning("the training rows of %s version %s are read from its run: %s", name, version, damaged)
        with temporary_folder() as temporary:
            return compare_files.seen(Path(client.download_artifacts(run_id, FOLDER, str(temporary))))
    if damaged:
        raise damaged
    raise InputError(
        f"{name} version {version}: cannot be judged: its training rows are unknown, since neither this machine nor "
        f"its run has its dataset {str(digest)[:SHOWN]}: retrain, and use `hallmark promote` to make that version "
        "champion"
    )
