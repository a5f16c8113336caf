import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

HELP = """
import contextlib, io, json, sys
from hallmark.flows.__main__ import COMMANDS, run
texts = {}
def ask(*tokens):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        assert run([*tokens, "--help"]) == 0
    return text.getvalue()
all_commands = ask()
imported = [name for name in sys.modules if name.startswith("hallmark.flows.cli.")]
print(json.dumps({"imported": imported, "texts": {command: ask(command) for command in COMMANDS}}))
"""


@dataclass(frozen=True)
class Help:
    """What one process prints for `hallmark --help` and for `hallmark COMMAND --help`, in 80 columns."""

    imported: list[str]
    """Modules of commands that `hallmark --help` imports."""
    texts: dict[str, str]
    """Help of each command."""


@pytest.fixture(scope="session", autouse=True)
def _databases(migrated: None) -> None:
    """Let every test here find the stores that it needs."""


@pytest.fixture(scope="session")
def helps(python: Callable[..., str]) -> Help:
    """The help of all commands, from one process: cyclopts keeps what it was told of a command before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        return Help(**json.loads(python(HELP).splitlines()[-1]))
