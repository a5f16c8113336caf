import csv
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from hallmark.flows.experiments import options, presets
from tests.support.cards import CITIES, Trained, train_for_card

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
    """Output of `hallmark --help` and of `hallmark COMMAND --help` in one process, in 80 columns."""

    imported: list[str]
    """Modules of commands that `hallmark --help` imports."""
    texts: dict[str, str]
    """Help of each command."""


@pytest.fixture(scope="session", autouse=True)
def _databases(migrated: None) -> None:
    """Create the databases that the tests here need."""


@pytest.fixture(scope="session")
def helps(python: Callable[..., str]) -> Help:
    """Return the help of all commands, from a fresh process: cyclopts keeps state from earlier commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        return Help(**json.loads(python(HELP).splitlines()[-1]))


@pytest.fixture(scope="session")
def flowers(prefect_server: str) -> Trained:  # noqa: ARG001 - the server comes first
    return train_for_card(presets.iris())


@pytest.fixture(scope="session")
def digits(prefect_server: str) -> Trained:  # noqa: ARG001 - as above
    return train_for_card(presets.get("digits"))


@pytest.fixture(scope="session")
def table(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:  # noqa: ARG001 - as above
    """Train on a table of text, numbers and missing values, with names that contain markup."""
    random, path = np.random.default_rng(0), tmp_path_factory.mktemp("own") / "own.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "city <b>", "it's, 1", "kind"])
        for _ in range(300):
            age, city, number = random.normal(40, 12), str(random.choice(CITIES)), random.normal()
            kind = "yes & no" if age + 10 * (city == CITIES[0]) + random.normal(0, 8) > 42 else "<no>"
            gaps = random.random(2) < 0.1
            writer.writerow(["" if gaps[0] else f"{age:.1f}", "" if gaps[1] else city, f"{number:.3f}", kind])
    return train_for_card(options.experiment(str(path), ["--target", "kind"]))


@pytest.fixture(scope="session", params=["flowers", "digits", "table"])
def each(request: pytest.FixtureRequest) -> Trained:
    found: Trained = request.getfixturevalue(request.param)
    return found
