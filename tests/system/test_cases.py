"""A few of the cases that `make cases` runs stand for all of them."""

from pathlib import Path

import pytest

from tests.cases import calls, hostile, known_gaps, manifest
from tests.cases.case import CONTROL, Case, Found, differences
from tests.support import certified

CASES = {case.name: case for case in manifest.CASES}
CHOSEN = [CASES[name] for name in manifest.REPRESENTATIVE]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the tables, and the hostile files that are chosen."""
    folder = tmp_path_factory.mktemp("cases")
    manifest.write_tables(folder)
    honest = certified.images(folder / "certified.onnx", (manifest.SIDE, manifest.SIDE, 3), resized=True)
    chosen = tuple(name for name in hostile.VERDICTS if f"hostile {name}" in manifest.REPRESENTATIVE)
    manifest.write_hostile(folder, honest, chosen)
    return folder


def test_every_case_has_a_name_of_its_own() -> None:
    assert len(CASES) == len(manifest.CASES)
    assert known_gaps.KNOWN.keys() <= CASES.keys()


@pytest.mark.usefixtures("server_for_children")
@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.name)
def test_case(case: Case, folder: Path) -> None:
    # The chosen hostile files need no limits.
    found = calls.find_isolated(case, folder, calls.in_process) if case.isolated else calls.find(case, folder)
    assert not differences(case, found), found.text


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (Found(0, "numeric: a"), ""),
        (Found(None, ""), "did not end"),
        (Found(2, "hallmark: no", failed=1), "exit code 2, expected 0"),
        (Found(0, "numeric: b"), "lacks /numeric: a/"),
        (Found(0, "numeric: a\nfinding"), "has /finding/"),
        (Found(0, "numeric: a\n\x1b[31m"), "control character"),
        (Found(1, "numeric: a\nhallmark: unexpected KeyError: 'x'", failed=1), "unexpected KeyError"),
        (Found(0, "numeric: a", failed=1), "1 commands failed, with 0 lines"),
        (Found(0, "numeric: a", predictions=[], compared=[{"class": "x"}]), "0 rows predicted, expected 1"),
        (
            Found(0, "numeric: a", 0, [{"class": "x", "p_x": "0.5"}], [{"class": "x", "p_x": "0.6"}]),
            "1 rows predicted differently",
        ),
    ],
)
def test_differences_are_found(found: Found, wrong: str) -> None:
    case = Case("", "", "", has=("numeric: a",), lacks=("finding",))
    assert wrong in "; ".join(differences(case, found))
    assert bool(differences(case, found)) == bool(wrong)
    assert not CONTROL.search(found.summary)
