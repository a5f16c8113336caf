"""Decisions on a registered model, as numbered tags of the model."""

import logging
from dataclasses import asdict, dataclass

from mlflow.exceptions import MlflowException

from hallmark.tasks.common.results import Decision
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.tracking import tags
from hallmark.tasks.tracking.client import connect
from hallmark.tasks.tracking.registry import model_registry
from hallmark.tasks.tracking.store_calls import is_temporary

logger = logging.getLogger(__name__)

LONGEST = 4900
"""Maximum length of a registered model's tag in characters; MLflow accepts at most 5,000."""


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A tag that holds a decision."""

    tag: str
    text: str
    """JSON, as it is stored."""

    @property
    def number(self) -> int | None:
        """Number of the decision; None if the tag's name has none."""
        digits = self.tag.removeprefix(tags.DECISION)
        return int(digits) if digits.isascii() and digits.isdigit() else None


def read(name: str) -> list[StoredDecision]:
    """Return every decision on a registered model in the order of their numbers. Tags without a number come last.

    Raises:
        InputError: there is no registered model of this name.
    """
    values = model_registry.model_tags(name)
    found = [StoredDecision(tag, text) for tag, text in values.items() if tag.startswith(tags.DECISION)]
    return sorted(found, key=lambda one: (one.number is None, one.number or 0, one.tag))


@held()
def add(name: str, number: int, text: str) -> bool:
    """Write a new decision in one transaction.

    Returns:
        False if another process has written a decision with this number at the same time.
    """
    try:
        write(name, number, text)
    except MlflowException:
        # Two transactions that insert the same tag violate the uniqueness of its key.
        if any(one.number == number for one in read(name)):
            return False
        raise
    return True


@held()
def write(name: str, number: int, text: str) -> None:
    """Write or replace a decision in one transaction."""
    connect().set_registered_model_tag(name, tags.decision(number), text)


@held()
def remove(name: str, number: int) -> None:
    """Remove a decision that was not carried out."""
    connect().delete_registered_model_tag(name, tags.decision(number))


@held()
def announce(decision: Decision) -> None:
    """Show a decision in the MLflow UI: as an artifact of the version's run, and as a tag of both versions.

    A run or version that was deleted since is left out, with a warning.
    """
    client, key = connect(), tags.decision(decision.number)
    if decision.run_id:
        by_hand = decision.verdict in ("MANUAL", "ROLLBACK")
        file = f"decision-{decision.number:04}.json" if by_hand else "decision.json"
        try:
            client.log_dict(decision.run_id, asdict(decision), file)
        except MlflowException as error:
            _warn_of_missing(f"run {decision.run_id}", error)
    former = f" for version {decision.before}" if decision.before is not None else ""
    for version in {decision.version, decision.before} - {None}:
        try:
            client.set_model_version_tag(
                decision.name, str(version), key, f"{decision.verdict}: version {decision.version}{former}"
            )
        except MlflowException as error:
            _warn_of_missing(f"{decision.name} version {version}", error)


def _warn_of_missing(what: str, error: MlflowException) -> None:
    if is_temporary(error):
        raise error
    logger.warning("%s does not show the decision: %s", what, " ".join(str(error).split())[:200])
