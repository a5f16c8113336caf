"""Commands that run in the process of the tests."""

from collections.abc import Callable

import pytest

from hallmark.flows.__main__ import run

Call = Callable[..., tuple[int, str, str]]
"""What runs a command, given without `hallmark` itself, and returns exit code, stdout and stderr."""


def console(capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*tokens: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([*map(str, tokens)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
