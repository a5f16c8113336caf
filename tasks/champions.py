"""Who is champion of a registered model, why, and how that changes: recorded first, then done, then read back.

A decision is a numbered tag of the registered model, `hallmark.decision.0007`, written in one transaction before
anything else happens: whatever a crash leaves undone, the next command that looks finishes from it. Only one process of
a machine decides on a model at a time.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from tasks import provenance, registry, settings
from tasks.ml import certificate
from tasks.ml.digests import SHOWN, digest_of
from tasks.ml.errors import DamagedError, HallmarkError, InputError
from tasks.ml.files import is_writable
from tasks.ml.records import Decision, Judged
from tasks.registry import CHAMPION
from tasks.signals import held
from tasks.store import connect

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

PREVIOUS, CHALLENGER = "previous", "challenger"
"""Aliases, beside `champion`."""
COMPARED = ("dataset_digest", "experiment_digest", "code_digest")
"""Tags of a run: where all are the champion's, a training would only give the champion again."""

_DECISION = "hallmark.decision."
_DEMOTED = "hallmark.demoted"
_SHA256 = "hallmark.onnx_sha256"
_LONGEST = 4900
"""Characters of a registered model's tag; MLflow takes at most 5,000."""
_FOUND = 200
"""Characters of what a gate found, where all would be too long."""


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
    tags = registry.known(name).tags
    return [Decision(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(_DECISION)]


def champion(name: str) -> int | None:
    """Version of the champion; None if there is no such model yet, or nobody is champion."""
    client = connect()
    if not client.search_registered_models(f"name = '{name}'"):
        return None
    return _alias(name, CHAMPION)


def standing(name: str) -> Standing:
    """Who is champion, since when, and why.

    Raises:
        InputError: there is no such model, or nobody is champion.
    """
    _, number = registry.resolve(f"models:/{name}@{CHAMPION}")
    found = _version(name, number)
    last = next((one for one in reversed(history(name)) if one.moves or one.verdict == "FIRST"), None)
    decision = last if last and last.champion == number else None
    why = f"{decision.verdict}: {decision.reason}" if decision else "set outside Hallmark"
    if last is None and number == 1:
        why = "the first version that was registered"
    made = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(timespec="seconds")
    return Standing(
        name=name,
        version=number,
        sha256=found.tags.get(_SHA256, ""),
        run_id=found.run_id or "",
        previous=_alias(name, PREVIOUS),
        since=decision.at if decision else made,
        why=why,
        decision=decision,
    )


def digests(name: str, version: int) -> dict[str, str]:
    """What a version was made from: the tags `COMPARED` of its run; of a version without a run, nothing."""
    run_id = _version(name, version).run_id
    tags = connect().get_run(run_id).data.tags if run_id else {}
    return {tag: tags[f"hallmark.{tag}"] for tag in COMPARED if f"hallmark.{tag}" in tags}


def undecided(name: str, made_from: dict[str, str]) -> int | None:
    """The newest version made from the same, of a run that has finished, and newer than any that was decided on.

    A process that was killed between training and judging leaves one.
    """
    client = connect()
    last = max([_alias(name, CHAMPION) or 0, *(one.version for one in history(name))])
    versions = client.search_model_versions(f"name = '{name}'")
    for number in sorted((int(one.version) for one in versions if int(one.version) > last), reverse=True):
        if digests(name, number) == made_from and client.get_run(run_of(name, number)).info.status == "FINISHED":
            return number
    return None


def is_demoted(name: str, version: int) -> int | None:
    """The version that was rolled back and has the same file, if there is one: no schedule promotes it again."""
    sha256 = _version(name, version).tags.get(_SHA256)
    versions = connect().search_model_versions(f"name = '{name}'")
    demoted = (int(one.version) for one in versions if sha256 and one.tags.get(_DEMOTED) == sha256)
    return next(demoted, None)


def run_of(name: str, version: int) -> str:
    """The MLflow run of a version; empty if it has none."""
    return _version(name, version).run_id or ""


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
        previous=found.champion if promoted else _alias(name, PREVIOUS),
        schedule=schedule,
    )
    return replace(decision, rule=found.rule, judgement=found.judgement, refused_rows=found.refused_rows)


