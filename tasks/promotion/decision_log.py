"""What is decided of a registered model: recorded first, then done, then read back; repaired by the next that looks.

A decision is a numbered tag of the registered model, `hallmark.decision.0007`, written in one transaction before
anything else happens: whatever a crash leaves undone, the next command that looks finishes from it. Only one process of
a machine decides on a model at a time.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from hallmark.tasks.common.digests import SHOWN, digest_of
from hallmark.tasks.common.errors import HallmarkError, InputError
from hallmark.tasks.common.files import is_writable
from hallmark.tasks.common.records import Decision
from hallmark.tasks.runtime import settings
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.tracking import model_registry
from hallmark.tasks.tracking.client import connect
from hallmark.tasks.tracking.model_registry import CHAMPION, PREVIOUS, SHA256

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DEMOTED = "hallmark.demoted"
"""Tag of a version that was rolled back: the SHA-256 of its file."""

_DECISION = "hallmark.decision."
_LONGEST = 4900
"""Characters of a registered model's tag; MLflow takes at most 5,000."""
_FOUND = 200
"""Characters of what a gate found, where all would be too long."""


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Be the only process of this machine that decides on a model.

    Raises:
        InputError: another one does.
    """
    lock = _lock(name)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"{name}: another process decides on this model now: try again when it is done") from error
    try:
        yield
    finally:
        lock.release()


def history(name: str) -> list[Decision]:
    """Every decision on a model, the first first.

    Raises:
        InputError: there is no such model.
    """
    tags = model_registry.known(name).tags
    return [Decision(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(_DECISION)]


@held()
def record(decision: Decision) -> Decision:
    """Record a decision under the next number, before anything is done about it. The caller must be `alone`.

    Returns:
        the same with its number.
    """
    numbered = replace(decision, number=max((one.number for one in history(decision.name)), default=0) + 1)
    _write(numbered)
    _tell(numbered)
    return numbered


@held()
def finish(decision: Decision) -> Decision:
    """Do what a recorded decision says, however much of it is done: aliases, then a look at them, then the mark.

    Where somebody has made another version champion since, that stays. The caller must be `alone`.

    Raises:
        HallmarkError: the registry does not say what it was told.
    """
    client, name = connect(), decision.name
    now = model_registry.bearer(name, CHAMPION)
    if now not in (decision.before, decision.champion):
        who = "nobody" if now is None else f"version {now}"
        decision = replace(decision, reason=f"{decision.reason} (not done: {who} was made champion meanwhile)")
    elif decision.moves:
        _move(client, decision)
    done = replace(decision, done=True)
    _write(done)
    return done


def repair(name: str) -> list[Decision]:
    """Finish what a crash has left of decisions; returns them. The caller must be `alone`."""
    left = [decision for decision in history(name) if not decision.done]
    for decision in left:
        _tell(decision)
    return [finish(decision) for decision in left]


def look(name: str) -> list[Decision]:
    """Repair what a crash has left, before somebody is told how a model stands; returns what was repaired.

    What another process is about to finish is left to it.

    Raises:
        InputError: there is no such model.
    """
    if all(decision.done for decision in history(name)):
        return []
    try:
        with _lock(name).acquire(timeout=0):
            return repair(name)
    except Timeout:
        return []


def _lock(name: str) -> FileLock:
    home = settings.read().home
    if not is_writable(home):
        raise InputError(f"HALLMARK_HOME: {home} cannot be written: make it writable or choose another folder")
    path = home / "locks" / f"champion-{digest_of(name)[:SHOWN]}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)  # a kernel lock, which kill -9 releases


def _write(decision: Decision) -> None:
    """The one write that makes a decision, and the one that makes it done."""
    text = json.dumps(asdict(decision))
    if len(text) > _LONGEST and decision.judgement:
        gates = [gate | {"found": gate["found"][:_FOUND]} for gate in decision.judgement["gates"]]
        short = decision.judgement | {"gates": gates, "reason": decision.reason}
        text = json.dumps(asdict(replace(decision, judgement=short)))
    connect().set_registered_model_tag(decision.name, f"{_DECISION}{decision.number:04}", text)


def _tell(decision: Decision) -> None:
    """Say a decision where else people look: an artifact of the version's run, and a tag of both versions."""
    client, key = connect(), f"{_DECISION}{decision.number:04}"
    if decision.run_id:
        by_hand = decision.verdict in ("MANUAL", "ROLLBACK")
        file = f"decision-{decision.number:04}.json" if by_hand else "decision.json"
        client.log_dict(decision.run_id, asdict(decision), file)
    former = f" for version {decision.before}" if decision.before is not None else ""
    for version in {decision.version, decision.before} - {None}:
        client.set_model_version_tag(
            decision.name, str(version), key, f"{decision.verdict}: version {decision.version}{former}"
        )


def _move(client: "MlflowClient", decision: Decision) -> None:
    name = decision.name
    if decision.verdict == "ROLLBACK":
        demoted = model_registry.entry(name, decision.before)
        client.set_model_version_tag(name, demoted.version, DEMOTED, demoted.tags.get(SHA256, ""))
    if decision.previous is None:
        client.delete_registered_model_alias(name, PREVIOUS)
    else:
        client.set_registered_model_alias(name, PREVIOUS, str(decision.previous))
    client.set_registered_model_alias(name, CHAMPION, str(decision.champion))
    found = (model_registry.bearer(name, CHAMPION), model_registry.bearer(name, PREVIOUS))
    if found != (decision.champion, decision.previous):
        raise HallmarkError(
            f"{name}: champion and previous were set to {decision.champion} and {decision.previous}, and the registry "
            f"says {found[0]} and {found[1]}: `hallmark champion {name}` tries again"
        )
