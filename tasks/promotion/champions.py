"""Promote registered models to champion, roll them back, and read who is champion and why."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.common.results import Decision, Judged, UnreadableDecision
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation.promotion import disqualification
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Rule
from hallmark.tasks.promotion import decision_log
from hallmark.tasks.runtime import provenance
from hallmark.tasks.tracking import run_queries
from hallmark.tasks.tracking.registry import model_registry
from hallmark.tasks.tracking.registry.model_registry import CHALLENGER, CHAMPION, PREVIOUS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """The champion of a model, since when, and why."""

    name: str
    version: int
    sha256: str
    run_id: str
    previous: int | None
    since: str
    """ISO 8601 in UTC."""
    why: str
    decision: Decision | None
    """The decision that made it champion; None if it was registered first, or set outside Hallmark."""


def champion(name: str) -> int | None:
    """Return the version of the champion; None if there is no such model or it has no champion."""
    return model_registry.version_with_alias(name, CHAMPION) if model_registry.exists(name) else None


def standing(name: str) -> Standing:
    """Return the champion of a model, since when, and why.

    Raises:
        InputError: there is no such model, or it has no champion.
    """
    _, number = model_registry.resolve(f"models:/{name}@{CHAMPION}")
    stored = model_registry.version(name, number)
    last = _last_move(name)
    decision = last if isinstance(last, Decision) and last.champion == number else None
    match last:
        case UnreadableDecision():
            why = f"unknown: a decision cannot be read: `hallmark history {name}` shows it"
        case None if number == 1:
            why = "the first version that was registered"
        case _:
            why = f"{decision.verdict}: {decision.reason}" if decision else "set outside Hallmark"
    created = datetime.fromtimestamp(stored.created, UTC).isoformat(timespec="seconds")
    return Standing(
        name=name,
        version=number,
        sha256=stored.sha256,
        run_id=stored.run_id,
        previous=model_registry.version_with_alias(name, PREVIOUS),
        since=decision.at if decision else created,
        why=why,
        decision=decision,
    )


def _last_move(name: str) -> Decision | UnreadableDecision | None:
    """Return the last decision that made a version champion, or a later one that cannot be read, and so may have."""
    for entry in reversed(decision_log.entries(name)):
        is_numbered = isinstance(entry, UnreadableDecision) and entry.number is not None
        if is_numbered or (isinstance(entry, Decision) and (entry.moves or entry.verdict == "FIRST")):
            return entry
    return None


def digests(name: str, version: int) -> dict[str, str]:
    """Return the digests of dataset, experiment and code that a version was made from; empty without a run."""
    run_id = run_of(name, version)
    return run_queries.digests(run_id) if run_id else {}


def experiment(name: str, version: int) -> Experiment | None:
    """Return the experiment that a version was made from; None if that is not recorded in a form that can be read."""
    try:
        run_id = run_of(name, version)
        return run_queries.experiment(run_queries.find(run_id)) if run_id else None
    except InputError:
        return None


def shipped(name: str, made_from: dict[str, str]) -> int | None:
    """Return the version that the newest finished run with these digests registered, or whose file it made again.

    Args:
        name: the registered model.
        made_from: digests of dataset, experiment and code, as `run_queries.digests_of` returns them.
    """
    if not model_registry.exists(name):
        return None
    known = {one.number: one.sha256 for one in model_registry.versions(name)}
    for run in run_queries.shipped(name, made_from):
        number = int(run.model_version or 0)
        if known.get(number) == run.sha256:  # the versions of a model that was created again are counted from 1
            return number
    return None


def verdict_on(name: str, version: int, champion: int, rule: Rule) -> Decision | None:
    """Return the newest decision on a version if it was held or rejected against this champion by the same rule."""
    last = next((one for one in reversed(decision_log.history(name)) if one.version == version), None)
    if last is None or last.verdict not in ("HOLD", "REJECT") or last.before != champion:
        return None
    values = rule.model_dump(mode="json")
    # Decisions of older versions lack newer fields of the rule.
    return last if Rule().model_dump(mode="json") | (last.rule or {}) == values else None


def recorded_findings(name: str, version: int) -> tuple[str, ...]:
    """Return the codes of the findings that the run of a version has recorded; empty without a run."""
    run = run_queries.get(run_of(name, version))
    return run.findings if run else ()


def findings(name: str, version: int) -> frozenset[str]:
    """Return the codes of the findings that disqualify a version as champion, checking its stored file.

    Raises:
        InputError: the registry cannot be reached, or Hallmark did not register the version.
    """
    codes = disqualification.disqualifying(recorded_findings(name, version))
    return codes if _holds(name, version) else codes | {disqualification.BROKEN_PROOF}


def _holds(name: str, version: int) -> bool:
    """Return whether a version's stored file is the registered one and its proof holds."""
    try:
        path = model_registry.fetch(f"models:/{name}/{version}", refresh=True)
    except DamagedError as error:
        logger.warning("%s version %s: the stored file is not the one that was registered: %s", name, version, error)
        return False
    try:
        return certificate.check(path).holds
    except InputError as error:
        logger.warning("%s version %s: the registered file is not one that Hallmark exported: %s", name, version, error)
        return False


