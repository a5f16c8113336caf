import os
from pathlib import Path

import pytest

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.runtime import settings


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
        settings.read()
    assert len(str(refused.value)) < 300
    assert str(refused.value).isprintable()


def test_a_home_below_a_file_is_left_to_the_commands_that_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALLMARK_HOME", os.devnull + "/home")
    assert settings.read().home == Path("/dev/null/home")


def test_a_mirror_does_not_concern_commands_that_download_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALLMARK_MIRROR", "file:///folder")
    assert settings.read().mirror == "file:///folder"
