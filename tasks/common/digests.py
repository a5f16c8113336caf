"""SHA-256 digests of values and files, which identify stored data."""

import hashlib
import json
import re
from pathlib import Path

from hallmark.tasks.common.errors import DamagedError

SHOWN = 12
"""Number of hex digits of a digest that are shown to users."""

RUN_ID_DIGITS = 8
"""Number of hex digits of a run id that are shown to users."""


def digest_of(value: object) -> str:
    """Return the SHA-256 (64 hex digits) of a value as canonical JSON: sorted keys, no white space."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 (64 hex digits) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shortened(text: str) -> str:
    """Return the first `SHOWN` digits of a SHA-256, and any other text as it is."""
    return text[:SHOWN] if re.fullmatch("[0-9a-f]{64}", text) else text


def check(path: Path, expected: str) -> Path:
    """Return `path` if the file has the digest `expected`.

    Raises:
        DamagedError: the file is missing or has another digest.
    """
    found = file_digest(path) if path.is_file() else "no file"
    if found != expected:
        raise DamagedError(
            f"{path}: expected sha256 {expected[:SHOWN]}, found {found[:SHOWN]}: "
            "the file was changed after it was written; run the same command again to create it again"
        )
    return path
