"""The registered versions that champions, other aliases and decisions need."""

import json
import time

from hallmark.tasks.tracking.registry import decision_tags, model_registry


def versions(name: str, since: float) -> dict[int, str]:
    """Return the versions of a registered model that must be kept, with the id of each one's run.

    These are the versions with an alias, those that a decision names, and those registered since a time. If a decision
    cannot be read, all versions are needed.

    Args:
        name: the registered model.
        since: seconds since the epoch.
    """
    known = model_registry.versions(name)
    named = set(model_registry.aliases(name).values())
    for stored in decision_tags.read(name):
        try:
            decision = json.loads(stored.text)
            named |= {decision[field] for field in ("version", "before", "champion", "previous")}
        except (ValueError, TypeError, KeyError):
            named |= {one.number for one in known}
    return {one.number: one.run_id for one in known if one.number in named or one.created >= since or one.demoted}


def removable(name: str, older: float) -> dict[int, str]:
    """Return the versions of a registered model that nothing needs and that are older than `older` seconds."""
    kept = versions(name, time.time() - older)
    return {one.number: one.run_id for one in model_registry.versions(name) if one.number not in kept}
