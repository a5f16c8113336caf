"""Errors that Hallmark raises, in one tree.

    HallmarkError        a step failed after work began           exit code 1
    ├── DivergedError    the loss is no longer finite
    ├── ParityError      the ONNX file and the torch model disagree
    ├── DamagedError     a file does not match its digest
    ├── UnavailableError a server or database did not answer in time
    └── InputError       rejected before any work began           exit code 2

Each message is one line: where, what was expected, what was found, what to do next.
"""

import re


class HallmarkError(Exception):
    """A step failed; the message says in one line which step and why."""


class DivergedError(HallmarkError):
    """The training loss is no longer finite."""


class ParityError(HallmarkError):
    """The ONNX file and the torch model disagree."""


class DamagedError(HallmarkError):
    """A file does not match its recorded digest."""


class UnavailableError(HallmarkError):
    """A server did not answer, or a database was locked, for longer than the settings allow."""


class InputError(HallmarkError):
    """The request was rejected before anything was started or written."""


def without_secrets(text: str) -> str:
    """Remove user names and passwords from URLs in a message."""
    return re.sub(r"//[^/\s]*@", "//", text)
