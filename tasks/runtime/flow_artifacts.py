"""What a flow run reports to Prefect: artifacts, its name, and its result.

Artifacts are sent by the client that the run already has. Prefect's own functions create a new client each time, which
fails at once while the server restarts. A client that has already reached the server retries for four minutes; see
`prefect_api.wait_long`. Work that is done counts as done, whether or not Prefect has been told.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

import httpx
import prefect.runtime
from prefect.artifacts import Artifact, MarkdownArtifact, TableArtifact
from prefect.client.schemas.actions import ArtifactCreate
from prefect.context import SyncClientContext
from prefect.exceptions import PrefectHTTPStatusError

from hallmark.tasks.common.errors import HallmarkError
from hallmark.tasks.runtime import prefect_api
from hallmark.tasks.runtime.signals import interrupted
from hallmark.tasks.runtime.steps import failed_step

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

T = TypeVar("T")

logger = logging.getLogger(__name__)

_finished: list[object] = []
"""The result of the flow run that was `finished` last."""


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
    with _left_out_if_away(f"the name of this run, '{name}'"):
        _client().update_flow_run(prefect.runtime.flow_run.id, name=name)


def finished(result: T) -> T:
    """Return the result of a flow, after keeping it for `result_of`. Call it when all work of the flow is done."""
    _finished[:] = [result]
    return result


def result_of(run: Callable[[], T]) -> T:
    """Run a flow and return its result, also if Prefect could not be told that it has finished.

    Raises:
        Exception: that of the flow, also if Prefect could not be told of it.
    """
    _finished.clear()
    try:
        return run()
    except Exception as error:
        if interrupted(error) or not _is_away(error):
            raise
        if not _finished:
            raise _first(error) from error
        logger.warning("Prefect does not answer and is not told that this run has finished: %s", _one_line(error))
        return _finished.pop()  # type: ignore[return-value]


def _create(artifact: Artifact) -> None:
    run = prefect.runtime.flow_run.id
    text = str(artifact.format())
    fields = {"type": artifact.type, "key": artifact.key, "description": artifact.description}
    with _left_out_if_away(f"the artifact '{artifact.key}'"):
        _client().create_artifact(ArtifactCreate(**fields, data=text, flow_run_id=run))


@contextmanager
def _left_out_if_away(what: str) -> Iterator[None]:
    """Log what Prefect was not told if it does not answer, and wait no longer for it in this process."""
    try:
        yield
    except (httpx.TransportError, PrefectHTTPStatusError) as error:
        if not _is_away(error):
            raise
        prefect_api.stop_waiting()
        logger.warning("Prefect does not answer and is not told %s: %s", what, _one_line(error))


def _is_away(error: Exception) -> bool:
    if isinstance(error, PrefectHTTPStatusError):
        return error.response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    return isinstance(error, httpx.TransportError)


def _first(error: BaseException) -> BaseException:
    """Return the error of the flow during whose handling Prefect did not answer, or `error` if there is none."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, HallmarkError) or failed_step(cause):
            return cause
        cause = cause.__context__
    return error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _client() -> "SyncPrefectClient":
    with SyncClientContext.get_or_create() as context:
        return context.client
