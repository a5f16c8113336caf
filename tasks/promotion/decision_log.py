"""The log of decisions on a registered model.

A decision is recorded first, as a numbered tag of the registered model in one transaction; then it is carried out, and
the result is read back. If a crash interrupts this, the next command that reads the log completes the decision. A
decision that cannot be read is skipped: the aliases say who is champion.

Only one process at a time decides on a model. A lock ensures this for all processes of a machine that use one SQLite
store, and otherwise for those of one home. On a store that other machines can write to, a decision counts if it is
still the one under its number `SETTLE_SECONDS` after it was written (Lamport, A fast mutual exclusion algorithm, 1987,
which calls it Fischer's); a process whose decision was replaced decides anew.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TypeVar
from uuid import uuid4

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from hallmark.tasks.common.digests import SHOWN, digest_of
from hallmark.tasks.common.errors import HallmarkError, InputError
from hallmark.tasks.common.file_locks import file_lock, lock_beside
from hallmark.tasks.common.results import Decision, UnreadableDecision
from hallmark.tasks.runtime import locks, settings
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.tracking.registry import decision_tags, model_registry
from hallmark.tasks.tracking.registry.decision_tags import StoredDecision
from hallmark.tasks.tracking.registry.model_registry import CHAMPION, PREVIOUS

SETTLE_SECONDS = 1.0
"""Time after which a decision on a shared store is read back: longer than others take from reading to writing."""

_SLOWER = 3
"""How much slower than this process others may be, if the store is so slow that a second is too short."""

ABANDONED_SECONDS = 5.0
"""Time after which an unfinished decision on a shared store is completed by another process."""

_LONGEST_GATE = 200
"""Number of characters that are kept of a gate's text if the decision is too long for a tag."""

_PARSER = TypeAdapter(Decision)

D = TypeVar("D", Decision, Decision | None)


