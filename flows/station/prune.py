"""Remove what is old and what nothing needs any more: `hallmark prune`."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from filelock import Timeout

from hallmark.flows.scheduling import deployments, schedules
from hallmark.flows.scheduling.deployments import PAGE_SIZE
from hallmark.flows.station import prefect_server
from hallmark.tasks.common import files
from hallmark.tasks.common.digests import RUN_ID_DIGITS, file_digest
from hallmark.tasks.common.file_locks import file_lock
from hallmark.tasks.promotion import decision_log, needed
from hallmark.tasks.runtime import running_commands, settings, station_file
from hallmark.tasks.tracking import removal, resume, tags
from hallmark.tasks.tracking.removal import EndedRun

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun


@dataclass(frozen=True, slots=True)
class Removed:
    """One thing that was removed, or would be."""

    kind: str
    """version, run, flow run, fit, sweep, dataset, images, model file, attempt or log."""
    name: str
    bytes: int
    """Space that it took on this machine; 0 for rows of a database."""


def prune(older: timedelta, *, dry_run: bool) -> list[Removed]:
    """Remove what is older than a period and not needed by a champion, an alias, a decision, or an open attempt.

    Versions and runs go first, then what no remaining run refers to, so that an interruption leaves nothing broken.

    Args:
        older: period in which nothing may have changed.
        dry_run: remove nothing.

    Returns:
        what was removed.

    Raises:
        InputError: MLflow or Prefect cannot be reached, or another process is deciding on a model.
    """
    home = settings.read().writable_home()
    cutoff = time.time() - older.total_seconds()
    removed = [Removed("attempt", folder.name, size) for folder, size in resume.discard_old(cutoff, dry_run=dry_run)]
    gone = set[tuple[str, int]]()
    for name in removal.names():
        for number in _prune_versions(name, older.total_seconds(), dry_run=dry_run):
            gone.add((name, number))
            removed.append(Removed("version", f"{name} {number}", 0))
    old, kept = _divide(removal.runs(), cutoff, _needed_runs(cutoff), resume.open_attempts(cutoff))
    for run in old:
        removed.append(Removed("run", f"{run.id[:RUN_ID_DIGITS]} {run.title}", removal.size(run)))
        if not dry_run:
            removal.remove(run)
    removed += _prune_home(home, cutoff, kept, dry_run=dry_run)
    return removed + _prune_flow_runs(home, cutoff, old, kept, dry_run=dry_run)


def describe(removed: list[Removed]) -> list[str]:
    """Return a line for each kind: how many there are, and how much space they take."""
    lines = []
    for kind in dict.fromkeys(one.kind for one in removed):
        some = [one for one in removed if one.kind == kind]
        space = sum(one.bytes for one in some)
        lines.append(f"{kind:<12}{len(some):>6}" + (f"  {space / 10**6:.1f} MB" if space else ""))
    return lines


def _prune_versions(name: str, older: float, *, dry_run: bool) -> list[int]:
    if not (found := needed.removable(name, older)) or dry_run:
        return sorted(found)
    with decision_log.exclusive(name):
        found = needed.removable(name, older)  # again, while nobody decides
        for number in found:
            removal.remove_version(name, number)
    return sorted(found)


def _needed_runs(cutoff: float) -> set[str]:
    """Return the ids of the runs of versions that are kept."""
    return {run for name in removal.names() for run in needed.versions(name, cutoff).values()}


def _divide(
    runs: list[EndedRun], cutoff: float, wanted: set[str], attempts: list[str]
) -> tuple[list[EndedRun], list[EndedRun]]:
    """Divide runs into those to remove and those to keep. The sweep of a kept member is kept."""

    def is_kept(run: EndedRun) -> bool:
        attempt = run.tags.get(tags.ATTEMPT, "")
        is_unfinished = any(attempt == one or attempt.startswith(f"{one}-") for one in attempts)
        return run.is_open or run.changed >= cutoff or run.id in wanted or is_unfinished

    kept = {run.id for run in runs if is_kept(run)}
    kept |= {run.tags[tags.PARENT_RUN] for run in runs if run.id in kept and tags.PARENT_RUN in run.tags}
    return [run for run in runs if run.id not in kept], [run for run in runs if run.id in kept]


def _prune_home(home: Path, cutoff: float, kept: list[EndedRun], *, dry_run: bool) -> list[Removed]:
    """Remove old files of the home that no kept run refers to."""

    def of_runs(*names: str) -> set[str]:
        return {run.tags[name] for run in kept for name in names if name in run.tags}

    datasets, shipped = of_runs(tags.DATASET_DIGEST), of_runs(tags.WEIGHTS_SHA256, tags.ONNX_SHA256)

    def is_shipped(folder: Path) -> bool:
        found = (path for suffix in ("safetensors", "onnx") for path in folder.rglob(f"*.{suffix}"))
        return any(file_digest(path) in shipped for path in found)

    removed = []
    for kind, folder, is_needed in (
        ("fit", home / "fits", is_shipped),
        ("sweep", home / "sweeps", is_shipped),
        ("model file", home / "models", lambda path: path.name in shipped),
        ("dataset", home / "datasets", lambda path: path.name in datasets),
        ("images", home / "images", lambda _: False),
    ):
        for path in _old(folder, cutoff, is_needed):
            removed.append(Removed(kind, path.name, files.size(path)))
            if not dry_run:
                _remove_unused(home, path, cutoff)
    for path in _old_logs(home, cutoff):
        removed.append(Removed("log", path.name, files.size(path)))
        if not dry_run:
            path.unlink(missing_ok=True)
    return removed


def _old(folder: Path, cutoff: float, is_needed: Callable[[Path], bool]) -> Iterator[Path]:
    paths = sorted(folder.glob("[!.]*")) if folder.is_dir() else []
    return (path for path in paths if path.is_dir() and files.last_changed(path) < cutoff and not is_needed(path))


def _remove_unused(home: Path, folder: Path, cutoff: float) -> None:
    """Remove a folder, unless a process is using it under its lock or has used it since it was examined."""
    kind = {"datasets": "dataset", "images": "images"}.get(folder.parent.name)
    with suppress(Timeout), file_lock(home, f"{kind}-{folder.name}").acquire(timeout=0) if kind else nullcontext():
        if files.last_changed(folder) < cutoff:
            files.remove_folder(folder)


def _old_logs(home: Path, cutoff: float) -> list[Path]:
    """Return the logs of which none is that of the running station."""
    station = station_file.current(home)
    written = {part.log.name for part in station.parts} if station else set()
    logs = [*home.glob("logs/*.log"), *running_commands.abandoned(home)]
    return [path for path in sorted(logs) if path.stat().st_mtime < cutoff and path.name not in written]


def _prune_flow_runs(
    home: Path, cutoff: float, old: list[EndedRun], kept: list[EndedRun], *, dry_run: bool
) -> list[Removed]:
    """Remove the flow runs of commands and schedules that have ended, but no schedule's last one.

    Prefect's last run of a schedule tells from when on dates were missed.
    """
    from prefect.client.orchestration import get_client

    logs = home / "logs"
    logs.mkdir(exist_ok=True)
    prefect_server.provide(logs / "server.log")()
    wanted = {run.tags.get(tags.PREFECT_FLOW_RUN) for run in kept}
    removed = []
    with get_client(sync_client=True) as client:
        found = _ended_before(client, home, datetime.fromtimestamp(cutoff, UTC), old)
        last: dict[UUID, FlowRun] = {}
        for deployment in {run.deployment_id for run in found if run.deployment_id}:
            last[deployment] = _last_run(client, deployment)
        for run in found:
            if str(run.id) in wanted or (run.deployment_id and last[run.deployment_id].id == run.id):
                continue
            removed.append(Removed("flow run", run.name, 0))
            if not dry_run:
                client.delete_flow_run(run.id)
    return removed


def _ended_before(client: "SyncPrefectClient", home: Path, at: datetime, old: list[EndedRun]) -> "list[FlowRun]":
    """Return the flow runs of this home's commands and schedules, and of old MLflow runs, that ended before a time."""
    from prefect.client.schemas import filters

    ended = filters.FlowRunFilterEndTime(before_=at)
    own = filters.FlowRunFilterTags(any_=[running_commands.home_tag(home), deployments.file_tag(schedules.file())])
    wanted = [filters.FlowRunFilter(end_time=ended, tags=own)]
    # Those of older versions have no tag, but their runs in MLflow name them.
    identifiers = [UUID(run.tags[tags.PREFECT_FLOW_RUN]) for run in old if run.tags.get(tags.PREFECT_FLOW_RUN)]
    wanted += [
        filters.FlowRunFilter(end_time=ended, id=filters.FlowRunFilterId(any_=identifiers[start : start + PAGE_SIZE]))
        for start in range(0, len(identifiers), PAGE_SIZE)
    ]
    found: dict[UUID, FlowRun] = {}
    for one in wanted:
        offset = 0
        while page := client.read_flow_runs(flow_run_filter=one, limit=PAGE_SIZE, offset=offset):
            found |= {run.id: run for run in page}
            offset += len(page)
    return list(found.values())


def _last_run(client: "SyncPrefectClient", deployment: UUID) -> "FlowRun":
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    started = filters.FlowRunFilter(
        deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment]),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(not_any_=[StateType.SCHEDULED])),
    )
    order = FlowRunSort.EXPECTED_START_TIME_DESC
    return client.read_flow_runs(flow_run_filter=started, sort=order, limit=1)[0]
