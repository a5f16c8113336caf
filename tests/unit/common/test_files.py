import fcntl
import os
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


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.write_bytes(b"content")
    os.mkfifo(pipe)
    assert files.read_regular(file) == b"content"
    for other in (pipe, tmp_path):
        with pytest.raises(OSError, match="is not a regular file"):
            files.read_regular(other)


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


def leave(folder: Path, *, age: float, is_locked: bool = True) -> Path:
    """Make a temporary folder as a process that was killed `age` seconds ago left it."""
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "half").write_text("half")
    if is_locked:
        (folder / ".lock").touch()
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    return folder


@pytest.mark.parametrize("write", [files.whole_file, files.whole_folder])
def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path: Path, write: object) -> None:
    assert callable(write)
    dead = leave(tmp_path / ".tmp-hallmark-dead", age=61)
    unlocked = leave(tmp_path / ".tmp-hallmark-unlocked", age=61, is_locked=False)
    young = leave(tmp_path / ".tmp-hallmark-young", age=30)
    alive = leave(tmp_path / ".tmp-hallmark-alive", age=3600)
    others = leave(tmp_path / ".tmp-analysis", age=1e6)
    with (alive / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with write(tmp_path / "new") as temporary:
            temporary.write_text("new") if write is files.whole_file else (temporary / "new").touch()
    assert set(tmp_path.iterdir()) == {young, alive, others, tmp_path / "new"}
    assert not dead.exists()
    assert not unlocked.exists()


def test_a_sweep_of_the_home_also_removes_what_older_versions_left(tmp_path: Path) -> None:
    fit, unfinished = tmp_path / "fits" / "1", tmp_path / "unfinished"
    left = [
        leave(fit / ".tmp-hallmark-x", age=61),
        leave(fit / ".tmp-abcd_123", age=90_000, is_locked=False),
        leave(tmp_path / ".reproduce-abcdefgh", age=90_000, is_locked=False),
        leave(unfinished / f".removed-{'0' * 32}", age=90_000, is_locked=False),
    ]
    recent = leave(fit / ".tmp-12345678", age=3600, is_locked=False)
    (tmp_path / "link").symlink_to(fit, target_is_directory=True)
    assert set(files.sweep_tree(tmp_path)) == set(left)
    assert [path for path in fit.iterdir() if path.name.startswith(".")] == [recent]


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
