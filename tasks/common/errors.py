"""Everything Hallmark refuses or fails with, in one tree.

    HallmarkError        a step failed after work began           exit code 1
    ├── DivergedError    the loss stopped being a finite number
    ├── ParityError      the artifact does not predict what torch predicts
    ├── DamagedError     a file's bytes are not those of its digest
    └── InputError       refused before any work began            exit code 2

Each message is one line: where, what was expected, what was found, what to do next.
"""

import re


class HallmarkError(Exception):
    """A step failed; the message says which and why in one line."""


class DivergedError(HallmarkError):
    """The training loss is not finite."""


class ParityError(HallmarkError):
    """The ONNX file and the torch model disagree."""


class DamagedError(HallmarkError):
    """A file's content does not match the digest under which it is known."""


class InputError(HallmarkError):
    """The request cannot be carried out as given; nothing was begun or written."""


def without_secrets(text: str) -> str:
    """Take user and password out of the addresses in a message."""
    return re.sub(r"//[^/\s@]*@", "//", text)
