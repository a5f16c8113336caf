"""The log of decisions on a registered model.

A decision is recorded first, as a numbered tag of the registered model in one transaction; then it is carried out, and
the result is read back. If a crash interrupts this, the next command that reads the log completes the decision. Only
one process of a machine decides on a model at a time.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

from filelock import FileLock, Timeout

from hallmark.tasks.common.digests import SHOWN, digest_of
from hallmark.tasks.common.errors import HallmarkError, InputError
from hallmark.tasks.common.file_locks import file_lock
from hallmark.tasks.common.results import Decision
from hallmark.tasks.runtime import settings
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.tracking import decision_tags, model_registry
from hallmark.tasks.tracking.model_registry import CHAMPION, PREVIOUS

_LONGEST_GATE = 200
"""Number of characters that are kept of a gate's text if the decision is too long for a tag."""


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold the lock with which only one process of this machine decides on a model.

    Raises:
        InputError: another process holds it.
    """
    lock = _lock(name)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"{name}: another process is deciding on this model: try again when it is done") from error
    try:
        yield
    finally:
        lock.release()


def history(name: str) -> list[Decision]:
    """Return every decision on a model, the oldest first.

    Raises:
        InputError: there is no registered model of this name.
    """
    return [Decision(**json.loads(text)) for text in decision_tags.read(name)]


@held()
def record(decision: Decision) -> Decision:
    """Record a decision under the next number, and return it with its number. Call it inside `exclusive`."""
    numbered = replace(decision, number=max((one.number for one in history(decision.name)), default=0) + 1)
    _write(numbered)
    decision_tags.announce(numbered)
    return numbered


@held()
def finish(decision: Decision) -> Decision:
    """Carry out a recorded decision and return it. Call it inside `exclusive`.

    Sets the aliases, reads them back, and marks the decision as done. Parts that an interrupted process has done are
    repeated without effect. If someone else has changed the champion meanwhile, the aliases stay, and the reason says
    so.

    Raises:
        HallmarkError: the registry does not have the aliases that were set.
    """
    current = model_registry.version_with_alias(decision.name, CHAMPION)
    if current not in (decision.before, decision.champion):
        other = "no version" if current is None else f"version {current}"
        decision = replace(decision, reason=f"{decision.reason} (not done: {other} was made champion meanwhile)")
    elif decision.moves:
        _set_aliases(decision)
    done = replace(decision, done=True)
    _write(done)
    return done


def repair(name: str) -> list[Decision]:
    """Complete the decisions that a crash interrupted, and return them. Call it inside `exclusive`."""
    unfinished = [decision for decision in history(name) if not decision.done]
    for decision in unfinished:
        decision_tags.announce(decision)
    return [finish(decision) for decision in unfinished]


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
    return file_lock(settings.read().writable_home(), f"champion-{digest_of(name)[:SHOWN]}")


def _write(decision: Decision) -> None:
    """Write the tag of a decision, with shorter texts of the gates if it would be too long."""
    text = json.dumps(asdict(decision))
    if len(text) > decision_tags.LONGEST and decision.judgement:
        gates = [gate | {"found": gate["found"][:_LONGEST_GATE]} for gate in decision.judgement["gates"]]
        short = decision.judgement | {"gates": gates, "reason": decision.reason}
        text = json.dumps(asdict(replace(decision, judgement=short)))
    decision_tags.write(decision.name, decision.number, text)


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
