import ast
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from hallmark.flows.cli.shared import printing
from hallmark.tasks.common.terminal import Console
from tests.conftest import ROOT

HOSTILE = "\x1b]0;title\x07 http://me:secret@host \x9b2J"
SHOWN = r"\x1b]0;title\x07 http://host \u009b2J"


def test_cells_and_texts_are_printed_without_control_characters_and_secrets() -> None:
    file = StringIO()
    console = Console(file=file, width=200)
    table = Table(HOSTILE, "", box=None)
    table.add_row(HOSTILE, "\u202egod")
    console.print(table, HOSTILE, Text(HOSTILE.replace("\x07", "")))  # rich removes a bell from a Text
    assert file.getvalue().count(SHOWN) == 3
    assert r"\u202egod" in file.getvalue()
    assert not any(part in file.getvalue() for part in ("\x1b", "\x07", "\x9b", "\u202e", "secret"))


def test_styles_are_kept() -> None:
    file = StringIO()
    Console(file=file, force_terminal=True, color_system="standard").print("[red]red[/red]", "\x1b[31m")
    assert file.getvalue().startswith("\x1b[31mred\x1b[0m")
    assert r"\x1b" in file.getvalue()


def test_a_name_cannot_print_a_row_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_row("classes", "cat\nverdict  holds", ("dog\r\x1b[A", "bold"))
    printing.print_text(f"{HOSTILE}\n")
    printing.print_json({"names": [HOSTILE], "of": {"x": (HOSTILE, 1)}})
    rows = capsys.readouterr().out.splitlines()
    assert rows[:2] == [r"classes  cat\x0averdict  holdsdog\x0d\x1b[A", SHOWN]
    assert len(rows) == 3
    assert not any(part in rows[2] for part in ("secret", "\x1b", "\x9b"))


def printing_calls(path: Path) -> list[str]:
    """Return what a module prints with directly, and from where it imports a console."""
    text, found = path.read_text(), list[str]()
    if not re.search(r"print\(|\.write\(|rich\.console", text):  # parsing all modules takes a second
        return found
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.stdout.write", "sys.stderr.write"):
            found.append(f"{path.relative_to(ROOT)}: {ast.unparse(node.func)}")
        if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
            found += [f"{path.relative_to(ROOT)}: {one.name}" for one in node.names if one.name == "Console"]
    return found


def test_all_that_is_printed_goes_through_what_removes_secrets_and_control_characters() -> None:
    """Hold that a message cannot show an address around `without_secrets`: these are the only ways to a terminal."""
    modules = [path for part in ("flows", "tasks") for path in (ROOT / part).rglob("*.py")]
    assert sorted(call for path in modules for call in printing_calls(path)) == [
        "flows/__main__.py: sys.stderr.write",
        "flows/cli/shared/background_errors.py: sys.stderr.write",
        "flows/cli/shared/log_handlers.py: sys.stderr.write",
        "flows/cli/shared/printing.py: sys.stdout.write",
        "flows/cli/shared/printing.py: sys.stdout.write",
        "flows/cli/shared/printing.py: sys.stdout.write",
        "tasks/common/terminal.py: Console",
        "tasks/ml/artifact/graph_checks.py: sys.stdout.write",  # JSON, to the process that started it
    ]
