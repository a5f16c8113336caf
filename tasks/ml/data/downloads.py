"""Download MNIST, Fashion-MNIST and KMNIST with torchvision, adding a mirror, digests of all files, and https only."""

import gzip
import hashlib
import io
import logging
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

import torchvision
from torchvision.datasets.utils import calculate_md5, download_url, extract_archive

from hallmark.tasks.common import web_requests
from hallmark.tasks.common.errors import DamagedError, InputError, one_line, without_secrets
from hallmark.tasks.common.file_locks import file_lock

logger = logging.getLogger(__name__)

Kind = type[torchvision.datasets.MNIST]

ADDRESSES = {
    "MNIST": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "FashionMNIST": "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "KMNIST": "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
}
"""torchvision's first mirror, or the authors' https address where torchvision uses plain http."""

FETCHES = 2
"""Number of attempts to download an archive with the right digest."""
_TIMEOUT = 30.0
"""Time limit, in seconds, for a server to begin to answer, and for each read."""
_DOWNLOAD_SECONDS = 900.0
"""Time limit of a download. The largest archive has 26 MB."""


def fetch(kind: Kind, home: Path, mirror: str | None = None) -> Path:
    """Download the archives of `kind` to `home/downloads` and unpack them, unless undamaged copies exist.

    Archives are checked against the md5 in torchvision, unpacked files against their archive.

    Args:
        kind: torchvision dataset class that shares MNIST's code.
        home: Hallmark's home folder.
        mirror: URL of a folder with MNIST's archives, and with a subfolder named after each other kind; None for the
            official address. Plain http is used only if the URL begins with `http:`.

    Returns:
        The folder that torchvision takes as `root`.

    Raises:
        InputError: the server cannot be reached or does not have the file.
        DamagedError: the archive has the wrong md5 after two downloads.
    """
    root = home / "downloads"
    raw = root / kind.__name__ / "raw"
    with file_lock(home, f"download-{kind.__name__}"):
        for name, md5 in kind.resources:
            archive = raw / name
            if not _is_intact(archive, md5):
                _fetch(kind, mirror, archive, md5)
            if not _is_unpacked(archive):
                extract_archive(str(archive), str(raw))
    return root


def address(kind: Kind, mirror: str | None) -> str:
    """Return the URL of the folder with the archives of `kind`, with a trailing slash.

    Raises:
        InputError: the mirror is not an address of http or https.
    """
    if mirror is None:
        return ADDRESSES[kind.__name__]
    try:
        web_requests.refuse_address(mirror)
    except ValueError as error:
        raise InputError(f"HALLMARK_MIRROR: {error}") from error
    return f"{mirror.rstrip('/')}/{_folder(kind)}"


def _folder(kind: Kind) -> str:
    """Return the subfolder of a mirror with the archives of `kind`."""
    return "" if kind is torchvision.datasets.MNIST else f"{kind.__name__}/"


def _fetch(kind: Kind, mirror: str | None, archive: Path, md5: str) -> None:
    url = address(kind, mirror) + archive.name
    shown = without_secrets(url)
    for _ in range(FETCHES):
        try:
            with _guarded(url):
                download_url(url, str(archive.parent), archive.name)
        except (OSError, RuntimeError, HTTPException, ValueError) as error:
            archive.unlink(missing_ok=True)
            if isinstance(error, HTTPError):
                error.close()  # closes the connection
            needed = _folder(kind) + archive.name
            remedy = (
                f"HALLMARK_MIRROR must be the URL of a folder that has {needed}"
                if mirror
                else "connect this machine to the network, or set HALLMARK_MIRROR to the URL of a folder that "
                f"has {needed}"
            )
            raise InputError(f"{shown} cannot be downloaded ({_cause(error, url)}): {remedy}") from error
        except BaseException:
            archive.unlink(missing_ok=True)  # interrupted: the file is incomplete
            raise
        found = calculate_md5(archive)
        if found == md5:
            return
        logger.warning("%s: expected md5 %s, found %s: removed", shown, md5, found)
        archive.unlink()
    raise DamagedError(f"{shown}: expected md5 {md5}, found {found} {FETCHES} times: the server has another file")


def _is_intact(archive: Path, md5: str) -> bool:
    if not archive.exists():
        return False
    if (found := calculate_md5(archive)) == md5:
        return True
    logger.warning("%s is damaged (expected md5 %s, found %s) and is downloaded again", archive, md5, found)
    archive.unlink()
    return False


def _is_unpacked(archive: Path) -> bool:
    unpacked = archive.with_suffix("")
    if not unpacked.exists():
        return False
    with gzip.open(archive) as content, unpacked.open("rb") as file:
        expected, found = (hashlib.file_digest(stream, "sha256").hexdigest() for stream in (content, file))
    if found == expected:
        return True
    logger.warning("%s is damaged (expected sha256 %s, found %s) and is unpacked again", unpacked, expected, found)
    unpacked.unlink()
    return False


@contextmanager
def _guarded(url: str) -> Iterator[None]:
    """Limit the time, reject plain http if `url` is https, and show torchvision's progress bar only on a terminal."""
    seconds = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    is_https = url.startswith("https:")  # torchvision falls back to plain http
    try:
        with (
            web_requests.opener(_DOWNLOAD_SECONDS, header_seconds=_TIMEOUT, https_only=is_https) as limited,
            nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()),
        ):
            urllib.request.install_opener(limited)
            yield
    finally:
        urllib.request.install_opener(None)  # restores urllib's default
        socket.setdefaulttimeout(seconds)


def _cause(error: BaseException, url: str) -> str:
    """Return the message of the original error; torchvision raises others while it handles it."""
    while not isinstance(error, TimeoutError) and error.__context__ is not None:
        error = error.__context__
    return one_line(without_secrets(str(error) or type(error).__name__, url))
