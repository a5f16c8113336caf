"""The digests of the rows that a registered model was trained on or chosen by: kept with its run, and found again."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.evaluation.promotion import compare_files
from hallmark.tasks.ml.evaluation.promotion.compare_files import Digests
from hallmark.tasks.runtime import settings
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.tracking.client import connect

FOLDER = "rows"
"""Of a run's artifacts, so that another machine can judge its model, too."""


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
    """The digests of what a version was trained on: from the dataset on this machine, or from the version's run.

    Raises:
        InputError: neither has them.
        DamagedError: the file on this machine is not the one that was written.
    """
    client = connect()
    run_id = client.get_model_version(name, str(version)).run_id
    digest = client.get_run(run_id).data.tags.get("hallmark.dataset_digest") if run_id else None
    folder = settings.read().home / "datasets" / str(digest)
    if digest and (folder / "dataset.json").exists():
        return compare_files.seen(folder, json.loads((folder / "dataset.json").read_text())["files"])
    if run_id and client.list_artifacts(run_id, FOLDER):
        with TemporaryDirectory() as temporary:
            return compare_files.seen(Path(client.download_artifacts(run_id, FOLDER, temporary)))
    raise InputError(
        f"{name} version {version}: cannot be judged: which rows it was trained on is known neither here (dataset "
        f"{str(digest)[:12]}) nor in its run: let `hallmark promote` make a retrained one champion"
    )
