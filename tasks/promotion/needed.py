"""The registered versions that champions, other aliases and decisions need."""

import time

from hallmark.tasks.common.results import UnreadableDecision
from hallmark.tasks.promotion import decision_log
from hallmark.tasks.tracking.registry import model_registry


def versions(name: str, since: float) -> dict[int, str]:
    """Return the versions of a registered model that must be kept, with the id of each one's run.

    These are the versions with an alias, those that a decision names, and those registered since a time. If a decision
    cannot be read, all versions are needed.

    Args:
        name: the registered model.
        since: seconds since the epoch.
    """
    known = model_registry.versions(name)
    named: set[int | None] = set(model_registry.aliases(name).values())
    for entry in decision_log.entries(name):
        match entry:
            case UnreadableDecision():
                named |= {one.number for one in known}
            case decision:
                named |= {decision.version, decision.before, decision.champion, decision.previous}
    return {one.number: one.run_id for one in known if one.number in named or one.created >= since or one.demoted}


def removable(name: str, older: float) -> dict[int, str]:
    """Return the versions of a registered model that nothing needs and that are older than `older` seconds."""
    kept = versions(name, time.time() - older)
    return {one.number: one.run_id for one in model_registry.versions(name) if one.number not in kept}
