"""All cases, their inputs, and the few that stand for them in the test suite."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.cases import (
    hostile,
    hostile_cases,
    row_cases,
    table_rows,
    table_texts,
    table_values,
    tables,
    text_cases,
    value_cases,
)
from tests.cases.known_gaps import KNOWN
from tests.cases.tables import Files
from tests.support import photographed

_ALL = (*text_cases.CASES, *value_cases.CASES, *row_cases.CASES, *hostile_cases.CASES)
CASES = tuple(replace(case, known=KNOWN.get(case.name, "")) for case in _ALL)

REPRESENTATIVE = (
    "bom_crlf",
    "open_quote",
    "question_mark",
    "blank_number",
    "part_number, as said",
    "target_one_of_two",
    "leak_many",
    "time/iso, time when",
    "drift reordered.csv",
    "drift int_codes.parquet",
    "drift text.csv",
    "hostile truncated",
    "hostile external_escape",
)
"""Names of the cases that are run with the test suite."""

LARGE = (table_rows.sizes,)
"""Groups of large inputs."""
SIDE = 24
"""Height and width in pixels of the picture, and of the images of the honest model."""


def write_tables(folder: Path, *more: Callable[[], Files]) -> None:
    """Write the inputs of the cases of tables; those of `LARGE` only if they are given."""
    tables.write(folder, *table_texts.GROUPS, *table_values.GROUPS, *table_rows.GROUPS, *more)


def write_hostile(folder: Path, honest: Path, names: tuple[str, ...] = tuple(hostile.VERDICTS)) -> None:
    """Write the inputs of cases of hostile files, made from an honest file of a model of `(SIDE, SIDE, 3)` images."""
    shutil.copy(honest, folder / hostile_cases.HONEST)
    picture = photographed.save(folder / hostile_cases.PICTURE, photographed.drawn(0, 0, SIDE, SIDE))
    (folder / hostile_cases.FOLDER).mkdir()
    hostile.write(honest, picture, folder / hostile_cases.FOLDER, names)
