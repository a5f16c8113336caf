"""Settings: an invalid variable is refused when its setting is read, and only then; the home is for its owner alone."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hallmark.flows.cli.shared import errors
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.file_locks import file_lock
from hallmark.tasks.runtime import prefect_api, settings, station_file


@pytest.mark.parametrize(
    ("variable", "value", "setting"),
    [
        ("HALLMARK_AUTH", "only-a-secret", "auth"),
        ("HALLMARK_AUTH", "only-a-secret", "credentials"),
        ("HALLMARK_CHECKPOINT_SECONDS", "0", "checkpoint_seconds"),
        ("HALLMARK_NPM_REGISTRY", "registry", "npm_registry"),
        ("npm_config_registry", "registry", "npm_registry"),
        ("HALLMARK_PREFECT_PORT", "70000", "prefect_port"),
        ("HALLMARK_SERVE_LIMIT", "many", "serve_limit"),
        ("HALLMARK_UI_PORT", "abc", "ui_port"),
    ],
)
def test_invalid_value_is_refused_when_it_is_read(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, setting: str
) -> None:
    monkeypatch.setenv(variable, value)
    machine = settings.from_environment().model_copy(update={"tracking_uri": "sqlite:////a.db"})
    valid = settings.Settings.model_fields.keys() - {setting, "auth" if setting == "credentials" else setting}
    machine.require(*valid)
    for _ in range(2):
        with pytest.raises(InputError) as refused:
            machine.require(setting)
        named = variable.upper().replace("NPM_CONFIG_REGISTRY", "HALLMARK_NPM_REGISTRY")
        assert str(refused.value).startswith(f"{named}: ")
        assert value not in str(refused.value) or variable != "HALLMARK_AUTH"


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("sqlite:///s.db", "/project/s.db"),
        ("sqlite:///./runs/s.db", "/project/runs/s.db"),
        ("sqlite:////runs/s.db", "/runs/s.db"),
    ],
)
def test_store_does_not_depend_on_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = f"sqlite:///{path.replace('/project', str(tmp_path))}"
    for query in ("", "?timeout=20"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given + query)
        assert settings.from_environment().tracking_uri == expected + query


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "sqlite:///:memory:", "postgresql://me@host/runs", "runs"])
def test_other_stores_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert settings.from_environment().tracking_uri == uri


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (None, ""),
        ("PREFECT_HOME", ""),
        ("PREFECT_HOME", "/theirs"),
        ("PREFECT_API_URL", "http://127.0.0.1:4200/api"),
        ("PREFECT_PROFILE", "cloud"),
    ],
)
def test_prefect_has_a_folder_in_the_home_unless_the_user_chose_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str | None, value: str
) -> None:
    monkeypatch.setenv("PREFECT_HOME", "to be restored")
    for name in prefect_api.CHOSEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HALLMARK_HOME", str(tmp_path))
    if variable:
        monkeypatch.setenv(variable, value)
    before = dict(os.environ)
    prefect_api.use_own_home()
    assert dict(os.environ) == (before if value else before | {"PREFECT_HOME": str(tmp_path / "prefect")})


def create_by_settings(home: Path) -> None:  # noqa: ARG001 - the settings have it
    settings.from_environment().writable_home()


def create_by_lock(home: Path) -> None:
    with file_lock(home, "one"):
        pass


def create_by_log(home: Path) -> None:
    errors.expected(ValueError("unexpected"))
    assert list(home.glob("logs/*"))


@pytest.mark.parametrize("create", [create_by_settings, create_by_lock, create_by_log])
def test_home_is_for_its_owner_alone_unless_it_exists(home: Path, create: Callable[[Path], None]) -> None:
    create(home)
    assert home.stat().st_mode & 0o777 == 0o700
    home.chmod(0o755)
    create(home)
    assert home.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("auth", ["me:pässword", "mé:password", "me", ":password", "me:"])
def test_credentials_that_cannot_be_sent_are_refused_without_showing_them(
    monkeypatch: pytest.MonkeyPatch, auth: str
) -> None:
    monkeypatch.setenv("HALLMARK_AUTH", auth)
    with pytest.raises(InputError, match="HALLMARK_AUTH: expected user:password, in ASCII") as refused:
        settings.from_environment().require("auth")
    assert str(refused.value).endswith("found something else")


@pytest.mark.parametrize(
    ("home", "message"),
    [
        ("loop", "too many levels of symbolic links"),
        ("file", "expected a folder, found a file"),
        ("x" * 5000, "file name too long"),
        ("~nobody-of-this-name/x", "home directory"),
        ("\x1b[31m" * 100, r"file name too long, found '\\x1b\[31m"),
    ],
)
def test_a_home_that_cannot_be_a_folder_is_refused(
    home: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    monkeypatch.setenv("HALLMARK_HOME", home)
    with pytest.raises(InputError, match=f"^HALLMARK_HOME: .*{message}") as refused:
        settings.read().require("home")
    assert len(str(refused.value)) < 300
    assert str(refused.value).isprintable()


def test_a_home_below_a_file_is_left_to_the_commands_that_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALLMARK_HOME", os.devnull + "/home")
    assert settings.read().home == Path("/dev/null/home")


@pytest.mark.parametrize(
    ("name", "make", "expected"),
    [
        *[(name, Path.touch, "folder") for name in ("running", "locks", "unfinished", "logs")],
        *[(name, Path.mkdir, "file") for name in ("station.lock", "station.json")],
        *[(name, os.mkfifo, "file") for name in ("station.lock", "station.json")],
        ("datasets", os.mkfifo, "folder"),
        ("models", lambda path: path.symlink_to("missing"), "folder"),
    ],
)
def test_a_home_with_something_else_in_place_of_its_own_is_refused(
    home: Path, name: str, make: Callable[[Path], None], expected: str
) -> None:
    home.mkdir(exist_ok=True)
    make(home / name)
    (home / "notes").touch()
    with pytest.raises(InputError) as refused:
        settings.read().require("home")
    found = f"{home / name}: expected a {expected}, found something else: move it away"
    assert str(refused.value) == f"HALLMARK_HOME: {found}"


@pytest.mark.parametrize(("name", "make"), [("locks/one.lock", Path.mkdir), ("locks", Path.touch)])
def test_a_lock_that_is_no_file_is_refused(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    make(path)
    with pytest.raises(InputError, match=f"^{path}: expected a .*, found something else: move it away$"):
        file_lock(tmp_path, "one")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_of_a_station_is_not_waited_for(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(station_file.file(tmp_path))
    with pytest.raises(InputError, match="was not written by `hallmark up`"):
        station_file.recorded(tmp_path)
    make(station_file.lock(tmp_path))
    with pytest.raises(InputError, match=r"expected a file to lock, found: .* regular file: move it away"):
        station_file.is_held(tmp_path)
