"""The home is created for its owner alone, and credentials are refused when they are set."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hallmark.flows.cli.shared import errors
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.file_locks import file_lock
from hallmark.tasks.runtime import settings


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
    with pytest.raises(InputError, match="HALLMARK_AUTH: value error, expected user:password, in ascii") as refused:
        settings.from_environment()
    assert str(refused.value).endswith("found something else")
