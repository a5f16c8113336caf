"""What commands make of exceptions that Hallmark does not raise itself."""

import errno
import logging
import os
from asyncio import CancelledError
from pathlib import Path

import pytest

from hallmark.flows.cli.shared import errors, log_handlers
from hallmark.tasks.common.errors import HallmarkError, InputError

SECRET = "http://me:secret@host"  # noqa: S105 - none


def raised(error: BaseException) -> BaseException:
    """Return an error with a traceback."""
    try:
        raise error  # noqa: TRY301 - for its traceback
    except BaseException as caught:  # noqa: BLE001 - returned
        return caught


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError(f"{SECRET}\n\x1b[31m"), r"unexpected ValueError: http://host \x1b[31m (log: "),
        (CancelledError(), "unexpected CancelledError (log: "),
        (SystemExit("a library exits"), "unexpected SystemExit: a library exits (log: "),
        (RecursionError("too deep"), "unexpected RecursionError: too deep (log: "),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            "a file or stdout cannot be written: No space left on device",
        ),
        (ExceptionGroup("several", [InputError("one")]), "one"),
    ],
)
def test_any_exception_becomes_one_line(error: BaseException, message: str, home: Path) -> None:
    found = errors.expected(raised(error))
    assert isinstance(found, HallmarkError)
    assert str(found).startswith(message)
    assert "\n" not in str(found)
    for log in home.rglob("*.log"):
        assert log.read_text().startswith("Traceback")
        assert "secret" not in log.read_text()


def test_an_interrupt_in_a_group_is_an_interrupt() -> None:
    group = BaseExceptionGroup("two", [KeyboardInterrupt(), ValueError()])
    assert isinstance(errors.expected(group), KeyboardInterrupt)
    assert isinstance(errors.expected(BaseExceptionGroup("one", [KeyboardInterrupt()])), KeyboardInterrupt)


def test_a_path_that_no_system_takes_is_refused() -> None:
    with pytest.raises(OSError, match="too long") as caught:
        Path("x" * 5000).stat()
    found = errors.expected(caught.value)
    assert isinstance(found, InputError)
    assert str(found) == f"'{'x' * 80}': File name too long: give another path"


def test_the_message_is_kept_if_the_log_cannot_be_written(home: Path) -> None:
    home.mkdir()
    (home / "logs").symlink_to("/dev/full")
    assert "bad (no log could be written: " in str(errors.expected(ValueError("bad")))


def test_a_log_on_a_full_disk_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    handler = log_handlers.LogFile(Path("/dev/full"))
    for _ in range(3):
        handler.handle(logging.makeLogRecord({"name": "hallmark", "levelno": logging.INFO, "msg": "text"}))
    handler.close()
    assert capsys.readouterr().err == "hallmark: warning: /dev/full: [Errno 28] No space left on device\n"


def test_logs_show_no_password_and_the_terminal_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger, path = logging.getLogger("hallmark.test_logs"), tmp_path / "log"
    handlers = [log_handlers.LogFile(path), log_handlers.terminal()]
    for handler in handlers:
        logger.addHandler(handler)
    try:
        raise ValueError(SECRET)  # noqa: TRY301 - for its traceback
    except ValueError:
        logger.exception("not sent to %s\x1b", SECRET)
    for handler in handlers:
        logger.removeHandler(handler)
        handler.close()
    assert capsys.readouterr().err == "not sent to http://host\\x1b\n"
    assert "Traceback" in path.read_text()
    assert "me:secret" not in path.read_text()
