"""Attempts: one process at a time runs an experiment, and the same command resumes an interrupted attempt."""

import json
import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from filelock import Timeout

from hallmark.tasks.common import files
from hallmark.tasks.common.digests import SHOWN, digest_of
from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.common.file_locks import file_lock
from hallmark.tasks.common.files import whole_file
from hallmark.tasks.common.records import Attempt, Dataset
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import trainer
from hallmark.tasks.ml.training.history import JOURNAL, TimestampLog
from hallmark.tasks.runtime import locks, prefect_api, progress, provenance, settings
from hallmark.tasks.runtime.signals import interrupted
from hallmark.tasks.tracking import run_lifecycle

logger = logging.getLogger(__name__)

_FILE = "attempt.json"
_CONDITIONS = "marks"
"""Key of the conditions in that file."""
_LAYOUT = "2"
"""Stored with each attempt. Attempts without it have a code digest that was computed over other files."""


@contextmanager
def claim(
    members: Sequence[Experiment],
    dataset: Dataset,
    axes: Sequence[str] = (),
    *,
    fresh: bool,
    discard_outdated: bool = False,
) -> Iterator[Attempt]:
    """Lock an experiment or a sweep for this process, and continue an interrupted attempt at it.

    If another process runs the same experiment, say so and wait for it. A successful attempt is removed. After an
    interruption, also by kill -9, the attempt stays, and the same run is continued, also if the store was away. After a
    failure, its checkpoints are used by a new run, unless the failed run could not be closed.

    Args:
        members: the experiment, or the members of the sweep, all of one name.
        dataset: their data.
        axes: the options in which members of a sweep differ. They distinguish a sweep of one member from a training.
        fresh: discard an earlier attempt.
        discard_outdated: discard an attempt of an older version of Hallmark instead of refusing to go on.

    Raises:
        InputError: an earlier attempt has a checkpoint of another experiment, or was left by an older version.
    """
    home, name = settings.read().home, members[0].name
    key = digest_of([*(member.digest for member in members), *axes, dataset.digest])[:SHOWN]
    waiting = f"another process runs {name}, or the same experiment under another name"
    with locks.exclusive(file_lock(home, f"experiment-{key}"), waiting):
        folder = home / "unfinished" / key
        if fresh:
            with suppress(DamagedError):  # an unreadable attempt is removed too
                _discard(_read(folder), folder)
            _remove(folder)
        attempt = _open_attempt(folder, members, dataset, discard_outdated=discard_outdated)
        try:
            yield attempt
        except BaseException as error:
            if interrupted(error):
                prefect_api.stop_waiting_if_away()
                progress.line("stopped", "run the same command to continue, or add --fresh to start over")
            raise
        _remove(attempt.folder)


def of_member(attempt: Attempt, index: int) -> Attempt:
    """Return the part of a sweep's attempt that belongs to one member."""
    return replace(attempt, id=f"{attempt.id}-{index}", folder=attempt.folder / str(index))


def close_orphans() -> list[str]:
    """Close the MLflow runs of killed processes of this home as KILLED, and return their ids. Each can be continued.

    A running process holds the lock of its experiment, and is left alone.
    """
    home, closed = settings.read().home, list[str]()
    for path in sorted(home.glob(f"unfinished/*/{_FILE}")):
        try:
            with file_lock(home, f"experiment-{path.parent.name}").acquire(timeout=0):
                if known := _read(path.parent):
                    closed += run_lifecycle.give_up(known)
        except Timeout:
            continue
        except DamagedError as error:
            logger.warning("the MLflow run of an interrupted attempt cannot be closed: %s", error)
    return closed


def open_attempts(since: float) -> list[str]:
    """Return the ids of the attempts of this home that were changed since a time, in seconds since the epoch."""
    folders = [path.parent for path in settings.read().home.glob(f"unfinished/*/{_FILE}")]
    attempts = [_readable(folder) for folder in folders if files.last_changed(folder) >= since]
    return [attempt.id for attempt in attempts if attempt and attempt.id]


