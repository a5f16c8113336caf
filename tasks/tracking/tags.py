"""Names of the MLflow tags that Hallmark writes and reads."""

import json
from functools import cache
from typing import TYPE_CHECKING

from hallmark.tasks.runtime import provenance
from hallmark.tasks.runtime.settings import ROOT

if TYPE_CHECKING:
    from hallmark.tasks.common.records import Run

# Tags of every run.
NAME = "hallmark.name"
"""Name of the experiment."""
DATASET_DIGEST = "hallmark.dataset_digest"
SOURCE = "hallmark.source"
"""Address, size and digest of a table that was downloaded."""
EXPERIMENT_DIGEST = "hallmark.experiment_digest"
CODE_DIGEST = "hallmark.code_digest"
VERSIONS = "hallmark.versions"
"""Versions of Python and of the libraries, as JSON."""
GIT_COMMIT = "hallmark.git_commit"
GIT_DIRTY = "hallmark.git_dirty"
PRESET_KIND = "hallmark.preset_kind"
PREFECT_FLOW_RUN = "hallmark.prefect_flow_run"
ATTEMPT = "hallmark.attempt"
"""Id of the attempt that opened the run; see `hallmark.tasks.tracking.resume`."""
HEARTBEAT = "hallmark.heartbeat"
"""Which process works on the run, and when it was last seen, as JSON. This format is for good; readers ignore fields
that they do not know:

    {"time": "2026-11-29T02:35:29+00:00", "machine": "node7",
     "process": {"pid": 4711, "started": "2026-11-29T02:30:01+00:00"}, "home": "/srv/hallmark"}

`time` is when it was written, in UTC (ISO 8601), by the clock of `machine`, which is the host name. `pid` and `started`
name a process of that machine uniquely. `home` is its HALLMARK_HOME. The tag is written when a run is opened, and
renewed every 30 seconds until it is closed. In a sweep, it is renewed on the parent run only.
"""
ERROR = "hallmark.error"
"""Reason why the run failed."""

# Tags of a training.
DEVICE = "hallmark.device"
EPOCHS = "hallmark.epochs"
BEST_EPOCH = "hallmark.best_epoch"
STOPPED = "hallmark.stopped"
THREADS = "hallmark.threads"
NETWORKS = "hallmark.networks"
WEIGHTS_SHA256 = "hallmark.weights_sha256"
INITIAL_SEED = "hallmark.initial_seed"
FIT_SECONDS = "hallmark.fit_seconds"
FINGERPRINT = "hallmark.fingerprint"
"""Other conditions on which the bits of the weights depend, as JSON."""
DIAGNOSIS = "hallmark.diagnosis"
"""Codes of the findings, or `none`."""
MODEL_VERSION = "hallmark.model_version"
CARD_SHA256 = "hallmark.card_sha256"

# Tags of a sweep's parent run.
SWEEP = "hallmark.sweep"
"""The options that vary."""
CHOSEN = "hallmark.chosen"
CHOSEN_RUN = "hallmark.chosen_run"
MEMBERS = "hallmark.members"

# Tags of a registered version, some also of its run.
ONNX_SHA256 = "hallmark.onnx_sha256"
PARITY = "hallmark.parity"
PARITY_MAX_ABS_DIFF = "hallmark.parity_max_abs_diff"
PARITY_ROWS = "hallmark.parity_rows"
DEMOTED = "hallmark.demoted"
"""SHA-256 of the file of a version that was rolled back."""

DECISION = "hallmark.decision."
"""Prefix of the tags that hold decisions, of a registered model and of its versions."""

# MLflow's own tags.
PARENT_RUN = "mlflow.parentRunId"
SOURCE_NAME = "mlflow.source.name"
SOURCE_TYPE = "mlflow.source.type"
SOURCE_GIT_COMMIT = "mlflow.source.git.commit"
"""Makes the MLflow UI show the commit in its column "Version"."""
USER = "mlflow.user"
NOTE = "mlflow.note.content"
"""The description of a run in the MLflow UI."""
LOGGED_ARTIFACTS = "mlflow.loggedArtifacts"


def decision(number: int) -> str:
    """Return the tag of a decision."""
    return f"{DECISION}{number:04}"


def origin(flow_run: str, preset_kind: str | None = None, parent: "Run | None" = None) -> dict[str, str]:
    """Return the tags that say where a run was started.

    Args:
        flow_run: id of the Prefect flow run.
        preset_kind: kind of the experiment's preset.
        parent: the run of the sweep that it is a member of.
    """
    values = {PREFECT_FLOW_RUN: flow_run}
    if preset_kind is not None:
        values[PRESET_KIND] = preset_kind
    if parent is not None:
        values[PARENT_RUN] = parent.id
    return values


@cache
def of_code() -> dict[str, str]:
    """Return the tags of the git commit, the code digest and the library versions."""
    commit, dirty = provenance.git(ROOT)
    return {
        GIT_COMMIT: commit,
        GIT_DIRTY: dirty,
        SOURCE_GIT_COMMIT: commit,
        CODE_DIGEST: provenance.code_digest(),
        VERSIONS: json.dumps(provenance.versions()),
    }
