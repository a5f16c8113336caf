"""Run `hallmark` commands inside the test process."""

from collections.abc import Callable

import pytest

from hallmark.flows.__main__ import run

Call = Callable[..., tuple[int, str, str]]
"""A function that runs a command, without the word `hallmark`, and returns exit code, stdout and stderr."""


def console(capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that runs a command and captures its output."""

    def call(*tokens: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([*map(str, tokens)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