def demoted_version(name: str, version: int) -> int | None:
    """Return the version with the same file that was rolled back, or None.

    Retraining never promotes that file again.
    """
    sha256 = model_registry.version(name, version).sha256
    return next((one.number for one in model_registry.versions(name) if sha256 and one.demoted == sha256), None)


def run_of(name: str, version: int) -> str:
    """Return the id of a version's MLflow run; empty if it has none."""
    return model_registry.version(name, version).run_id


@contextmanager
def challenging(name: str, version: int) -> Iterator[None]:
    """Give a version the alias `challenger` while it is judged."""
    model_registry.set_alias(name, CHALLENGER, version)
    try:
        yield
    finally:
        model_registry.set_alias(name, CHALLENGER, None)


def first_decision(name: str, version: int, schedule: str | None) -> Decision:
    """Return the decision on a first version, which becomes champion without a comparison."""
    reason = "there was no champion to compare with"
    return _decision(name, "FIRST", reason, version, None, champion=version, previous=None, schedule=schedule)


def decision_from(name: str, found: Judged, schedule: str | None) -> Decision:
    """Return the decision that follows from a judgement."""
    promoted = found.verdict == "PROMOTE"
    decision = _decision(
        name,
        found.verdict,
        found.reason,
        found.challenger,
        found.champion,
        champion=found.challenger if promoted else found.champion,
        previous=found.champion if promoted else model_registry.version_with_alias(name, PREVIOUS),
        schedule=schedule,
    )
    return replace(decision, rule=found.rule, judgement=found.judgement, refused_rows=found.refused_rows)


def promote(name: str, version: int, reason: str) -> Decision:
    """Make a version champion by hand, after its proof and its digest are checked again.

    Raises:
        InputError: there is no such version, it is champion already, it fails a check, or another process is deciding.
    """
    model_registry.resolve(f"models:/{name}/{version}")

    def decide() -> Decision:
        before = model_registry.version_with_alias(name, CHAMPION)
        if version == before:
            raise InputError(f"{name} version {version}: is the champion already")
        refuse_unproven(name, version)
        return _decision(name, "MANUAL", reason, version, before, champion=version, previous=before, schedule=None)

    return _by_hand(name, decide)


def rollback(name: str, reason: str) -> Decision:
    """Make `previous` champion again, after its proof and its digest are checked again.

    No retraining promotes the former champion's file again. `previous` becomes the version that was champion before
    the new champion, so that a second rollback goes one step further back.

    Raises:
        InputError: there is no such model or no `previous`, it fails a check, or another process is deciding.
    """
    model_registry.aliases(name)

    def decide() -> Decision:
        known = model_registry.aliases(name)
        before, version = known.get(CHAMPION), known.get(PREVIOUS)
        if version is None or version == before:
            raise InputError(f"{name}: has no previous version to roll back to: `hallmark history {name}` says why")
        if before is None:
            raise InputError(f"{name}: has no champion to roll back: use `hallmark promote`")
        refuse_unproven(name, version)
        promotions = [
            one
            for one in decision_log.history(name)
            if one.champion == version and one.verdict in ("PROMOTE", "MANUAL")
        ]
        previous = promotions[-1].before if promotions else None
        return _decision(name, "ROLLBACK", reason, version, before, champion=version, previous=previous, schedule=None)

    return _by_hand(name, decide)


def _by_hand(name: str, decide: Callable[[], Decision]) -> Decision:
    """Carry out the decision of a person, unless another process is deciding on the model."""
    with decision_log.exclusive(name):
        return decision_log.conclude(name, decide)


def refuse_unproven(name: str, version: int) -> None:
    """Refuse a version whose stored file is not the registered one, or whose proof is missing or fails.

    Raises:
        InputError: the message says what is wrong.
    """
    where = f"{name} version {version}"
    try:
        verdict = certificate.check(model_registry.fetch(f"models:/{name}/{version}", refresh=True))
    except DamagedError as error:
        raise InputError(f"{where}: the stored file is not the one that was registered: {error}") from error
    if not verdict.holds:
        raise InputError(f"{where}: its proof does not hold: {certificate.failures(verdict)}")
    is_proven = model_registry.version(name, version).is_proven
    if not is_proven or not (verdict.certificate and verdict.certificate.proof):
        raise InputError(f"{where}: its proof is missing: register it by `hallmark train`")


def _decision(
    name: str,
    verdict: str,
    reason: str,
    version: int,
    before: int | None,
    *,
    champion: int,
    previous: int | None,
    schedule: str | None,
) -> Decision:
    stored = model_registry.version(name, version)
    files = {"onnx_sha256": stored.sha256}
    if before is not None:
        files["former_onnx_sha256"] = model_registry.version(name, before).sha256
    return Decision(
        number=0,
        name=name,
        verdict=verdict,
        reason=" ".join(reason.split())[:500],
        version=version,
        run_id=stored.run_id,
        before=before,
        champion=champion,
        previous=previous,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        by=provenance.user(),
        schedule=schedule,
        digests=digests(name, version) | files,
        rule=None,
        judgement=None,
    )
