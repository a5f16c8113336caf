"""Handlers of log records: a file, and one line each on the terminal. Neither shows a secret."""

import logging
import sys
from pathlib import Path
from typing import TextIO

from hallmark.tasks.common.errors import one_line, without_secrets


class LogFile(logging.FileHandler):
    """A log file that says once, on one line, if it cannot be written. logging would print a traceback each time."""

    def __init__(self, path: Path) -> None:
        """Open the file, with undecodable characters escaped."""
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(_WithoutSecrets("%(asctime)s %(levelname)-7s %(name)s  %(message)s"))
        self._has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - the signature of logging
        """Report the first failure."""
        self._report()

    def close(self) -> None:
        """Write the rest and close the file. A failure must not take the place of the error that ends the command."""
        try:
            super().close()
        except OSError:
            self._report()

    def _report(self) -> None:
        if not self._has_failed:
            self._has_failed = True
            sys.stderr.write(f"hallmark: warning: {self.baseFilename}: {one_line(sys.exception())}\n")


def terminal() -> "logging.StreamHandler[TextIO]":
    """Return a handler that writes warnings and errors to stderr, one line each and without traceback."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_OneLine())
    return handler


class _WithoutSecrets(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return one_line(record.getMessage())