def promote(name: str, version: int, reason: str) -> Decision:
    """Make a version champion because a person says so, after its proof and its digest are checked again.

    Raises:
        InputError: there is no such version, it is champion already, it does not hold, or another process decides.
    """
    registry.resolve(f"models:/{name}/{version}")
    with alone(name):
        repair(name)
        before = _alias(name, CHAMPION)
        if version == before:
            raise InputError(f"{name} version {version}: is the champion already")
        refuse_unproven(name, version)
        decision = _decision(name, "MANUAL", reason, version, before, champion=version, previous=before, schedule=None)
        return finish(record(decision))


def rollback(name: str, reason: str) -> Decision:
    """Make `previous` champion again, after its proof and its digest are checked again.

    The file that was champion is not promoted again by retraining. `previous` becomes who was champion before, so that
    a second rollback goes one further back and never forward.

    Raises:
        InputError: there is no such model or no `previous`, it does not hold, or another process decides.
    """
    registry.known(name)
    with alone(name):
        repair(name)
        before, version = _alias(name, CHAMPION), _alias(name, PREVIOUS)
        if version is None or version == before:
            raise InputError(f"{name}: has no previous version to roll back to: `hallmark history {name}` tells why")
        refuse_unproven(name, version)
        earlier = [one for one in history(name) if one.champion == version and one.verdict in ("PROMOTE", "MANUAL")]
        previous = earlier[-1].before if earlier else None
        decision = _decision(
            name, "ROLLBACK", reason, version, before, champion=version, previous=previous, schedule=None
        )
        return finish(record(decision))


def refuse_unproven(name: str, version: int) -> None:
    """Refuse a version whose stored file is not the one that was registered, or whose proof is missing or fails.

    Raises:
        InputError: says what is wrong.
    """
    where = f"{name} version {version}"
    tags = _version(name, version).tags
    try:
        verdict = certificate.check(registry.fetch(f"models:/{name}/{version}", anew=True))
    except DamagedError as error:
        raise InputError(f"{where}: the stored file is not the one that was registered: {error}") from error
    if not verdict.holds:
        raise InputError(f"{where}: its proof does not hold: {certificate.failures(verdict)}")
    if tags.get("hallmark.parity") != "passed" or not (verdict.certificate and verdict.certificate.proof):
        raise InputError(f"{where}: its proof is missing: register it by `hallmark train`")


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
    now = _alias(name, CHAMPION)
    if now not in (decision.before, decision.champion):
        decision = replace(decision, reason=f"{decision.reason} (not done: version {now} was made champion meanwhile)")
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
    found = _version(name, version)
    files = {"onnx_sha256": found.tags.get(_SHA256, "")}
    if before is not None:
        files["former_onnx_sha256"] = _version(name, before).tags.get(_SHA256, "")
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
        demoted = _version(name, decision.before)
        client.set_model_version_tag(name, demoted.version, _DEMOTED, demoted.tags.get(_SHA256, ""))
    if decision.previous is None:
        client.delete_registered_model_alias(name, PREVIOUS)
    else:
        client.set_registered_model_alias(name, PREVIOUS, str(decision.previous))
    client.set_registered_model_alias(name, CHAMPION, str(decision.champion))
    found = (_alias(name, CHAMPION), _alias(name, PREVIOUS))
    if found != (decision.champion, decision.previous):
        raise HallmarkError(
            f"{name}: champion and previous were set to {decision.champion} and {decision.previous}, and the registry "
            f"says {found[0]} and {found[1]}: `hallmark champion {name}` tries again"
        )


def _alias(name: str, alias: str) -> int | None:
    number = registry.known(name).aliases.get(alias)
    return int(number) if number else None


def _version(name: str, number: int | None) -> "ModelVersion":
    return connect().get_model_version(name, str(number))
