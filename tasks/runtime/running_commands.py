"""The commands that run on a home, and what those leave in Prefect that were killed.

Each command holds a kernel lock on a file of its own, which the kernel releases also after kill -9. Its flow runs have
a tag with the name of that file. The next command on the home finds files without lock, and marks their flow runs as
crashed: Prefect itself notices the end of a process only where something watches its heartbeats.
"""

import fcntl
import json
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hallmark.tasks.common.digests import SHOWN, digest_of
from hallmark.tasks.common.errors import without_secrets
from hallmark.tasks.common.files import temporary_folder
from hallmark.tasks.runtime import process_identity

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

logger = logging.getLogger(__name__)

_PROCESS_TAG = "hallmark-process:"
"""Prefix of the tag that names the file of the command."""
_tags: list[str] = []
"""Tags of the flow runs of this process, if it is a registered command."""
_PAGE_SIZE = 200
"""Maximum number of results of one request to Prefect."""


@dataclass(frozen=True)
class RunningCommand:
    """Content of a command's file, for people and for messages. Whether the command runs is told by the lock."""

    command: str
    machine: str
    pid: int
    started: str
    """UTC, ISO 8601."""
    server: str
    """Address of the Prefect server that the settings name, without password; empty for Prefect's own database."""

    @property
    def shown(self) -> str:
        """The command in words."""
        return f"`hallmark {self.command}` (pid {self.pid} on {self.machine}, started {self.started[:16]})"


@contextmanager
def registered(home: Path, command: str, server: str | None) -> Iterator[str]:
    """Hold the file of this command for the duration of the block, and yield the tag that its flow runs get.

    Args:
        home: the home.
        command: name of the command.
        server: address of the Prefect server in the settings, if there is one.
    """
    folder, name = _folder(home), uuid.uuid4().hex[:SHOWN]
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    about = RunningCommand(command, process_identity.machine(), os.getpid(), now, without_secrets(server or ""))
    path = folder / f"{name}.json"
    with temporary_folder(folder) as temporary, (temporary / path.name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # before it has its name, so that it is never seen without the lock
        json.dump(asdict(about), file)
        file.flush()
        Path(file.name).rename(path)
        tag = f"{_PROCESS_TAG}{name}"
        _tags[:] = [home_tag(home), tag]
        try:
            yield tag
        finally:
            _tags.clear()
            path.unlink(missing_ok=True)


def tag_flow_run(flow: object, flow_run: "FlowRun", state: object) -> None:  # noqa: ARG001 - the signature of Prefect's hooks
    """Give a flow run that starts to run in a registered command the tags of the command and its home.

    Not `prefect.tags`: the tasks would have the tags too, and Prefect asks its server for a slot of each tag of a task.
    """
    from prefect.context import SyncClientContext

    if _tags:
        with SyncClientContext.get_or_create() as context:
            context.client.update_flow_run(flow_run.id, tags=[*flow_run.tags, *_tags])


def abandoned(home: Path) -> list[Path]:
    """Return the files of commands whose process is gone."""
    return [path for path in _files(_folder(home)) if _is_unlocked(path)]


def active(home: Path) -> list[str]:
    """Return the commands that run on a home, in words."""
    files = [path for path in _files(_folder(home)) if not _is_unlocked(path)]
    return [command.shown for command in map(_read, files) if command]


def crash(files: list[Path], server: str | None) -> list[str]:
    """Mark as crashed what killed commands left running in Prefect, and remove their files.

    Args:
        files: the commands' files; those of commands that used another Prefect server are left alone.
        server: address of the Prefect server in the settings, if there is one.

    Returns:
        one line for each flow run.
    """
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    lines = []
    with get_client(sync_client=True) as client:
        for path in files:
            command = _read(path)
            if command and command.server != without_secrets(server or ""):
                continue
            text = f"Its process was killed: {command.shown if command else 'of an unknown command'}"
            pending = _pending_runs(client, command) if command and not command.server else []
            is_alone = not _others(path.parent)  # asked later: a live command has its file before its flow run
            for run in _open_runs(client, f"{_PROCESS_TAG}{path.stem}") + (pending if is_alone else []):
                client.set_flow_run_state(run.id, Crashed(message=text), force=True)
                lines.append(f"flow run '{run.name}' is marked as crashed: {text[0].lower()}{text[1:]}")
            if is_alone or not pending:  # else the next command looks again
                path.unlink(missing_ok=True)
    return lines


def crash_flow_runs(identifiers: list[str], reason: str) -> list[str]:
    """Mark flow runs as crashed that have not ended. Those that the server does not know are left out.

    Args:
        identifiers: ids of flow runs.
        reason: message of their new state.

    Returns:
        one line for each.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    lines = []
    with get_client(sync_client=True) as client:
        for identifier in identifiers:
            try:
                run = client.read_flow_run(uuid.UUID(identifier))
            except (ObjectNotFound, ValueError):
                continue
            if run.state and not run.state.is_final():
                client.set_flow_run_state(run.id, Crashed(message=reason), force=True)
                lines.append(f"flow run '{run.name}' is marked as crashed: {reason}")
    return lines


def _open_runs(client: "SyncPrefectClient", tag: str) -> "list[FlowRun]":
    """Return the flow runs with a tag that have not ended."""
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import TERMINAL_STATES

    is_open = filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(not_any_=sorted(TERMINAL_STATES)))
    wanted = filters.FlowRunFilter(tags=filters.FlowRunFilterTags(all_=[tag]), state=is_open)
    return client.read_flow_runs(flow_run_filter=wanted, limit=_PAGE_SIZE)


def _pending_runs(client: "SyncPrefectClient", command: RunningCommand) -> "list[FlowRun]":
    """Return the flow runs without a tag that never began to run, created since a command began.

    A kill between the creation of a flow run and its first state leaves one. Used only with a database of Hallmark's
    own, where nothing else creates flow runs.
    """
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType

    is_pending = filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=[StateType.PENDING]))
    wanted = filters.FlowRunFilter(
        state=is_pending,
        tags=filters.FlowRunFilterTags(is_null_=True),
        deployment_id=filters.FlowRunFilterDeploymentId(is_null_=True),
        expected_start_time=filters.FlowRunFilterExpectedStartTime(after_=datetime.fromisoformat(command.started)),
    )
    return client.read_flow_runs(flow_run_filter=wanted, limit=_PAGE_SIZE)


def _others(folder: Path) -> list[Path]:
    """Return the files of the commands that run, without that of this process."""
    own = {f"{tag.removeprefix(_PROCESS_TAG)}.json" for tag in _tags}
    return [path for path in _files(folder) if path.name not in own and not _is_unlocked(path)]


def home_tag(home: Path) -> str:
    """Return the tag of the flow runs that commands on a home of this machine make."""
    return f"hallmark-home-{digest_of([process_identity.machine(), str(home)])[:SHOWN]}"


def _folder(home: Path) -> Path:
    return home / "running"


def _files(folder: Path) -> list[Path]:
    """Return the commands' files. What else has such a name, a folder or a pipe, is no command's."""
    return [path for path in sorted(folder.glob("*.json")) if path.is_file()]


def _is_unlocked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # held, or removed meanwhile by its command
        return False
    return path.exists()


def _read(path: Path) -> RunningCommand | None:
    """Return the content of a command's file, or None if it cannot be read."""
    try:
        values = json.loads(path.read_text())
        found = RunningCommand(**{name: values[name] for name in RunningCommand.__annotations__})
        datetime.fromisoformat(found.started)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    is_valid = isinstance(found.pid, int) and all(isinstance(one, str) for one in (found.command, found.server))
    return found if is_valid else None
