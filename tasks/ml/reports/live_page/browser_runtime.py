"""Download onnxruntime-web, which runs models in a browser, from an npm registry, and check its digest."""

import base64
import hashlib
import http.client
import io
import logging
import tarfile
import urllib.request
from pathlib import Path
from typing import IO

from hallmark.tasks.common import web_requests
from hallmark.tasks.common.digests import check
from hallmark.tasks.common.errors import DamagedError, InputError, one_line, without_secrets
from hallmark.tasks.common.file_locks import file_lock
from hallmark.tasks.common.files import whole_folder

logger = logging.getLogger(__name__)

VERSION = "1.30.0"
ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""SHA-512 of the archive in base64, as in npm's lock files."""
MODULE, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
FILES = {
    MODULE: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""Files of the archive that a page needs, with their SHA-256."""
LARGEST = 64 * 2**20
"""Maximum size in bytes of the archive and of each file in it. The archive has 33 million."""
_SECONDS = 30.0
"""Time limit, in seconds, for the registry to begin to answer, and for each read."""
_DOWNLOAD_SECONDS = 900.0
"""Time limit of the download."""

LICENSE_TEXT = """\
index.html contains ONNX Runtime Web {version}, which is distributed under this license.

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
"""License text with a placeholder for the version. The archive contains no copy of it."""


def fetch(home: Path, registry: str | None) -> Path:
    """Download the runtime to `home/downloads`, unless it is already there and intact.

    Args:
        home: Hallmark's home folder.
        registry: URL of an npm registry; None if the files are already there. Plain http is used only for an http URL.

    Returns:
        The folder that contains `FILES`.

    Raises:
        InputError: `registry` is needed but None, or does not answer.
        DamagedError: the downloaded archive is not the expected one.
    """
    folder = home / "downloads" / ARCHIVE.removesuffix(".tgz")
    with file_lock(home, "download-onnxruntime-web"):
        if not _is_intact(folder):
            if registry is None:
                raise InputError(
                    "onnxruntime-web must be downloaded, but no registry is configured: set HALLMARK_NPM_REGISTRY to "
                    "the address of an npm registry (`npm config get registry` prints npm's)"
                )
            extract(_archive(registry), folder)
    return folder


def extract(archive: bytes, folder: Path) -> None:
    """Extract `FILES` into a new `folder`, atomically. Paths in the archive are not used for writing.

    Raises:
        DamagedError: a file is missing or does not have its digest.
    """
    with whole_folder(folder) as temporary, tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as packed:
        for name, digest in FILES.items():
            (temporary / name).write_bytes(_member(packed, name))
            check(temporary / name, digest)


def _member(packed: tarfile.TarFile, name: str) -> bytes:
    try:
        entry = packed.getmember(f"package/dist/{name}")
    except KeyError as error:
        raise DamagedError(f"{ARCHIVE}: expected package/dist/{name}, found none") from error
    content: IO[bytes] | None = packed.extractfile(entry) if entry.isfile() and entry.size <= LARGEST else None
    if content is None:
        raise DamagedError(f"{ARCHIVE}: package/dist/{name}: expected a file of at most {LARGEST:,} bytes")
    return content.read()


def _is_intact(folder: Path) -> bool:
    if not folder.exists():
        return False
    try:
        for name, digest in FILES.items():
            check(folder / name, digest)
    except DamagedError as error:
        logger.warning("downloading onnxruntime-web again, because the stored copy is damaged: %s", error)
        return False
    return True


def _archive(registry: str) -> bytes:
    """Download the archive and check its digest.

    Raises:
        InputError: the download failed.
        DamagedError: the digest differs.
    """
    url = f"{registry.rstrip('/')}/onnxruntime-web/-/{ARCHIVE}"
    shown = without_secrets(url)
    try:
        web_requests.refuse_address(url)
        https = [HttpsAlone()] if url.startswith("https:") else []
        with (
            web_requests.opener(_DOWNLOAD_SECONDS, *https, header_seconds=_SECONDS) as limited,
            limited.open(url, timeout=_SECONDS) as answer,
        ):
            content: bytes = answer.read(LARGEST + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = one_line(without_secrets(str(error), url))
        raise InputError(
            f"{shown}: download failed ({reason}): connect this machine to the network, "
            "or set HALLMARK_NPM_REGISTRY to the address of an npm registry"
        ) from error
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != INTEGRITY:
        raise DamagedError(
            f"{shown}: expected sha512 {INTEGRITY[:12]}, found {found[:12]}: the registry serves another file"
        )
    return content


class HttpsAlone(urllib.request.HTTPRedirectHandler):
    """Redirect handler that refuses to leave https."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the request for a redirect; urllib calls it for each one."""
        if not newurl.startswith("https:"):
            raise OSError(f"redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
