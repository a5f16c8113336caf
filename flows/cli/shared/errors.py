"""Errors of commands: on one line, as JSON, and with the traceback of unexpected ones in a log. Imports no library."""

import errno
import os
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from hallmark.flows.cli.shared.printing import print_json
from hallmark.tasks.common import files
from hallmark.tasks.common.errors import HallmarkError, InputError, one_line, printable, without_secrets
from hallmark.tasks.runtime import signals

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP)

MAX_CHARACTERS = 300
"""Maximum length of the message of an unexpected error. The log has the whole message."""


@contextmanager
def report_errors(*, as_json: bool) -> Iterator[None]:
    """Print an error raised in the block as one line of JSON on stdout, if `as_json`, and raise it again.

    Raises:
        HallmarkError: in place of an unexpected error; see `expected`.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        raised = expected(error)
        if as_json:
            print_json(_failure(raised))
        if raised is error:
            raise
        raise raised from error


def expected(error: BaseException) -> HallmarkError | KeyboardInterrupt:
    """Return the error with which a command ends: `error`, the interrupt that caused it, or one that names a log.

    The traceback of an error that Hallmark does not expect is written to `HALLMARK_HOME/logs`.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, (HallmarkError, KeyboardInterrupt)):
        return error
    if not isinstance(error, SystemExit) and signals.interrupted(error):
        return KeyboardInterrupt()
    if isinstance(error, OSError) and error.errno in _FULL:
        where = error.filename or "a file or stdout"
        return HallmarkError(f"{where} cannot be written: {error.strerror}: free some space and repeat the command")
    if isinstance(error, OSError) and error.errno in _NO_PATH:
        return InputError(f"'{str(error.filename)[:80]}': {error.strerror}: give another path")
    text = f": {one_line(error)[:MAX_CHARACTERS]}" if str(error).strip() else ""
    return HallmarkError(f"unexpected {type(error).__name__}{text} ({write_log(error)})")


def is_stdout_closed() -> bool:
    """Return whether the reader of stdout has closed it, as `head` does when it has what it wanted."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def write_log(error: BaseException) -> str:
    """Write the traceback to a log. Return where it is, or why it could not be written."""
    from hallmark.tasks.runtime import settings  # imports pydantic, which not every command needs

    try:
        home = settings.from_environment().home
        files.private_folder(home)
        logs = home / "logs"
        logs.mkdir(exist_ok=True)
        log = logs / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-error-{os.getpid()}.log"
        text = printable(without_secrets("".join(traceback.format_exception(error))), keep="\n\t")
        log.write_text(text, encoding="utf-8", errors="backslashreplace")
    except Exception as reason:  # noqa: BLE001 - the message that names the log must be printed in any case
        return f"no log could be written: {one_line(reason)}"
    return f"log: {log}"


def _failure(error: HallmarkError | KeyboardInterrupt) -> dict[str, Any]:
    match error:
        case InputError():
            return {"status": "refused", "error": str(error)}
        case KeyboardInterrupt():
            return {"status": "interrupted", "error": "interrupted"}
        case _:
            return {"status": "failed", "error": str(error)}
