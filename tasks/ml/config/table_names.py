"""Names of tables: which format a file has by its suffix, and the name of the model that is trained on it."""

import hashlib
import re
from pathlib import PurePath
from urllib.parse import unquote, urlsplit

from hallmark.tasks.common.errors import without_secrets

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".xlsx", ".parquet")
"""File name endings of the tables that can be trained on and predicted."""
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".zip")
"""File name endings of compressed text, behind its own ending: `.csv.gz`."""

_COMPRESSED = (".csv", ".tsv", ".jsonl", ".ndjson")
"""Formats that may be compressed."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def suffixes(path: str) -> tuple[str, str]:
    """Return the format and the compression of a table by its name, in lower case; empty text for none.

    `x.CSV.gz` gives `.csv` and `.gz`, `x.txt` gives two empty texts.
    """
    last = _last_part(path)
    compression = last.suffix.lower() if last.suffix.lower() in COMPRESSIONS else ""
    suffix = (PurePath(last.stem) if compression else last).suffix.lower()
    is_table = suffix in (_COMPRESSED if compression else TABLE_SUFFIXES)
    return (suffix, compression) if is_table else ("", "")


def is_address(path: str) -> bool:
    """Return whether a path is an address such as `https://host/data.csv`."""
    return bool(_SCHEME.match(path))


def require_address(path: str) -> None:
    """Refuse an address that is not one of http or https, has a password or token, or does not end like a table.

    Raises:
        ValueError: the message shows no secret.
    """
    shown, found = without_secrets(path), _SCHEME.match(path)
    if not found or found[1].lower() not in ("http", "https"):
        raise ValueError(f"{shown}: expected a path, or an address that begins with https:// or http://")
    if shown != path:
        raise ValueError(
            f"'{shown}': has a password or token, which every run would record: download the file and give its path"
        )
    try:
        is_whole = bool(urlsplit(path).hostname)
    except ValueError:
        is_whole = False
    if not is_whole:
        raise ValueError(f"{shown}: is not a valid address")
    if not suffixes(path)[0]:
        raise ValueError(
            f"{shown}: expected an address whose path ends in {' or '.join(TABLE_SUFFIXES)}: download the file and "
            "give its path"
        )


def stem(path: str) -> str:
    """Return a table's name without its suffixes as a valid experiment name; the whole name of a folder of parts.

    Characters other than letters, digits, '.', '_' and '-' become '-'. If nothing is left, the name is derived from
    the digest of the last part, so that two of them differ.
    """
    name = _last_part(path).name
    return _reduced(name[: len(name) - len("".join(suffixes(path)))])


def folder_name(path: str) -> str:
    """Return the name of a folder as a valid experiment name, as `stem` does for a file."""
    return _reduced(PurePath(path).name)


def _last_part(path: str) -> PurePath:
    """Return the name of a file. In an address, it ends before the query."""
    if is_address(path):
        path = unquote(re.split(r"[?#]", path, maxsplit=1)[0])
    return PurePath(PurePath(path).name)


def _reduced(last: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")[:100]
    return name or f"own-{hashlib.sha256(last.encode(errors='surrogateescape')).hexdigest()[:8]}"
