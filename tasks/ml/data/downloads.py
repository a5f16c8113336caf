"""MNIST and its kin over HTTP: torchvision's own download, with a mirror, digests on everything, and no plain http."""

import gzip
import hashlib
import io
import logging
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError

import torchvision
from filelock import FileLock
from torchvision.datasets.utils import calculate_md5, download_url, extract_archive

from hallmark.tasks.common.errors import DamagedError, InputError, without_secrets

logger = logging.getLogger(__name__)

Kind = type[torchvision.datasets.MNIST]

ADDRESSES = {
    "MNIST": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "FashionMNIST": "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "KMNIST": "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
}
"""torchvision's first mirror, and for those that it fetches over plain http the authors' own https address."""

FETCHES = 2
"""A damaged archive is fetched again once."""
_SECONDS = 30.0


def fetch(kind: Kind, home: Path, mirror: str | None = None) -> Path:
    """Bring the archives of `kind` under `home/downloads` and unpack them, unless they lie there undamaged.

    An archive is compared with the md5 that torchvision knows, an unpacked file with its archive.

    Args:
        kind: a torchvision dataset that shares MNIST's code.
        home: Hallmark's home folder.
        mirror: address of a folder that holds MNIST's archives, and those of other kinds in a folder of their
            name; None for the official address. Plain http only if it says so.

    Returns:
        What torchvision calls `root`.

    Raises:
        InputError: nothing answers at the address.
        DamagedError: what was fetched twice is not what torchvision expects.
    """
    root = home / "downloads"
    raw = root / kind.__name__ / "raw"
    (home / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(home / "locks" / f"download-{kind.__name__}.lock"):
        for name, md5 in kind.resources:
            archive = raw / name
            if not _is_intact(archive, md5):
                _fetch(kind, mirror, archive, md5)
            if not _is_unpacked(archive):
                extract_archive(str(archive), str(raw))
    return root


def address(kind: Kind, mirror: str | None) -> str:
    """The folder that the archives of `kind` are fetched from, with a slash at its end."""
    if mirror is None:
        return ADDRESSES[kind.__name__]
    return f"{mirror.rstrip('/')}/{_folder(kind)}"


def _folder(kind: Kind) -> str:
    """Where in a mirror the archives of `kind` lie."""
    return "" if kind is torchvision.datasets.MNIST else f"{kind.__name__}/"


def _fetch(kind: Kind, mirror: str | None, archive: Path, md5: str) -> None:
    url = address(kind, mirror) + archive.name
    shown = without_secrets(url)
    for _ in range(FETCHES):
        with _polite(url):
            try:
                download_url(url, str(archive.parent), archive.name)
            except (OSError, RuntimeError, HTTPException, ValueError) as error:
                archive.unlink(missing_ok=True)
                if isinstance(error, HTTPError):
                    error.close()  # it holds the connection
                wanted = _folder(kind) + archive.name
                remedy = (
                    f"HALLMARK_MIRROR must be the address of a folder that holds {wanted}"
                    if mirror
                    else "connect this machine to the network, or set HALLMARK_MIRROR to the address of a folder that "
                    f"holds {wanted}"
                )
                raise InputError(f"{shown} cannot be fetched ({_cause(error)}): {remedy}") from error
            except BaseException:
                archive.unlink(missing_ok=True)  # interrupted: half a file is none
                raise
        found = calculate_md5(archive)
        if found == md5:
            return
        logger.warning("%s: expected md5 %s, found %s: removed", shown, md5, found)
        archive.unlink()
    raise DamagedError(f"{shown}: expected md5 {md5}, found {found} {FETCHES} times: the address serves another file")


def _is_intact(archive: Path, md5: str) -> bool:
    if not archive.exists():
        return False
    if (found := calculate_md5(archive)) == md5:
        return True
    logger.warning("%s is damaged (expected md5 %s, found %s) and is fetched again", archive, md5, found)
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


class _NoPlainHttp(urllib.request.HTTPHandler):
    """Refuses what torchvision would fall back to, and a redirect to it."""

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        raise URLError(f"plain http refused: {req.full_url}")


@contextmanager
def _polite(url: str) -> Iterator[None]:
    """No plain http beside an https address, no endless wait, and torchvision's bar only where somebody sees it."""
    seconds = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS)
    if url.startswith("https:"):
        urllib.request.install_opener(urllib.request.build_opener(_NoPlainHttp))
    try:
        with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
            yield
    finally:
        urllib.request.install_opener(None)  # as urllib starts
        socket.setdefaulttimeout(seconds)


def _cause(error: BaseException) -> str:
    """What went wrong first: torchvision tries something else in between."""
    while error.__context__ is not None:
        error = error.__context__
    return without_secrets(" ".join(str(error).split())) or type(error).__name__
