"""Errors that no command can catch: in threads, in destructors, and in log records without a handler."""

import logging
import signal
import sys
import threading
from typing import Any

from hallmark.flows.cli.shared import errors, log_handlers

_reported: set[str] = set()
"""Kinds of errors that were reported. A thread that tries again would fill the terminal."""


def catch() -> None:
    """Report them on one line each, for the rest of the process, instead of with a traceback."""
    threading.excepthook = _report
    sys.unraisablehook = _report
    logging.lastResort = log_handlers.terminal()
    logging.raiseExceptions = False  # Prefect would print each log record that its server does not take


def _report(failed: Any) -> None:  # noqa: ANN401 - the two hooks have different arguments
    error = failed.exc_value
    if error is None or isinstance(error, SystemExit):
        return
    if isinstance(error, KeyboardInterrupt):
        # It arrived in a destructor, where Python would lose it.
        signal.raise_signal(signal.SIGINT)
        return
    kind = f"{type(error).__name__}: {errors.one_line(error)[: errors.MAX_CHARACTERS]}"
    if kind not in _reported:
        _reported.add(kind)
        sys.stderr.write(f"hallmark: warning: {kind}, in the background ({errors.write_log(error)})\n")
