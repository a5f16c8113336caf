"""Text files, plain or compressed, as a stream of their content."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.table_names import suffixes

BLOCK = 2**20
"""Bytes that are read together."""

_MOST, _UNQUESTIONED = 200, 2**28
"""Content may be this many times as large as its file; below this number of bytes, it may have any size."""
_DAMAGED = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)
_HIDDEN = ("__MACOSX", ".")
"""How the paths of members of a ZIP archive begin that the file manager of macOS adds."""


def open_content(path: Path) -> BinaryIO:
    """Open a file; if its name says that it is compressed, its content is decompressed while it is read.

    Raises:
        InputError: the file is compressed otherwise, or is an archive of none or several files; while reading, it is
            damaged, ends too early, or has far more content than a table of its size.
    """
    _, compression = suffixes(path.name)
    if not compression:
        return path.open("rb")
    try:
        return io.BufferedReader(_Content(_stream(path, compression), path, compression), BLOCK)
    except _DAMAGED as error:
        raise _damaged(path, compression, error) from error


def estimate_lines(path: Path) -> int:
    """Return the number of lines, estimated from the size of the content and its first lines."""
    with open_content(path) as file:
        sample = file.read(BLOCK)
    facts = path.stat()
    size = _content_size(path, facts.st_size, facts.st_mtime_ns) if suffixes(path.name)[1] else facts.st_size
    lines = max(sample.count(b"\n"), sample.count(b"\r"))  # each line may end with both
    return round(size * lines / max(len(sample), 1))


def refuse_too_large(path: Path, count: int) -> None:
    """Refuse a file whose content is far larger than that of a table of its size.

    Args:
        path: the compressed file.
        count: number of bytes of its content, at least.
    """
    if count > _UNQUESTIONED and count > _MOST * path.stat().st_size:
        raise InputError(
            f"{path}: has more than {_MOST} times as many bytes when it is decompressed: if that is right, decompress "
            "it first"
        )


@lru_cache(maxsize=8)
def _content_size(path: Path, size: int, changed: int) -> int:  # noqa: ARG001 - size and time tell contents apart
    """Return the number of bytes of the content, by decompressing it: most formats do not store it."""
    with open_content(path) as file:
        return sum(map(len, iter(lambda: file.read(BLOCK), b"")))


class _Content(io.RawIOBase):
    """The decompressed content of a file, with limits and errors of one line."""

    def __init__(self, stream: BinaryIO, path: Path, compression: str) -> None:
        super().__init__()
        self._stream, self._path, self._compression = stream, path, compression
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer, which typing cannot name in Python 3.11
        try:
            content = self._stream.read(len(buffer))
        except _DAMAGED as error:
            raise _damaged(self._path, self._compression, error) from error
        self._count += len(content)
        refuse_too_large(self._path, self._count)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _stream(path: Path, compression: str) -> BinaryIO:
    match compression:
        case ".gz":
            return cast("BinaryIO", gzip.open(path))
        case ".bz2":
            return cast("BinaryIO", bz2.open(path))
        case ".xz":
            return cast("BinaryIO", lzma.open(path))
        case ".zst":
            return cast("BinaryIO", pa.input_stream(str(path), compression="zstd"))
    return _only_member(path)


def _only_member(path: Path) -> BinaryIO:
    with zipfile.ZipFile(path) as archive:
        members = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith(_HIDDEN)]
        if len(members) != 1:
            raise InputError(f"{path}: has {len(members)} files: expected a ZIP archive of one: unpack it")
        if members[0].flag_bits & 1:
            raise InputError(f"{path}: is encrypted: unpack it first")
        # The archive's file stays open until its member is closed.
        return cast("BinaryIO", archive.open(members[0]))


def _damaged(path: Path, compression: str, error: BaseException) -> InputError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(
        f"{path}: cannot be decompressed as {compression}: {reason}: it is incomplete, damaged, or compressed otherwise"
    )
