"""Send a message to an address through Apprise.

An address names the service and, for most services, holds a secret: `mailto://user:password@host`,
`slack://token/...`, `json://host/path`. An address `env:NAME` is read from the environment variable NAME when it is
needed, so that no secret is written into a file or into Prefect's database.
"""

import logging
import os
from typing import TYPE_CHECKING, Any

from hallmark.tasks.common.errors import without_secrets
from hallmark.tasks.runtime import scheduled_process

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun
    from prefect.states import State

logger = logging.getLogger(__name__)

LONGEST = 1000
"""Maximum number of characters of a message. Chat services cut or refuse longer ones."""


def refuse_address(address: str) -> None:
    """Refuse an address that Apprise does not understand, without sending anything.

    Raises:
        ValueError: the message says what was expected, without the address, which may hold a secret.
    """
    if address.startswith("env:") and not _resolved(address):
        raise ValueError(f"the environment variable that '{address}' names is not set: set it")
    if _read(address) is None:
        raise ValueError(f"'{_kind(address)}' is not an address that Apprise understands, such as json://host/path")


def send(address: str | None, title: str, text: str) -> bool:
    """Send a message if there is an address. A failure is a warning in the log, not an error.

    Returns:
        Whether the message was sent.
    """
    if address is None:
        return False
    target = _read(address)
    if target is None:
        logger.warning("%s: not sent: '%s' is not an address that Apprise understands", title, _kind(address))
        return False
    sent = bool(target.notify(title=title, body=without_secrets(text)[:LONGEST]))
    if not sent:
        logger.warning("%s: not sent: %s did not accept it", title, _kind(address))
    return sent


def failed(flow: "Flow[..., Any]", flow_run: "FlowRun", state: "State[Any]") -> None:
    """Report to the schedule's address that its run failed or crashed. A hook for `on_failure` and `on_crashed`.

    A run that was stopped on purpose, as by `hallmark down`, is not reported: the next run continues it.
    """
    if not (state.is_crashed() and scheduled_process.is_told_to_end(state.message)):
        ended(flow.name, flow_run, state)


def ended(flow: str, flow_run: "FlowRun", state: "State[Any]") -> None:
    """Report the final state of a run to the address of its schedule.

    Args:
        flow: name of the flow.
        flow_run: the run, whose parameters hold the address.
        state: its final state.
    """
    given = flow_run.parameters
    send(given.get("notify"), f"{_subject(given)}: {state.name.upper()}", _describe(flow, flow_run, state))


def _subject(given: dict[str, Any]) -> str:
    """Return the names of the schedule and the model, as far as they are known."""
    experiment = given.get("experiment")
    model = experiment.get("name") if isinstance(experiment, dict) else getattr(experiment, "name", None)
    return " ".join(part for part in (given.get("schedule"), model and f"({model})") if part) or "retraining"


def _describe(flow: str, flow_run: "FlowRun", state: "State[Any]") -> str:
    from prefect.utilities.urls import url_for

    lines = [(state.message or state.name).strip(), f"Run '{flow_run.name}' of flow '{flow}' in Prefect"]
    if page := url_for("flow-run", obj_id=flow_run.id):
        lines.append(page)
    return "\n".join(lines)


def _read(address: str) -> Any | None:  # noqa: ANN401 - Apprise has no types
    import apprise

    target = apprise.Apprise()
    return target if (known := _resolved(address)) and target.add(known) else None


def _resolved(address: str) -> str:
    return os.environ.get(address.removeprefix("env:"), "") if address.startswith("env:") else address


def _kind(address: str) -> str:
    """Return the part of an address that holds no secret: the name of its variable, or its scheme."""
    return address if address.startswith("env:") else f"{address.partition('://')[0][:20]}://..."
