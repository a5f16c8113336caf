"""Findings on values that lose their meaning by how they are written, or by the precision of float32."""

from shlex import quote

import pyarrow as pa

from hallmark.tasks.common.records import Column, Finding
from hallmark.tasks.ml.config.data import ignoring
from hallmark.tasks.ml.data.tables import spelling
from hallmark.tasks.ml.data.tables.date_columns import date_reading
from hallmark.tasks.ml.data.tables.values import Location
from hallmark.tasks.ml.evaluation.findings.examined import ExaminedColumn, ExaminedTable

NAMED = 5
"""Values that a finding names."""
BOOLEANS = ({"yes", "no"}, {"y", "n"}, {"t", "f"}, {"on", "off"})
"""Pairs of words for true and false, in lower case, that a column may hold as categories."""


def rounded_numbers(examined: ExaminedColumn) -> Finding | None:
    """Find numbers that the model cannot tell apart: they become equal in float32, even after a subtraction."""
    column = examined.column
    if not column.distinct:
        return None
    name, kept = quote(column.name), examined.table.data.categories
    codes = f"if they are codes: --data.columns.{name} categorical; if not, " if column.distinct <= kept else ""
    return Finding(
        "rounded_numbers",
        f"column '{column.name}' has {column.distinct:,} different values, but only {column.merged:,} of them differ "
        "in float32, which the model computes in, even after a subtraction in float64: it cannot tell the others apart",
        f"{codes}write smaller numbers into the file, or leave the column out: {ignoring(column.name)}",
    )


def spelt_numbers(examined: ExaminedColumn) -> Finding | None:
    """Find columns that are treated as categories only because of how their numbers or dates are written."""
    column = examined.column
    looks, example = column.looks, column.example
    grouped = [value for value in column.values if spelling.has_underscores(value)]
    if 2 * len(grouped) > len(column.values) and column.name not in examined.table.data.columns:
        looks, example = "numbers", grouped[0]
    such, name = f"such as '{example}'", quote(column.name)
    match looks:
        case "numbers":
            return Finding(
                "numbers_as_text",
                f"column '{column.name}' holds numbers with separators, units or signs, {such}: each is treated as a "
                "category",
                f"to read them as numbers: --data.columns.{name} numeric",
            )
        case "decimal comma":
            return Finding(
                "numbers_as_text",
                f"column '{column.name}' holds numbers with a decimal comma, {such}: each is treated as a category",
                "--data.decimal ,",
            )
        case "dates":
            return Finding(
                "dates_as_text",
                f"column '{column.name}' holds dates or times, {such}: each is treated as a category",
                f"{_as_dates(column)}, or leave the column out: {ignoring(column.name)}",
            )
        case "codes":
            return Finding(
                "leading_zeros",
                f"column '{column.name}' has values with leading zeros, {such}: they are treated as codes, each a "
                "category of its own",
                f"if they are amounts: --data.columns.{name} numeric",
            )
    return None


def _as_dates(column: Column) -> str:
    """Return how a column can be taken as dates: by an option, if each value can be read."""
    if date_reading.can_read(pa.array(column.values), Location("", column.name, range(len(column.values)))):
        return f"to learn from year, month, day of the week and hour: --data.columns.{quote(column.name)} date"
    return "write dates as YYYY-MM-DD, and numbers for other times"


def same_values(examined: ExaminedColumn) -> Finding | None:
    """Find values of a column that differ by their spelling only."""
    groups = spelling.alike(examined.column.values)
    if not groups:
        return None
    return Finding(
        "spellings_of_one_value",
        f"column '{examined.column.name}' has values that differ by their spelling only, such as "
        f"{_listed(groups[0])}: "
        f"{len(groups):,} values have several spellings, each a category of its own",
        "correct them in the file, or join them: --data.spellings joined",
    )


def _listed(values: list[str]) -> str:
    return " and ".join(f"'{value}'" for value in values[:NAMED])


def missing_code(examined: ExaminedColumn) -> Finding | None:
    """Find a code such as NA, Namibia's, that is taken for a missing value."""
    column = examined.column
    if not column.takes_na:
        return None
    return Finding(
        "code_taken_as_missing",
        f"column '{column.name}' holds codes of two letters, such as '{column.values[-1]}', and NA counts as a missing "
        f"value: {column.missing:,} values are missing",
        "if NA is a code: --data.missing ''",
    )


def same_classes(table: ExaminedTable) -> Finding | None:
    """Find classes that differ by their spelling only."""
    groups = spelling.alike(table.dataset.classes, zeros=True)
    if not groups:
        return None
    return Finding(
        "spellings_of_one_class",
        f"classes differ by their spelling only, such as {_listed(groups[0])}: each is predicted as a class of its own",
        "--data.spellings joined",
    )


def spelt_booleans(examined: ExaminedColumn) -> Finding | None:
    """Find columns that hold two words for true and false, other than these two."""
    column = examined.column
    if column.kind != "categorical" or {value.lower() for value in column.values} not in BOOLEANS:
        return None
    return Finding(
        "booleans_as_text",
        f"column '{column.name}' holds {_listed(list(column.values))}: each is treated as a category, so that other "
        "spellings, such as true, are unknown",
        f"to read them as booleans: --data.columns.{quote(column.name)} boolean",
    )
