"""Promote registered models to champion, roll them back, and read who is champion and why."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.common.records import Decision, Judged
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.promotion import decision_log
from hallmark.tasks.runtime import provenance
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.tracking import model_registry
from hallmark.tasks.tracking.client import connect
from hallmark.tasks.tracking.model_registry import CHALLENGER, CHAMPION, PREVIOUS, SHA256

COMPARED = ("dataset_digest", "experiment_digest", "code_digest")
"""Tags of a run: where all are the champion's, a training would only give the champion again."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Who is champion, since when, and why."""

    name: str
    version: int
    sha256: str
    run_id: str
    previous: int | None
    since: str
    """ISO 8601 in UTC."""
    why: str
    decision: Decision | None
    """The one that made it champion, if one did."""


def champion(name: str) -> int | None:
    """Version of the champion; None if there is no such model yet, or nobody is champion."""
    client = connect()
    if not client.search_registered_models(f"name = '{name}'"):
        return None
    return model_registry.bearer(name, CHAMPION)


def standing(name: str) -> Standing:
    """Who is champion, since when, and why.

    Raises:
        InputError: there is no such model, or nobody is champion.
    """
    _, number = model_registry.resolve(f"models:/{name}@{CHAMPION}")
    found = model_registry.entry(name, number)
    last = next((one for one in reversed(decision_log.history(name)) if one.moves or one.verdict == "FIRST"), None)
    decision = last if last and last.champion == number else None
    why = f"{decision.verdict}: {decision.reason}" if decision else "set outside Hallmark"
    if last is None and number == 1:
        why = "the first version that was registered"
    made = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(timespec="seconds")
    return Standing(
        name=name,
        version=number,
        sha256=found.tags.get(SHA256, ""),
        run_id=found.run_id or "",
        previous=model_registry.bearer(name, PREVIOUS),
        since=decision.at if decision else made,
        why=why,
        decision=decision,
    )


def digests(name: str, version: int) -> dict[str, str]:
    """What a version was made from: the tags `COMPARED` of its run; of a version without a run, nothing."""
    run_id = model_registry.entry(name, version).run_id
    tags = connect().get_run(run_id).data.tags if run_id else {}
    return {tag: tags[f"hallmark.{tag}"] for tag in COMPARED if f"hallmark.{tag}" in tags}


def undecided(name: str, made_from: dict[str, str]) -> int | None:
    """The newest version made from the same, of a run that has finished, and newer than any that was decided on.

    A process that was killed between training and judging leaves one.
    """
    client = connect()
    last = max([model_registry.bearer(name, CHAMPION) or 0, *(one.version for one in decision_log.history(name))])
    versions = client.search_model_versions(f"name = '{name}'")
    for number in sorted((int(one.version) for one in versions if int(one.version) > last), reverse=True):
        if digests(name, number) == made_from and client.get_run(run_of(name, number)).info.status == "FINISHED":
            return number
    return None


def is_demoted(name: str, version: int) -> int | None:
    """The version that was rolled back and has the same file, if there is one: no schedule promotes it again."""
    sha256 = model_registry.entry(name, version).tags.get(SHA256)
    versions = connect().search_model_versions(f"name = '{name}'")
    demoted = (int(one.version) for one in versions if sha256 and one.tags.get(decision_log.DEMOTED) == sha256)
    return next(demoted, None)


def run_of(name: str, version: int) -> str:
    """The MLflow run of a version; empty if it has none."""
    return model_registry.entry(name, version).run_id or ""


@contextmanager
def challenging(name: str, version: int) -> Iterator[None]:
    """Let a version bear the alias `challenger` while it is judged."""
    client = connect()
    with held():
        client.set_registered_model_alias(name, CHALLENGER, str(version))
    try:
        yield
    finally:
        with held():
            client.delete_registered_model_alias(name, CHALLENGER)


def first(name: str, version: int, schedule: str | None) -> Decision:
    """What is decided where nobody was there to compare with: the first version is champion already."""
    reason = "there was no champion to compare with"
    return _decision(name, "FIRST", reason, version, None, champion=version, previous=None, schedule=schedule)


def judged(name: str, found: Judged, schedule: str | None) -> Decision:
    """What is decided by a judgement."""
    promoted = found.verdict == "PROMOTE"
    decision = _decision(
        name,
        found.verdict,
        found.reason,
        found.challenger,
        found.champion,
        champion=found.challenger if promoted else found.champion,
        previous=found.champion if promoted else model_registry.bearer(name, PREVIOUS),
        schedule=schedule,
    )
    return replace(decision, rule=found.rule, judgement=found.judgement, refused_rows=found.refused_rows)


def promote(name: str, version: int, reason: str) -> Decision:
    """Make a version champion because a person says so, after its proof and its digest are checked again.

    Raises:
        InputError: there is no such version, it is champion already, it does not hold, or another process decides.
    """
    model_registry.resolve(f"models:/{name}/{version}")
    with decision_log.alone(name):
        decision_log.repair(name)
        before = model_registry.bearer(name, CHAMPION)
        if version == before:
            raise InputError(f"{name} version {version}: is the champion already")
        refuse_unproven(name, version)
        decision = _decision(name, "MANUAL", reason, version, before, champion=version, previous=before, schedule=None)
        return decision_log.finish(decision_log.record(decision))


def rollback(name: str, reason: str) -> Decision:
    """Make `previous` champion again, after its proof and its digest are checked again.

    The file that was champion is not promoted again by retraining. `previous` becomes who was champion before, so that
    a second rollback goes one further back and never forward.

    Raises:
        InputError: there is no such model or no `previous`, it does not hold, or another process decides.
    """
    model_registry.known(name)
    with decision_log.alone(name):
        decision_log.repair(name)
        before, version = model_registry.bearer(name, CHAMPION), model_registry.bearer(name, PREVIOUS)
        if version is None or version == before:
            raise InputError(f"{name}: has no previous version to roll back to: `hallmark history {name}` tells why")
        if before is None:
            raise InputError(f"{name}: nobody is champion, so there is nothing to roll back: use `hallmark promote`")
        refuse_unproven(name, version)
        earlier = [
            one
            for one in decision_log.history(name)
            if one.champion == version and one.verdict in ("PROMOTE", "MANUAL")
        ]
        previous = earlier[-1].before if earlier else None
        decision = _decision(
            name, "ROLLBACK", reason, version, before, champion=version, previous=previous, schedule=None
        )
        return decision_log.finish(decision_log.record(decision))


def refuse_unproven(name: str, version: int) -> None:
    """Refuse a version whose stored file is not the one that was registered, or whose proof is missing or fails.

    Raises:
        InputError: says what is wrong.
    """
    where = f"{name} version {version}"
    tags = model_registry.entry(name, version).tags
    try:
        verdict = certificate.check(model_registry.fetch(f"models:/{name}/{version}", anew=True))
    except DamagedError as error:
        raise InputError(f"{where}: the stored file is not the one that was registered: {error}") from error
    if not verdict.holds:
        raise InputError(f"{where}: its proof does not hold: {certificate.failures(verdict)}")
    if tags.get("hallmark.parity") != "passed" or not (verdict.certificate and verdict.certificate.proof):
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
    found = model_registry.entry(name, version)
    files = {"onnx_sha256": found.tags.get(SHA256, "")}
    if before is not None:
        files["former_onnx_sha256"] = model_registry.entry(name, before).tags.get(SHA256, "")
    return Decision(
        number=0,
        name=name,
        verdict=verdict,
        reason=" ".join(reason.split())[:500],
        version=version,
        run_id=found.run_id or "",
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
