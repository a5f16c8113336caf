"""Downloads by torchvision over real HTTP, from a local server with small archives."""

import gzip
import hashlib
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import IO

import numpy as np
import pytest
from torchvision import datasets

from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.ml.data import downloads

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    """Encode an array in the IDX format of MNIST: magic number with type and dimensions, sizes, bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


ARCHIVES = {
    IMAGES: gzip.compress(idx(PIXELS), mtime=0),
    LABELS: gzip.compress(idx(np.arange(5, dtype=np.uint8)), mtime=0),
}


class Small(datasets.MNIST):
    """torchvision's MNIST class with two small archives."""

    resources = [  # noqa: RUF012 - torchvision's shape
        (name, hashlib.md5(content, usedforsecurity=False).hexdigest()) for name, content in ARCHIVES.items()
    ]


class Server:
    """A folder served over HTTP, and the paths that were requested."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requested: list[str] = []
        self.delay = 0.0
        """Seconds before each byte of a file."""
        serving = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                serving.requested.append(self.path)

            def copyfile(self, source: IO[bytes], outputfile: IO[bytes]) -> None:  # type: ignore[override]
                with suppress(OSError):
                    while byte := source.read(1 if serving.delay else -1):
                        outputfile.write(byte)
                        time.sleep(serving.delay)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def put(self, name: str, content: bytes) -> None:
        path = self.folder / "Small" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    def fetched(self, name: str) -> int:
        """Return how often torchvision downloaded a file. It requests a file twice: first to resolve redirects."""
        return self.requested.count(f"/Small/{name}") // 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    serving = Server(folder)
    for name, content in ARCHIVES.items():
        serving.put(name, content)
    thread = Thread(target=serving.http.serve_forever)
    thread.start()
    yield serving
    serving.http.shutdown()
    thread.join()
    serving.http.server_close()


def read(root: Path) -> datasets.MNIST:
    return Small(root, train=True)


def test_archives_are_downloaded_once_and_read_by_torchvision(server: Server, tmp_path: Path) -> None:
    root = downloads.fetch(Small, tmp_path, server.address)
    np.testing.assert_array_equal(read(root).data, PIXELS)
    assert read(root).targets.tolist() == [0, 1, 2, 3, 4]
    requested = len(server.requested)
    assert downloads.fetch(Small, tmp_path, server.address + "/") == root
    assert len(server.requested) == requested


def test_a_damaged_archive_is_downloaded_again(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive = downloads.fetch(Small, tmp_path, server.address) / "Small" / "raw" / IMAGES
    archive.write_bytes(archive.read_bytes()[:-1] + b"!")
    with caplog.at_level(logging.WARNING):
        downloads.fetch(Small, tmp_path, server.address)
    assert archive.read_bytes() == ARCHIVES[IMAGES]
    assert (server.fetched(IMAGES), server.fetched(LABELS)) == (2, 1)
    assert "is damaged" in caplog.text


def test_a_damaged_unpacked_file_is_unpacked_again_offline(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = downloads.fetch(Small, tmp_path, server.address)
    unpacked = (root / "Small" / "raw" / IMAGES).with_suffix("")
    unpacked.write_bytes(unpacked.read_bytes()[:-1] + b"!")
    requested = len(server.requested)
    with caplog.at_level(logging.WARNING):
        downloads.fetch(Small, tmp_path, server.address)
    np.testing.assert_array_equal(read(root).data, PIXELS)
    assert len(server.requested) == requested
    assert "expected sha256" in caplog.text


def test_an_archive_damaged_twice_is_refused_with_both_digests(server: Server, tmp_path: Path) -> None:
    server.put(IMAGES, b"something else")
    expected, found = (
        hashlib.md5(content, usedforsecurity=False).hexdigest() for content in (ARCHIVES[IMAGES], b"something else")
    )
    with pytest.raises(DamagedError, match=f"expected md5 {expected}, found {found}") as refused:
        downloads.fetch(Small, tmp_path, server.address)
    assert "\n" not in str(refused.value)
    assert server.fetched(IMAGES) == 2
    assert not (tmp_path / "downloads" / "Small" / "raw" / IMAGES).exists()


def test_a_missing_archive_is_refused_in_one_line_with_the_setting_to_change(server: Server, tmp_path: Path) -> None:
    (server.folder / "Small" / LABELS).unlink()
    with pytest.raises(
        InputError, match=rf"{server.address}/Small/{LABELS}.*404.*HALLMARK_MIRROR.*has Small/{LABELS}"
    ) as refused:
        downloads.fetch(Small, tmp_path, server.address)
    assert "\n" not in str(refused.value)


def test_an_unreachable_server_is_refused_with_the_setting_to_change(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(InputError, match=r"Connection refused.*HALLMARK_MIRROR"):
        downloads.fetch(Small, tmp_path, f"http://127.0.0.1:{port}")
    assert not list((tmp_path / "downloads").rglob("*.gz"))


def test_an_error_shows_the_address_without_secrets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^http://localhost:1/") as refused:
        downloads.fetch(Small, tmp_path, "http://user:hunter2@localhost:1")
    assert "hunter2" not in str(refused.value)


def test_https_never_becomes_plain_http(server: Server, tmp_path: Path) -> None:
    """Check that nothing is requested over plain HTTP: the server has no TLS, and torchvision would fall back."""
    secure = server.address.replace("http:", "https:")
    with pytest.raises(InputError, match=r"https://127.*(SSL|WRONG_VERSION|record layer|http refused)"):
        downloads.fetch(Small, tmp_path, secure)
    assert not [path for path in server.requested if "gz" in path and "Small" in path]


def test_every_official_address_is_https() -> None:
    for kind in (datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST):
        assert downloads.address(kind, None).startswith("https://")
        assert downloads.address(kind, None).endswith("/")


def test_a_mirror_has_mnist_at_its_root_and_other_kinds_in_subfolders() -> None:
    assert downloads.address(datasets.MNIST, "http://mirror/data") == "http://mirror/data/"
    assert downloads.address(datasets.KMNIST, "http://mirror/data/") == "http://mirror/data/KMNIST/"


def test_concurrent_calls_download_once(server: Server, tmp_path: Path) -> None:
    threads = [Thread(target=downloads.fetch, args=(Small, tmp_path, server.address)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (server.fetched(IMAGES), server.fetched(LABELS)) == (1, 1)
    np.testing.assert_array_equal(read(tmp_path / "downloads").data, PIXELS)


@pytest.mark.parametrize("mirror", ["file:///folder", "/folder", "ftp://host", "http://me:hunter2/x@host"])
def test_a_mirror_that_is_no_web_address_is_refused_where_it_is_used(mirror: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^HALLMARK_MIRROR: ") as refused:
        downloads.fetch(Small, tmp_path, mirror)
    assert "hunter2" not in str(refused.value)


def test_a_mirror_that_sends_slowly_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_DOWNLOAD_SECONDS", 0.3)
    server.delay = 0.05
    with pytest.raises(InputError, match=r"\(no complete answer within 0\.3 seconds\): HALLMARK_MIRROR"):
        downloads.fetch(Small, tmp_path, server.address)
    assert not list((tmp_path / "downloads").rglob("*.gz"))
