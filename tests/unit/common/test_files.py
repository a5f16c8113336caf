from pathlib import Path

import pytest

from hallmark.tasks.common import files
from hallmark.tasks.common.digests import check, file_digest
from hallmark.tasks.common.errors import DamagedError


class BoomError(Exception):
    pass


def half_write(path: Path) -> None:
    path.write_text("half")
    raise BoomError


def test_a_file_is_written_atomically(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with files.whole_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("former")
    with pytest.raises(BoomError), files.whole_file(path) as temporary:
        half_write(temporary)
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_atomically(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("one", "two"):
        with files.whole_folder(path) as temporary:
            (temporary / content).write_text(content)
    assert [file.name for file in path.iterdir()] == ["two"]
    with pytest.raises(BoomError), files.whole_folder(path) as temporary:
        half_write(temporary / "three")
    assert [file.name for file in path.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [path]


def test_is_writable_creates_the_folder_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    assert files.is_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("")
    assert not files.is_writable(tmp_path / "file" / "folder")


def test_a_changed_or_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"as written")
    digest = file_digest(path)
    assert check(path, digest) == path
    path.write_bytes(b"as damaged")
    with pytest.raises(DamagedError, match=f"weights: expected sha256 {digest[:12]}, found {file_digest(path)[:12]}"):
        check(path, digest)
    with pytest.raises(DamagedError, match="found no file"):
        check(tmp_path / "nowhere", digest)
