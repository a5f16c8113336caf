"""The time limits of the test suite."""

import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT, pytest_runtest_call
from tests.support import limits

TESTS = ROOT / "tests"
UNIT, SYSTEM = TESTS / "unit" / "ml" / "test_x.py", TESTS / "system" / "test_x.py"


@pytest.mark.parametrize(
    ("path", "setting", "expected"),
    [
        (UNIT, "1", 2),
        (UNIT, "3", 6),
        (UNIT, "off", None),
        (TESTS / "pipelines" / "test_x.py", "1", 15),
        (SYSTEM, "1", None),
    ],
)
def test_a_limit_depends_on_tier_and_setting(
    path: Path, setting: str, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # undone before the limit of this test itself is looked up
        patch.setenv(limits.VARIABLE, setting)
        assert limits.limit(path, TESTS) == expected


@pytest.mark.parametrize(("load", "expected"), [(4, 5), (4.1, 1)])
def test_cpu_time_counts_on_a_busy_machine(load: float, expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 2)
        patch.setattr(os, "getloadavg", lambda: (load, 0, 0))
        patch.setattr(limits, "now", lambda: limits.Times(elapsed=105, cpu=11))
        assert limits.seconds_since(limits.Times(elapsed=100, cpu=10)) == expected


def call(path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the hook around a test of this file that takes this many seconds."""
    hook = pytest_runtest_call(SimpleNamespace(path=path))  # type: ignore[arg-type]
    with monkeypatch.context() as patch, suppress(StopIteration):
        patch.delenv(limits.VARIABLE, raising=False)
        patch.setattr(limits, "seconds_since", lambda _: seconds)
        next(hook)
        next(hook)


def test_a_test_over_its_limit_fails_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    call(UNIT, 1.9, monkeypatch)
    call(SYSTEM, 99, monkeypatch)
    with pytest.raises(pytest.fail.Exception, match=r"took 3\.0 s, and a test in tests/unit may take 2 s: "):
        call(UNIT, 3, monkeypatch)