@contextmanager
def exclusive(name: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock with which only one process decides on a model.

    Args:
        name: the registered model.
        wait: wait for another process that holds it, instead of refusing to go on.

    Raises:
        InputError: another process holds it, and `wait` is false.
    """
    lock = _lock(name)
    if wait:
        with locks.exclusive(lock, f"another process is deciding on {name}"):
            yield
        return
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"{name}: another process is deciding on this model: try again when it is done") from error
    try:
        yield
    finally:
        lock.release()


def entries(name: str) -> list[Decision | UnreadableDecision]:
    """Return every decision on a model, the oldest first, also those that cannot be read.

    Raises:
        InputError: there is no registered model of this name.
    """
    return [_parse(name, stored) for stored in decision_tags.read(name)]


def history(name: str) -> list[Decision]:
    """Return every decision on a model that can be read, the oldest first.

    Raises:
        InputError: there is no registered model of this name.
    """
    return [entry for entry in entries(name) if isinstance(entry, Decision)]


def conclude(name: str, decide: Callable[[], D], show: Callable[[Decision], None] = lambda _: None) -> D | Decision:
    """Decide, record the decision, and carry it out. Call it inside `exclusive`.

    Args:
        name: the registered model.
        decide: returns the decision on the present champion, or None if there is nothing to decide. Called again if
            another machine has decided meanwhile.
        show: called with each decision that is about to be carried out, also with those of interrupted processes.

    Returns:
        The decision as it was carried out; None if there was nothing to decide.
    """
    while True:
        for repaired in repair(name):
            show(repaired)
        decision = decide()
        if decision is None:
            return decision
        if recorded := record(decision):
            show(recorded)
            return finish(recorded)


def record(decision: Decision) -> Decision | None:
    """Record a decision under the next number, and return it with its number. Call it inside `exclusive`.

    Returns:
        None if another machine has decided meanwhile, so that the decision is on a champion that is none any more.
    """
    name = decision.name
    if not _is_current(decision):
        return None
    started, known = time.monotonic(), entries(name)
    if any(isinstance(one, Decision) and not one.done for one in known):
        return None
    number = max((one.number for one in known if one.number is not None), default=0) + 1
    numbered = replace(decision, number=number, id=uuid4().hex)
    if not decision_tags.add(name, number, _text(numbered)):
        return None
    if _is_shared():
        time.sleep(max(SETTLE_SECONDS, _SLOWER * (time.monotonic() - started)))
        if not _is_own(numbered):
            return None
        if not _is_current(decision):
            decision_tags.remove(name, number)
            return None
    decision_tags.announce(numbered)
    return numbered


@held()
def finish(decision: Decision) -> Decision:
    """Carry out a recorded decision and return it. Call it inside `exclusive`.

    Sets the aliases, reads them back, and marks the decision as done. Parts that an interrupted process has done are
    repeated without effect. If someone else has changed the champion meanwhile, or has deleted the version, the aliases
    stay, and the reason says so.

    Raises:
        HallmarkError: the registry does not have the aliases that were set.
    """
    name = decision.name
    if done := next((one for one in history(name) if one.id and one.id == decision.id and one.done), None):
        return done  # another machine took this process for a dead one
    current = model_registry.version_with_alias(name, CHAMPION)
    existing = {one.number for one in model_registry.versions(name)}
    obstacle = ""
    if current not in (decision.before, decision.champion):
        obstacle = f"{'no version' if current is None else f'version {current}'} was made champion meanwhile"
    elif decision.moves and decision.champion not in existing:
        obstacle = f"version {decision.champion} was deleted meanwhile"
    elif decision.moves:
        decision = decision if decision.previous in existing else replace(decision, previous=None)
        _set_aliases(decision)
    if obstacle:
        decision = replace(decision, reason=f"{decision.reason} (not done: {obstacle})")
    done = replace(decision, done=True)
    decision_tags.write(name, done.number, _text(done))
    return done


def repair(name: str) -> list[Decision]:
    """Complete the decisions that a crash interrupted, and return them. Call it inside `exclusive`.

    On a shared store, waits until another machine has completed its decision, or has not done so for
    `ABANDONED_SECONDS`.
    """
    repaired: list[Decision] = []
    while unfinished := [decision for decision in history(name) if not decision.done]:
        if _is_shared() and not _are_abandoned(name, unfinished):
            continue
        for decision in unfinished:
            decision_tags.announce(decision)
            repaired.append(finish(decision))
    return repaired


def repair_if_idle(name: str) -> list[Decision]:
    """Complete interrupted decisions unless another process is deciding now, and return them.

    Call it before showing the state of a model.

    Raises:
        InputError: there is no registered model of this name.
    """
    if all(decision.done for decision in history(name)):
        return []
    try:
        with _lock(name).acquire(timeout=0):
            return repair(name)
    except Timeout:
        return []


def _lock(name: str) -> FileLock:
    key = f"champion-{digest_of(name)[:SHOWN]}"
    database = settings.local_database()
    return lock_beside(database, key) if database else file_lock(settings.read().writable_home(), key)


def _is_shared() -> bool:
    """Return whether other processes than those that share the lock can write to the store."""
    return settings.database(settings.read().tracking_uri) is None


def _is_current(decision: Decision) -> bool:
    """Return whether the champion is the one that a decision is about. A first version is champion already."""
    champion = model_registry.version_with_alias(decision.name, CHAMPION)
    return champion == decision.before or (decision.verdict == "FIRST" and champion == decision.champion)


def _is_own(decision: Decision) -> bool:
    """Return whether a decision is the one under its number."""
    return any(one.number == decision.number and one.id == decision.id for one in history(decision.name))


def _are_abandoned(name: str, unfinished: list[Decision]) -> bool:
    """Return whether unfinished decisions stay as they are for `ABANDONED_SECONDS`; return early if they change."""
    deadline = time.monotonic() + ABANDONED_SECONDS
    while time.monotonic() < deadline:
        time.sleep(SETTLE_SECONDS / 4)
        if [one for one in history(name) if not one.done] != unfinished:
            return False
    return True


def _parse(name: str, stored: StoredDecision) -> Decision | UnreadableDecision:
    """Read a stored decision. Fields that this version does not know are ignored."""
    if stored.number is None:
        return UnreadableDecision(None, stored.tag, "its tag has no number")
    try:
        # The model may have been renamed since.
        return replace(_PARSER.validate_json(stored.text), name=name, number=stored.number)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, problem["loc"]))
        text = " ".join(problem["msg"].split())[:_LONGEST_GATE]
        return UnreadableDecision(stored.number, stored.tag, f"{where}: {text}" if where else text)


def _text(decision: Decision) -> str:
    """Return the tag of a decision, with shorter texts of the gates if it would be too long."""
    text = json.dumps(asdict(decision))
    if len(text) > decision_tags.LONGEST and decision.judgement:
        gates = [gate | {"found": gate["found"][:_LONGEST_GATE]} for gate in decision.judgement["gates"]]
        short = decision.judgement | {"gates": gates, "reason": decision.reason}
        text = json.dumps(asdict(replace(decision, judgement=short)))
    return text


def _set_aliases(decision: Decision) -> None:
    name = decision.name
    if decision.verdict == "ROLLBACK" and decision.before is not None:
        model_registry.mark_demoted(name, decision.before)
    model_registry.set_alias(name, PREVIOUS, decision.previous)
    model_registry.set_alias(name, CHAMPION, decision.champion)
    current = (model_registry.version_with_alias(name, CHAMPION), model_registry.version_with_alias(name, PREVIOUS))
    if current != (decision.champion, decision.previous):
        raise HallmarkError(
            f"{name}: champion and previous were set to versions {decision.champion} and {decision.previous}, but the "
            f"registry has {current[0]} and {current[1]}: `hallmark champion {name}` tries again"
        )
