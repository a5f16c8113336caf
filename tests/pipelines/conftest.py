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
def help_of(*tokens):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        assert run([*tokens, "--help"]) == 0
    return text.getvalue()
help_of()
imported = [name for name in sys.modules if name.startswith("hallmark.flows.cli.")]
print(json.dumps({"imported": imported, "texts": {command: help_of(command) for command in COMMANDS}}))
"""


@dataclass(frozen=True)
class Help:
    """Modules that `hallmark --help` imports, and the output of `hallmark COMMAND --help`, 80 columns wide."""

    imported: list[str]
    """Command modules imported by `hallmark --help`."""
    texts: dict[str, str]
    """Help text by command."""


@pytest.fixture(scope="session", autouse=True)
def _databases(migrated: None) -> None:
    """Create the databases for all tests in this folder."""


@pytest.fixture(scope="session")
def helps(python: Callable[..., str]) -> Help:
    """Return the help of all commands, from a new process because cyclopts keeps state between commands."""
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
    """Train on a table of text, numbers, times and missing values, with names that contain markup."""
    times = np.random.default_rng(1).integers(0, 900, 300)
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("own") / "own.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "city <b>", "it's, 1", "seen at", "kind"])
        for time in times:
            age, city, number = rng.normal(40, 12), str(rng.choice(CITIES)), rng.normal()
            kind = "yes & no" if age + 10 * (city == CITIES[0]) + rng.normal(0, 8) > 42 else "<no>"
            gaps = rng.random(2) < 0.1
            fields = ["" if gaps[0] else f"{age:.1f}", "" if gaps[1] else city, f"{number:.3f}"]
            writer.writerow([*fields, 1_700_000_000 + 30 * time, kind])
    return train_for_card(options.experiment(str(path), ["--target", "kind"]))


@pytest.fixture(scope="session", params=["flowers", "digits", "table"])
def each(request: pytest.FixtureRequest) -> Trained:
    trained: Trained = request.getfixturevalue(request.param)
    return trained
