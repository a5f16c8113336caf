"""The limits that the suite sets itself."""

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
    ("path", "setting", "load", "expected"),
    [
        (UNIT, "1", 0, 2),
        (UNIT, "3", 0, 6),
        (UNIT, "off", 0, None),
        (UNIT, "1", 8, 4),  # four processes on each of two cores
        (TESTS / "pipelines" / "test_x.py", "1", 4, 15),
        (SYSTEM, "1", 0, None),
    ],
)
def test_a_limit_depends_on_tier_setting_and_load(
    path: Path, setting: str, load: float, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # the limit of this test is looked up afterwards
        patch.setenv(limits.VARIABLE, setting)
        patch.setattr(os, "cpu_count", lambda: 2)
        patch.setattr(os, "getloadavg", lambda: (load, 0, 0))
        assert limits.limit(path, TESTS) == expected


def call(path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the hook around a test of this file that takes so long."""
    clock = iter([0.0, seconds])
    hook = pytest_runtest_call(SimpleNamespace(path=path))  # type: ignore[arg-type]
    with monkeypatch.context() as patch, suppress(StopIteration):
        patch.delenv(limits.VARIABLE, raising=False)
        patch.setattr(os, "getloadavg", lambda: (0, 0, 0))
        patch.setattr(limits, "clock", lambda: next(clock))
        next(hook)
        next(hook)


def test_a_test_over_its_limit_fails_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    call(UNIT, 1.9, monkeypatch)
    call(SYSTEM, 99, monkeypatch)
    with pytest.raises(pytest.fail.Exception, match=r"took 3\.0 s, and a test in tests/unit may take 2 s: "):
        call(UNIT, 3, monkeypatch)
