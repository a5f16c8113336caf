"""Runs and registered versions as MLflow stores them, without MLflow's own classes."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hallmark.tasks.tracking import tags

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run stored in MLflow."""

    id: str
    title: str
    """Name of the run in the MLflow UI."""
    status: str
    """RUNNING, FINISHED, FAILED or KILLED."""
    started: float
    """Seconds since the epoch."""
    tags: dict[str, str]
    metrics: dict[str, float]
    """Last value of each."""

    @property
    def experiment(self) -> str:
        """Name of the experiment, empty if Hallmark did not make the run."""
        return self.tags.get(tags.NAME, "")

    @property
    def dataset(self) -> str | None:
        """Digest of the dataset."""
        return self.tags.get(tags.DATASET_DIGEST)

    @property
    def model_version(self) -> str | None:
        """Registered version, if the run shipped a file."""
        return self.tags.get(tags.MODEL_VERSION)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file that it shipped, empty if it shipped none."""
        return self.tags.get(tags.ONNX_SHA256, "")

    @property
    def findings(self) -> tuple[str, ...]:
        """Codes of its findings."""
        codes = self.tags.get(tags.DIAGNOSIS, "none")
        return () if codes == "none" else tuple(codes.split(", "))

    @property
    def conditions(self) -> dict[str, str]:
        """Conditions on which the exact bits depend, besides experiment and data.

        Conditions that the run has not recorded yet, or whose tag cannot be read, are missing.
        """
        versions = self._values(tags.VERSIONS)
        # Files had one form before that was recorded.
        conditions = ({"export": "1"} if versions else {}) | versions | self._values(tags.FINGERPRINT)
        named = {"networks": self.tags.get(tags.NETWORKS), "code": self.tags.get(tags.CODE_DIGEST)}
        return conditions | {name: value for name, value in named.items() if value}

    def _values(self, tag: str) -> dict[str, Any]:
        try:
            values = json.loads(self.tags.get(tag, "{}"))
        except (ValueError, RecursionError):
            return {}
        return values if isinstance(values, dict) else {}


def run(stored: "MlflowRun") -> StoredRun:
    """Convert MLflow's run."""
    info, data = stored.info, stored.data
    return StoredRun(info.run_id, info.run_name, info.status, info.start_time / 1000, data.tags, data.metrics)


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version of a registered model."""

    name: str
    number: int
    run_id: str
    """Empty if it has none."""
    created: float
    """Seconds since the epoch."""
    tags: dict[str, str]

    @property
    def sha256(self) -> str:
        """SHA-256 of its file, empty if Hallmark did not register it."""
        return self.tags.get(tags.ONNX_SHA256, "")

    @property
    def is_proven(self) -> bool:
        """Whether it was registered after its proof had passed."""
        return self.tags.get(tags.PARITY) == "passed"

    @property
    def demoted(self) -> str:
        """SHA-256 of its file if it was rolled back, else empty."""
        return self.tags.get(tags.DEMOTED, "")


def version(stored: "MlflowVersion") -> StoredVersion:
    """Convert MLflow's version."""
    return StoredVersion(
        name=stored.name,
        number=int(stored.version),
        run_id=stored.run_id or "",
        created=stored.creation_timestamp / 1000,
        tags=stored.tags,
    )
