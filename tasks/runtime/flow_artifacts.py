"""What the Prefect UI shows of a flow run: told by the client that the run has already.

Prefect's own functions make a new one each time, which fails at once where the server is away for a restart; one that
has reached it before tries again, for a minute.
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
    """Show a text. Called within a flow.

    Args:
        text: markdown.
        key: lower case letters, digits and dashes; artifacts of one key are versions of each other.
        description: shown above it.
    """
    _create(MarkdownArtifact(markdown=text, key=key, description=description))


def table(rows: Sequence[dict[str, str]], key: str, description: str) -> None:
    """Show a table; as `markdown`.

    Args:
        rows: each with the same columns.
        key: as above.
        description: as above.
    """
    _create(TableArtifact(table=list(rows), key=key, description=description))


def rename_run(name: str) -> None:
    """Give the flow run another name."""
    _client().update_flow_run(prefect.runtime.flow_run.id, name=name)


def _create(artifact: Artifact) -> None:
    run = prefect.runtime.flow_run.id
    text = str(artifact.format())
    told = {"type": artifact.type, "key": artifact.key, "description": artifact.description}
    _client().create_artifact(ArtifactCreate(**told, data=text, flow_run_id=run))


def _client() -> "SyncPrefectClient":
    with SyncClientContext.get_or_create() as context:
        return context.client
