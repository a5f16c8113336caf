"""`hallmark backup` and `hallmark restore`."""

import io
import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pyarrow
import pytest
from filelock import FileLock
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings

from hallmark.flows.station import backup
from hallmark.flows.train import train
from hallmark.tasks.promotion import champions, decision_log
from hallmark.tasks.runtime import running_commands, station_file
from tests.support import databases
from tests.support.consoles import Call
from tests.support.interrupted import iris_experiment


@pytest.fixture
def move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Return a function that lets this process use home and stores in a folder of its own, as another machine would."""
    before = temporary_settings()
    opened = []

    def use(name: str) -> Path:
        folder = tmp_path / name
        monkeypatch.setenv("HALLMARK_HOME", str(folder / "home"))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
        address = f"sqlite+aiosqlite:///{folder / 'prefect' / 'prefect.db'}"
        opened.append(
            temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: address}, restore_defaults={PREFECT_API_URL})
        )
        opened[-1].__enter__()
        return folder

    with before:
        yield use
        for one in reversed(opened):
            one.__exit__(None, None, None)


def content_of(folder: Path) -> dict[str, bytes]:
    """Return the files of a home that a backup contains."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: text for name, text in names.items() if name.split("/")[0] not in backup.NOT_STORED}


@pytest.mark.usefixtures("prefect_server")
def test_a_backup_is_restored_on_another_machine(
    move: Callable[[str], Path], console: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "one" / "home"
    monkeypatch.setenv("HALLMARK_HOME", str(home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", databases.mlflow(tmp_path / "one" / "mlruns" / "mlflow.db"))
    name = train(iris_experiment(epochs=1)).model_version.name
    decision_log.record(champions.first_decision(name, 1, None))
    history = decision_log.history(name)
    one, file = move("one"), tmp_path / "saved.tar.zst"
    databases.prefect(one / "prefect" / "prefect.db")
    with closing(sqlite3.connect(one / "mlruns" / "mlflow.db")) as connection, connection:
        connection.execute("CREATE TABLE extra (x)")  # committed to the WAL only, as by a process that still runs
        code, out, error = console("backup", file)
    assert (code, error) == (0, "")
    assert out.startswith(f"backup    {file}: ")
    assert file.stat().st_mode & 0o077 == 0
    before = content_of(home)
    shutil.rmtree(one)

    two = move("two")
    code, out, error = console("restore", file)
    assert (code, error) == (0, ""), error
    assert content_of(two / "home") == before
    assert not list(two.rglob(".tmp-*"))
    assert console("verify", f"models:/{name}@champion", "--registered")[0] == 0
    assert decision_log.history(name) == history
    assert (two / "prefect" / "prefect.db").exists()
    with closing(sqlite3.connect(two / "mlruns" / "mlflow.db")) as connection:
        assert connection.execute("SELECT count(*) FROM extra").fetchone() == (0,)

    (two / "home" / "fits" / "later").mkdir()
    code, out, error = console("restore", file)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert f"{two / 'home'}, {two / 'mlruns' / 'mlflow.db'}, {two / 'mlruns' / 'artifacts'}: not empty: add --" in error
    assert console("restore", file, "--replace")[0] == 0
    assert content_of(two / "home") == before
    assert not (two / "home" / "fits" / "later").exists()


@pytest.fixture
def small(move: Callable[[str], Path], console: Call, tmp_path: Path) -> Path:
    """Back up a home of two files, and leave it; return the backup."""
    folder = move("one")
    (folder / "home" / "fits").mkdir(parents=True)
    (folder / "home" / "fits" / "a").write_bytes(b"a" * 3000)
    (folder / "home" / "b").write_bytes(b"b" * 3000)
    (folder / "home" / "locks").mkdir()
    (folder / "home" / "locks" / "c.lock").touch()
    assert console("backup", tmp_path / "small.tar")[0] == 0
    with tarfile.open(tmp_path / "small.tar") as archive:
        assert archive.getnames() == ["home/b", "home/fits/a", "manifest.json"]
    move("two")
    return tmp_path / "small.tar"


def pack(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def test_a_damaged_or_hostile_backup_changes_nothing(small: Path, console: Call, tmp_path: Path) -> None:
    content = small.read_bytes()
    with tarfile.open(small) as archive:
        *members, manifest = [(one, archive.extractfile(one).read()) for one in archive]  # type: ignore[union-attr]
    newer = json.dumps(json.loads(manifest[1]) | {"format": 2}).encode()
    names = ("../evil", "home/../../evil", "/evil", "evil", "elsewhere/evil", "home/new", "home/b")
    damages: dict[str, Callable[[], object]] = {
        "flipped": lambda: small.write_bytes(content.replace(b"bbbb", b"bbab", 1)),
        "cut": lambda: small.write_bytes(content[: len(content) // 2]),
        "no tar": lambda: small.write_bytes(b"text" * 1000),
        "no manifest": lambda: pack(small, *members),
        "missing": lambda: pack(small, *members[1:], manifest),
        "newer": lambda: pack(small, *members, (manifest[0], newer)),
        "symlink": lambda: pack(small, (link("home/out", "/tmp", tarfile.SYMTYPE), b""), *members, manifest),  # noqa: S108 - never followed
        "hard link": lambda: pack(small, (link("home/out", "home/b", tarfile.LNKTYPE), b""), *members, manifest),
    } | {name: partial(pack, small, (tarfile.TarInfo(name), b"evil"), *members, manifest) for name in names}
    before = set(tmp_path.rglob("*")) | {tmp_path / "two"}
    for damage, write in damages.items():
        write()
        code, out, error = console("restore", small)
        assert (code, out, error.count("\n")) == (2, "", 1), (damage, error)
        assert error.startswith(f"hallmark: {small}: is damaged"), damage
        assert error.endswith("nothing was changed\n"), damage
        assert set(tmp_path.rglob("*")) <= before, damage


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst"])
def test_compressed_backups_are_read_and_their_damage_is_noticed(
    small: Path, console: Call, suffix: str, tmp_path: Path
) -> None:
    packed = small.with_name(f"packed{suffix}")
    with pyarrow.CompressedOutputStream(str(packed), backup.COMPRESSIONS[suffix]) as stream:
        stream.write(small.read_bytes())
    content = packed.read_bytes()
    packed.write_bytes(content[: len(content) // 2])
    code, _, error = console("restore", packed)
    assert (code, error.count("\n")) == (2, 1), error
    packed.write_bytes(content)
    assert console("restore", packed)[0] == 0
    assert (tmp_path / "two" / "home" / "fits" / "a").read_bytes() == b"a" * 3000


def test_refusals(small: Path, console: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "two" / "home"
    assert "expected one that ends in .tar, .tar.gz" in console("backup", tmp_path / "x.zip")[2]
    assert "there is nothing to back up" in console("backup", tmp_path / "x.tar")[2]
    assert not (tmp_path / "x.tar").exists()
    assert "there is no such file" in console("restore", tmp_path / "x.tar")[2]
    (home / "fits").mkdir(parents=True)
    assert f"lies in {home}, which it would contain" in console("backup", home / "fits" / "x.tar")[2]
    inside = shutil.copy(small, home / small.name)
    code, _, error = console("restore", inside, "--replace")
    assert (code, Path(inside).exists()) == (2, True)
    assert f"lies in {home}, which it would replace" in error
    shutil.rmtree(home)
    with running_commands.registered(home, "train", None):
        assert "`hallmark train` (pid " in console("restore", small)[2]
    with FileLock(station_file.lock(home)):
        assert "a station is up" in console("restore", small)[2]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    code, out, _ = console("restore", small, "--json")
    assert (code, json.loads(out)["files"]) == (0, 2)
    _, out, _ = console("backup", tmp_path / "x.tar", "--json")
    assert json.loads(out)["left_out"] == [
        "runs, models and decisions in http://127.0.0.1:9 (MLFLOW_TRACKING_URI): back them up there"
    ]
