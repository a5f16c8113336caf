"""Decisions on a registered model, as numbered tags of the model."""

from dataclasses import asdict

from hallmark.tasks.common.results import Decision
from hallmark.tasks.tracking import model_registry, tags
from hallmark.tasks.tracking.client import connect

LONGEST = 4900
"""Maximum length of a registered model's tag in characters; MLflow accepts at most 5,000."""


def read(name: str) -> list[str]:
    """Return the JSON text of every decision on a registered model, in order.

    Raises:
        InputError: there is no registered model of this name.
    """
    values = model_registry.model_tags(name)
    return [values[key] for key in sorted(values) if key.startswith(tags.DECISION)]


def write(name: str, number: int, text: str) -> None:
    """Write or replace a decision in one transaction."""
    connect().set_registered_model_tag(name, tags.decision(number), text)


def announce(decision: Decision) -> None:
    """Show a decision in the MLflow UI: as an artifact of the version's run, and as a tag of both versions."""
    client, key = connect(), tags.decision(decision.number)
    if decision.run_id:
        by_hand = decision.verdict in ("MANUAL", "ROLLBACK")
        file = f"decision-{decision.number:04}.json" if by_hand else "decision.json"
        client.log_dict(decision.run_id, asdict(decision), file)
    former = f" for version {decision.before}" if decision.before is not None else ""
    for version in {decision.version, decision.before} - {None}:
        client.set_model_version_tag(
            decision.name, str(version), key, f"{decision.verdict}: version {decision.version}{former}"
        )
