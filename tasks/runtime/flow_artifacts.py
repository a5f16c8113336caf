"""Artifacts and name of a flow run in the Prefect UI, sent by the client that the run already has.

Prefect's own functions create a new client each time, which fails at once while the server restarts. A client that has
already reached the server retries for a minute.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import prefect.runtime
from prefect.artifacts import Artifact, MarkdownArtifact, TableArtifact
from prefect.client.schemas.actions import ArtifactCreate
from prefect.context import SyncClientContext

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


def markdown(text: str, key: str, description: str) -> None:
    """Create a Markdown artifact. Called within a flow.

    Args:
        text: markdown.
        key: lower case letters, digits and dashes; artifacts of one key are versions of each other.
        description: shown above it.
    """
    _create(MarkdownArtifact(markdown=text, key=key, description=description))


def table(rows: Sequence[dict[str, str]], key: str, description: str) -> None:
    """Create a table artifact, as `markdown` does.

    Args:
        rows: each with the same columns.
        key: see `markdown`.
        description: see `markdown`.
    """
    _create(TableArtifact(table=list(rows), key=key, description=description))


def rename_run(name: str) -> None:
    """Rename the flow run."""
    _client().update_flow_run(prefect.runtime.flow_run.id, name=name)


def _create(artifact: Artifact) -> None:
    run = prefect.runtime.flow_run.id
    text = str(artifact.format())
    fields = {"type": artifact.type, "key": artifact.key, "description": artifact.description}
    _client().create_artifact(ArtifactCreate(**fields, data=text, flow_run_id=run))


def _client() -> "SyncPrefectClient":
    with SyncClientContext.get_or_create() as context:
        return context.client
