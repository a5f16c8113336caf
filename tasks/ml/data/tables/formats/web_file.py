"""Tables at an address of http or https: each is downloaded once per process, into a temporary folder."""

import atexit
import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request

from hallmark.tasks.common import files, web_requests
from hallmark.tasks.common.errors import InputError, one_line, without_secrets
from hallmark.tasks.ml.config.table_names import is_address, require_address, stem, suffixes

MAX_BYTES = 4 * 2**30
"""Largest download, in bytes."""
_SECONDS, _BEGIN_SECONDS = 900.0, 30.0
"""Time limits, in seconds, of a download and until a server begins to answer."""
_BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class _Downloaded:
    path: Path
    size: int
    sha256: str


_downloads: dict[str, _Downloaded] = {}
"""What this process has downloaded, by address."""


def local(path: str) -> Path:
    """Return the path of a table; of one at an address, that of the file that was downloaded.

    Raises:
        InputError: the address is not accepted, or the file cannot be downloaded within the limits.
    """
    if not is_address(path):
        return Path(path)
    if path not in _downloads:
        _downloads[path] = _download(path)
    return _downloads[path].path


def describe(path: str) -> str:
    """Return size and digest of a table that this process has downloaded; empty text for any other."""
    if not (found := _downloads.get(path)):
        return ""
    return f"{path}: {found.size:,} bytes, sha256 {found.sha256}"


def _download(url: str) -> _Downloaded:
    try:
        require_address(url)
    except ValueError as error:
        raise InputError(str(error)) from error
    with ExitStack() as stack:
        path = stack.enter_context(files.temporary_folder()) / (stem(url) + "".join(suffixes(url)))
        try:
            downloaded = _fetch(url, path)
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, HTTPError):
                error.close()  # closes the connection
            reason = one_line(without_secrets(str(error) or type(error).__name__, url))
            raise InputError(f"{url}: cannot be downloaded ({reason}): check the address, or give a file") from error
        # The file is removed when the process ends, or by a later process if this one is killed.
        atexit.register(stack.pop_all().close)
        return downloaded


def _fetch(url: str, path: Path) -> _Downloaded:
    is_https = urlsplit(url).scheme.lower() == "https"
    limited = web_requests.opener(_SECONDS, _Redirects(), header_seconds=_BEGIN_SECONDS, https_only=is_https)
    digest, size = hashlib.sha256(), 0
    with limited as opened, opened.open(url, timeout=_BEGIN_SECONDS) as answer, path.open("wb") as file:
        stated = answer.length
        while block := answer.read(_BLOCK):
            size += len(block)
            if size > MAX_BYTES:
                raise InputError(f"{url}: has more than {MAX_BYTES:,} bytes: download it yourself and give the file")
            digest.update(block)
            file.write(block)
    if stated is not None and size != stated:
        raise URLError(f"it ended after {size:,} of {stated:,} bytes")
    return _Downloaded(path, size, digest.hexdigest())


class _Redirects(HTTPRedirectHandler):
    """Follow redirects to http and https only; urllib would follow one to ftp, too."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme.lower() not in ("http", "https"):
            raise URLError(f"it redirects to {without_secrets(newurl)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
