"""Errors of commands: on one line, as JSON, and with the traceback of unexpected ones in a log. Imports no library."""

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from hallmark.flows.cli.shared.printing import print_json
from hallmark.tasks.common import files
from hallmark.tasks.common.errors import HallmarkError, InputError, without_secrets
from hallmark.tasks.runtime import signals

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
    if isinstance(error, (HallmarkError, KeyboardInterrupt)):
        return error
    if signals.interrupted(error):
        return KeyboardInterrupt()
    text = one_line(error)[:MAX_CHARACTERS]
    return HallmarkError(f"unexpected {type(error).__name__}{f': {text}' if text else ''} ({_write_log(error)})")


def one_line(error: object) -> str:
    """Return the message of an error on one line, without passwords in URLs and with control characters escaped."""
    text = " ".join(without_secrets(str(error)).split())
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


def _write_log(error: BaseException) -> str:
    """Write the traceback to a log. Return where it is, or why it could not be written."""
    from hallmark.tasks.runtime import settings  # imports pydantic, which not every command needs

    try:
        home = settings.from_environment().home
        files.private_folder(home)
        logs = home / "logs"
        logs.mkdir(exist_ok=True)
        log = logs / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-error-{os.getpid()}.log"
        text = without_secrets("".join(traceback.format_exception(error)))
        log.write_text(text, encoding="utf-8", errors="backslashreplace")
    except (OSError, InputError) as reason:
        return f"no log could be written: {one_line(reason)}"
    return f"log: {log}"


def _failure(error: HallmarkError | KeyboardInterrupt) -> dict[str, Any]:
    match error:
        case InputError():
            return {"status": "refused", "error": without_secrets(str(error))}
        case KeyboardInterrupt():
            return {"status": "interrupted", "error": "interrupted"}
        case _:
            return {"status": "failed", "error": without_secrets(str(error))}