def discard_old(before: float, *, dry_run: bool) -> list[tuple[Path, int]]:
    """Discard the attempts that nobody has continued since a time, with their checkpoints.

    Args:
        before: seconds since the epoch.
        dry_run: discard nothing.

    Returns:
        folder and number of bytes of each.
    """
    home, found = settings.read().home, list[tuple[Path, int]]()
    for folder in sorted(home.glob("unfinished/[!.]*")):
        with suppress(Timeout), file_lock(home, f"experiment-{folder.name}").acquire(timeout=0):
            if folder.is_dir() and files.last_changed(folder) < before:
                found.append((folder, files.size(folder)))
                if not dry_run:
                    if attempt := _readable(folder):
                        run_lifecycle.give_up(attempt)
                    _remove(folder)
    return found


def _readable(folder: Path) -> Attempt | None:
    try:
        return _read(folder)
    except DamagedError:
        return None


def _open_attempt(folder: Path, members: Sequence[Experiment], dataset: Dataset, *, discard_outdated: bool) -> Attempt:
    """Continue the attempt in `folder`, or start one there."""
    first = members[0]
    known = _read_or_discard(folder)
    if known and "layout" not in known.conditions:
        if not discard_outdated:
            raise InputError(
                f"{first.name}: an interrupted attempt was left by an older version of Hallmark and cannot be "
                "continued: add --fresh to start over"
            )
        progress.line("restart", "an interrupted attempt of an older version of Hallmark is discarded")
        known = _discard(known, folder)
    conditions = trainer.fingerprint_of(dataset, first.model, first.training)
    conditions["version"] = str(trainer.VERSION)
    conditions["layout"] = _LAYOUT
    conditions["code"] = provenance.code_digest()
    known = _usable(known, conditions, folder)
    if len(members) == 1:
        trainer.refuse_foreign_checkpoints(dataset, first.data, first.model, first.training, folder)
    if known and known.id and known.name == first.name:
        return replace(known, is_continued=True)
    if known:
        run_lifecycle.give_up(known)
    return _write(Attempt(uuid.uuid4().hex, first.name, conditions, folder))


def _read_or_discard(folder: Path) -> Attempt | None:
    """Return the attempt in `folder`. One that cannot be read is discarded: what it was trained with is unknown."""
    known: Attempt | None = None
    try:
        known = _read(folder)
        for journal in folder.rglob(JOURNAL):
            TimestampLog(journal)
    except DamagedError as error:
        progress.line("restart", f"an interrupted attempt cannot be read: it is discarded ({error})")
        if known:
            run_lifecycle.give_up(known)
        _remove(folder)
        return None
    return known


def _usable(known: Attempt | None, conditions: dict[str, str], folder: Path) -> Attempt | None:
    """Return what can be continued of an earlier attempt: all of it, its checkpoints without its run, or nothing."""
    if known is None:
        return None
    if changed := next((name for name, value in conditions.items() if known.conditions.get(name) != value), None):
        progress.line("restart", f"an interrupted attempt had another {changed}: it is discarded")
        return _discard(known, folder)
    match run_lifecycle.status(known):
        case "FINISHED":
            return _discard(known, folder)
        case "FAILED":
            run_lifecycle.give_up(known)  # members of a sweep may still be open
            return replace(known, id=None)
    return known


def _read(folder: Path) -> Attempt | None:
    path = folder / _FILE
    if folder.exists() and not folder.is_dir():
        raise DamagedError(f"{folder}: expected a folder, found a file")
    try:
        match json.loads(files.read_regular(path)):
            case {"id": str() | None as identifier, "name": str() as name, "marks": dict() as conditions}:
                return Attempt(identifier, name, conditions, folder)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: {error}") from error
    raise DamagedError(f"{path}: does not describe an attempt")


def _write(attempt: Attempt) -> Attempt:
    with whole_file(attempt.folder / _FILE) as temporary:
        content = {"id": attempt.id, "name": attempt.name, _CONDITIONS: attempt.conditions}
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    return attempt


def _discard(attempt: Attempt | None, folder: Path) -> None:
    if attempt:
        run_lifecycle.give_up(attempt)
        _remove(folder)


def _remove(folder: Path) -> None:
    if folder.exists():
        files.remove_folder(folder)
