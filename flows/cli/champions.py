"""`hallmark champion`, `history`, `judge`, `promote` and `rollback`: the champions of a model and its decisions."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators
from rich.table import Table

from hallmark.flows.cli.shared import execution
from hallmark.flows.cli.shared.errors import report_errors
from hallmark.flows.cli.shared.printing import (
    Flag,
    Token,
    command_name,
    print_json,
    print_rows,
    print_table,
    print_text,
)
from hallmark.tasks.common.digests import SHOWN
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.results import UnreadableDecision

if TYPE_CHECKING:
    from hallmark.tasks.common.results import Decision, Judged

Version = Annotated[int, Parameter(validator=validators.Number(gte=1))]


def champion(model: str, /, *, json: Flag = False) -> None:
    """Show which version of a model is champion, since when, and why.

    Example: hallmark champion iris

    Parameters
    ----------
    model
        Name of a registered model.
    json
        Print the result as one line of JSON instead of a table.
    """
    with report_errors(as_json=json):
        from hallmark.tasks.ml.evaluation.promotion import disqualification
        from hallmark.tasks.promotion import champions, decision_log

        decision_log.repair_if_idle(model)
        standing = champions.standing(model)
        disqualified = disqualification.describe(champions.recorded_findings(model, standing.version))
    if json:
        print_json({"status": "ok"} | asdict(standing) | {"disqualified": disqualified})
        return
    rows = {
        "champion": f"{standing.name} version {standing.version}",
        "since": standing.since,
        "why": standing.why,
        "previous": f"version {standing.previous}" if standing.previous else "none",
        "sha256": standing.sha256,
        "run": standing.run_id,
    }
    _print(rows | ({"disqualified": disqualified} if disqualified else {}))


def history(model: str, /, *, json: Flag = False) -> None:
    """List every promotion decision about a model, oldest first.

    Example: hallmark history iris

    Parameters
    ----------
    model
        Name of a registered model.
    json
        Print the result as one line of JSON instead of a table.
    """
    with report_errors(as_json=json):
        from hallmark.tasks.promotion import decision_log

        decision_log.repair_if_idle(model)
        entries = decision_log.entries(model)
    if json:
        unreadable = [asdict(one) for one in entries if isinstance(one, UnreadableDecision)]
        decisions = [asdict(one) for one in entries if not isinstance(one, UnreadableDecision)]
        print_json({"status": "ok", "name": model, "decisions": decisions, "unreadable": unreadable})
    elif entries:
        _print_table(entries)
    else:
        print_text(f"no decisions yet: run `{command_name()} retrain` to make the first\n")


def judge(
    model: str,
    version: Version,
    /,
    *tokens: Token,
    json: Flag = False,
) -> None:
    """Show what would be decided about a version if it were the challenger now. Nothing is recorded.

    The options of the rule are those of `hallmark retrain`, such as --rule.alpha 0.01.

    Example: hallmark judge iris 3 --rule.alpha 0.01

    Parameters
    ----------
    model
        Name of a registered model.
    version
        Number of the version.
    json
        Print the result as one line of JSON instead of a table.
    """

    def load() -> "Callable[[], Judged]":
        from hallmark.flows.judge import judge as flow
        from hallmark.flows.judge import resolve
        from hallmark.tasks.promotion import decision_log

        decision_log.repair_if_idle(model)
        resolve(model, version)
        return lambda: flow(model, version, rule)

    with report_errors(as_json=json):
        from hallmark.flows.cli import retrain

        rule, rest = retrain.parse_rule(tokens)
        if rest:
            raise InputError(f"expected an option such as --rule.alpha 0.01, found '{rest[0]}'")
        judged = execution.execute("judge", "judge", load)
    if json:
        print_json({"status": "judged"} | asdict(judged))
        return
    from hallmark.tasks.ml.reports import flow_pages

    pair = f"champion version {judged.champion}, challenger version {judged.challenger}"
    _print({"verdict": judged.verdict, "why": judged.reason, "compared": pair} | flow_pages.judgement(judged.judgement))


def promote(model: str, version: Version, /, *, reason: str, json: Flag = False) -> None:
    """Make a version the champion, whatever the rule says. Its proof and digest are checked first.

    Example: hallmark promote iris 3 --reason "new sensor"

    Parameters
    ----------
    model
        Name of a registered model.
    version
        Number of the version.
    reason
        Reason for the decision, recorded with it.
    json
        Print the result as one line of JSON instead of text.
    """
    with report_errors(as_json=json):
        from hallmark.tasks.promotion import champions

        if not reason.strip():
            raise InputError("--reason: expected a reason in words, found nothing")
        decision = champions.promote(model, version, reason)
    _print_decision(decision, as_json=json)


def rollback(model: str, /, *, reason: str = "rolled back", json: Flag = False) -> None:
    """Make the previous champion the champion again. Its proof and digest are checked first.

    Retraining never promotes the replaced file again; `hallmark promote` can.

    Example: hallmark rollback iris --reason "drift in field 2"

    Parameters
    ----------
    model
        Name of a registered model.
    reason
        Reason for the decision, recorded with it.
    json
        Print the result as one line of JSON instead of text.
    """
    with report_errors(as_json=json):
        from hallmark.tasks.promotion import champions

        decision = champions.rollback(model, reason)
    _print_decision(decision, as_json=json)


def _print_decision(decision: "Decision", *, as_json: bool) -> None:
    if as_json:
        print_json({"status": "done"} | asdict(decision))
    else:
        replaced = f", replacing version {decision.before}" if decision.before else ""
        _print({"champion": f"{decision.name} version {decision.champion}{replaced}", "why": decision.reason})


def _print(rows: dict[str, str]) -> None:
    print_rows(rows, width=max(map(len, rows)) + 2)


def _print_table(entries: "list[Decision | UnreadableDecision]") -> None:
    table = Table("number", "when", "verdict", "version", "champion", "by", "file", "why", box=None, pad_edge=False)
    for one in entries:
        if isinstance(one, UnreadableDecision):
            why = f"{one.tag} cannot be read: {one.problem}"
            table.add_row(str(one.number or "-"), "", "UNREADABLE", "", "", "", "", why)
            continue
        champion = f"{one.before or 'none'} -> {one.champion}" if one.moves else str(one.champion)
        when, by = one.at[:16].replace("T", " "), one.schedule or one.by
        sha256 = one.digests.get("onnx_sha256", "")[:SHOWN]
        table.add_row(str(one.number), when, one.verdict, str(one.version), champion, by, sha256, one.reason)
    print_table(table)
