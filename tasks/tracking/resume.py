"""One attempt at an experiment at a time, and what lets the same command go on where an interrupted one stopped."""

import json
import logging
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from filelock import FileLock, Timeout

from hallmark.tasks.common.digests import SHOWN, digest_of
from hallmark.tasks.common.errors import DamagedError
from hallmark.tasks.common.files import whole_file
from hallmark.tasks.common.records import Attempt, Dataset
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import trainer
from hallmark.tasks.runtime import locks, progress, provenance, settings
from hallmark.tasks.runtime.signals import interrupted
from hallmark.tasks.tracking import run_logger

logger = logging.getLogger(__name__)

_FILE = "attempt.json"


@contextmanager
def claim(
    members: Sequence[Experiment], dataset: Dataset, axes: Sequence[str] = (), *, fresh: bool
) -> Iterator[Attempt]:
    """Be the only one that runs an experiment, or a sweep of several, and take up an attempt that was interrupted.

    Who comes second waits, and says so. What an attempt leaves is removed when it succeeds. After an interruption, be
    it kill -9, it stays for the same run to go on; after a failure, for a run of its own.

    Args:
        members: what is run; all bear one name.
        dataset: on what.
        axes: the options in which members of a sweep differ; a sweep of one is no training.
        fresh: drop what an earlier attempt left.

    Raises:
        DamagedError: what an earlier attempt left cannot be read.
        InputError: a checkpoint there is of another experiment.
    """
    home, name = settings.read().home, members[0].name
    key = digest_of([*(member.digest for member in members), *axes, dataset.digest])[:SHOWN]
    waiting = f"another process runs {name}, or its twin by another name"
    with locks.exclusive(home / "locks" / f"experiment-{key}.lock", waiting):
        attempt = _take_up(home / "unfinished" / key, members, dataset, fresh=fresh)
        try:
            yield attempt
        except BaseException as error:
            if interrupted(error):
                progress.line("stopped", "the same command goes on from here; with --fresh it begins anew")
            else:
                try:
                    _write(replace(attempt, id=None))
                except OSError as second:  # what failed first is what is told
                    logger.warning("%s: cannot be written: %s", attempt.folder, second)
            raise
        _remove(attempt.folder)


def of_member(attempt: Attempt, index: int) -> Attempt:
    """The part of a sweep's attempt that is one member's."""
    return replace(attempt, id=f"{attempt.id}-{index}", folder=attempt.folder / str(index))


def close_orphans() -> None:
    """Close as killed the MLflow runs of processes that were killed before they could; each can still be gone on with.

    Whoever lives holds the lock of what it runs, and is left alone.
    """
    home = settings.read().home
    for path in sorted(home.glob(f"unfinished/*/{_FILE}")):
        try:
            with FileLock(home / "locks" / f"experiment-{path.parent.name}.lock").acquire(timeout=0):
                if known := _read(path.parent):
                    run_logger.give_up(known)
        except Timeout:
            continue
        except DamagedError as error:
            logger.warning("its MLflow run cannot be closed: %s", error)


def _take_up(folder: Path, members: Sequence[Experiment], dataset: Dataset, *, fresh: bool) -> Attempt:
    """Continue the attempt in `folder`, or begin one there."""
    if fresh:
        with suppress(DamagedError):  # what cannot be read goes too
            _drop(_read(folder), folder)
        _remove(folder)
    first = members[0]
    marks = trainer.fingerprint_of(dataset, first.model, first.training)
    marks["version"] = str(trainer.VERSION)
    marks["code"] = provenance.code_digest(settings.ROOT / "tasks" / "ml")
    known = _usable(_read(folder), marks, folder)
    if len(members) == 1:
        trainer.refuse_foreign_checkpoints(dataset, first.data, first.model, first.training, folder)
    if known and known.id and known.name == first.name:
        return replace(known, is_continued=True)
    if known:
        run_logger.give_up(known)
    return _write(Attempt(uuid.uuid4().hex, first.name, marks, folder))


def _usable(known: Attempt | None, marks: dict[str, str], folder: Path) -> Attempt | None:
    """What of an earlier attempt can be gone on with: all, its checkpoints without its run, or nothing."""
    if known is None:
        return None
    if changed := next((mark for mark, value in marks.items() if known.marks.get(mark) != value), None):
        progress.line("anew", f"an attempt was interrupted that had another {changed}: nothing of it is used")
        return _drop(known, folder)
    match run_logger.status(known):
        case "FINISHED":
            return _drop(known, folder)
        case "FAILED":  # and was killed before it could say so here
            return replace(known, id=None)
    return known


def _read(folder: Path) -> Attempt | None:
    path = folder / _FILE
    if not path.exists():
        return None
    try:
        return Attempt(**json.loads(path.read_text()), folder=folder)
    except (ValueError, TypeError) as error:
        raise DamagedError(f"{path}: is damaged: add --fresh to begin anew") from error


def _write(attempt: Attempt) -> Attempt:
    with whole_file(attempt.folder / _FILE) as temporary:
        content = {name: value for name, value in asdict(attempt).items() if name in ("id", "name", "marks")}
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    return attempt


def _drop(attempt: Attempt | None, folder: Path) -> None:
    if attempt:
        run_logger.give_up(attempt)
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove what lies in a folder as one: a kill amid it leaves nothing that would be resumed."""
    if folder.exists():
        folder = folder.rename(folder.with_name(f".removed-{uuid.uuid4().hex}"))
        shutil.rmtree(folder)
