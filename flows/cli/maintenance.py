"""`hallmark backup`, `hallmark restore` and `hallmark prune`."""

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, Token

from hallmark.flows.cli.shared.errors import report_errors
from hallmark.flows.cli.shared.printing import Flag, print_json, print_row
from hallmark.tasks.common.periods import period


def _period(type_: object, tokens: tuple[Token, ...]) -> timedelta:  # noqa: ARG001 - the signature of a converter
    return period(tokens[0].value)


def backup(path: Path, /, *, json: Flag = False) -> None:
    """Write home, runs, registered models and decisions into one file, while everything may go on running.

    The file is written whole or not at all, and holds the SHA-256 of each file in it. Runs on a tracking server and
    flow runs on a Prefect server are not included: one line says so.

    Example: hallmark backup hallmark.tar.zst

    Parameters
    ----------
    path
        The file: .tar, or compressed .tar.gz or .tar.zst. An existing one is replaced.
    json
        Print the result as one line of JSON instead of a table.
    """
    from hallmark.flows.station import backup
    from hallmark.tasks.runtime import signals

    with report_errors(as_json=json), signals.as_interrupt():
        result = backup.back_up(path)
    if json:
        print_json({"status": "done", "path": str(path.absolute())} | asdict(result))
        return
    print_row("backup", f"{path}: {result.files} files, {result.bytes / 10**6:.1f} MB", width=10)
    for line in result.left_out:
        print_row("left out", line, width=10)


def restore(path: Path, /, *, replace: Flag = False, json: Flag = False) -> None:
    """Restore what `hallmark backup` wrote, on this or on another machine.

    The file is checked first: if it is damaged, nothing is changed. A home or store that is not empty is refused.

    Example: hallmark restore hallmark.tar.zst

    Parameters
    ----------
    path
        The backup.
    replace
        Replace home and store. What the backup does not have is removed.
    json
        Print the result as one line of JSON instead of a table.
    """
    from hallmark.flows.station import restore
    from hallmark.tasks.runtime import signals

    with report_errors(as_json=json), signals.as_interrupt():
        result = restore.restore(path, replace=replace)
    if json:
        print_json({"status": "done"} | asdict(result))
        return
    print_row("restored", f"{result.files} files of {result.made[:16].replace('T', ' ')} UTC", width=10)
    for line in result.left_out:
        print_row("left out", line, width=10)


def prune(
    *, older: Annotated[timedelta, Parameter(converter=_period)], dry_run: Flag = False, json: Flag = False
) -> None:
    """Remove old versions, runs, flow runs, fits, datasets, checkpoints and logs that nothing needs any more.

    Kept are the versions with an alias, such as champion and previous, and those that a decision names, with their
    runs, fits and datasets; what runs; and interrupted attempts that are not older. With a local store, space is freed;
    a tracking server only hides runs.

    Example: hallmark prune --older 90d --dry-run

    Parameters
    ----------
    older
        Age, as a number and s, m, h or d: what has changed since stays.
    dry_run
        Remove nothing, and list what would be removed.
    json
        Print the result as one line of JSON instead of a table.
    """
    from hallmark.flows.station import prune
    from hallmark.tasks.runtime import signals

    with report_errors(as_json=json), signals.as_interrupt():
        removed = prune.prune(older, dry_run=dry_run)
    if json:
        kept = {"status": "listed" if dry_run else "removed", "removed": [asdict(one) for one in removed]}
        print_json(kept)
        return
    for one in removed if dry_run else []:
        print_row(one.kind, one.name, width=12)
    for line in prune.describe(removed) or ["nothing"]:
        print_row("to remove" if dry_run else "removed", line, width=12)
