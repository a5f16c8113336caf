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
    """A step failed; the message says in one line which step and why, without secrets."""

    def __init__(self, message: object = "") -> None:
        """Store the message without secrets, so that it may be printed, logged, stored and sent as it is."""
        super().__init__(without_secrets(str(message)))


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


OPEN_SCHEMES = (
    *("http", "https", "ws", "wss", "ftp", "sftp", "file", "sqlite", "postgresql", "postgres", "mysql", "mariadb"),
    *("mssql", "oracle", "databricks", "s3", "gs", "wasb", "wasbs", "abfss", "hdfs", "dbfs"),
    *("mlflow-artifacts", "models", "runs"),
)
"""Schemes whose host and path are no secret. Services of notifications, such as slack://, have their token there."""

_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9.-]*)(?P<driver>\+[a-z0-9]+)?://(?P<rest>[^\s'\"<>`]*)", re.IGNORECASE)
# Up to the last @, since a password that was not percent-encoded may contain / and @. Three slashes begin a path.
_USER = re.compile(r"(?<!/)//(?!/)[^\s]*@")
_QUERY = re.compile(r"(?i)([?&#;][\w.-]*(?:pass|pwd|secret|token|key|auth|sign|sig|cred)[\w.-]*)=[^&#;\s'\"]+")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]")


def without_secrets(text: str, address: str = "") -> str:
    """Remove from every address in a text what it must not show. All that is shown, logged or sent goes through this.

    An address shows its scheme, host, port and path. User, password, and the value of a query parameter such as
    `token` are removed. An address of an unknown scheme shows its scheme alone.

    Args:
        text: the text.
        address: an address that the text is about. Libraries that cannot parse its password quote parts of it.
    """
    if user := _USER.search(address):
        for piece in re.split(r"[/@:?#]+", user[0]):
            text = text.replace(piece, "***") if len(piece) > 2 else text
    text = _QUERY.sub(r"\1=***", _USER.sub("//", text))
    return _ADDRESS.sub(lambda found: found[0] if found["scheme"].lower() in OPEN_SCHEMES else _scheme(found), text)


def _scheme(address: re.Match[str]) -> str:
    return f"{address['scheme']}{address['driver'] or ''}://..."


def printable(text: str, *, keep: str = "") -> str:
    """Escape what a terminal would interpret: control characters, those that hide or reverse text, undecodable bytes.

    Args:
        text: text from a file, a name or a server.
        keep: control characters to keep, such as newlines.
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else _escaped(ord(found[0])), text)


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def one_line(error: object) -> str:
    """Return the message of an error, or else its type, on one line, without secrets and control characters."""
    text = printable(" ".join(without_secrets(str(error)).split()))
    return type(error).__name__ if isinstance(error, BaseException) and not text else text
