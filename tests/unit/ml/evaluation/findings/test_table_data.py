"""Each finding occurs for a table that has it, and for no other."""

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hallmark.flows.experiments import options, presets
from hallmark.tasks.common.records import Finding
from hallmark.tasks.ml.config.data import Table
from hallmark.tasks.ml.evaluation.findings import table_data
from tests.conftest import prepare
from tests.support import owned

ROWS = 300
IGNORE = "--data.ignore 'the column'"
LABEL = np.random.default_rng(0).choice(["no", "yes"], ROWS)
NOISE = np.random.default_rng(1).normal(size=ROWS)
DRAWN = np.random.default_rng(3).integers(0, 900, ROWS)

Examine = Callable[..., dict[str, Finding]]


@pytest.fixture
def examine(tmp_path: Path) -> Examine:
    """Return a function that gives the findings, by code, for these columns and a column of noise."""

    def run(
        label: object = LABEL, given: dict[str, object] | None = None, tokens: Sequence[str] = (), **columns: object
    ) -> dict[str, Finding]:
        table = pa.table({"noise": NOISE, "x": pa.array(NOISE)} | columns | {owned.TARGET: label})
        path = owned.write(table, tmp_path / "x.parquet")
        data = owned.source(path, **(given or {}) | {"ignore": ["x"]})
        if tokens:
            built = options.experiment(str(path), ["--target", owned.TARGET, *tokens])
            assert isinstance(built.data, Table)
            data = built.data
        return {found.code: found for found in table_data.find(prepare(data, tmp_path), data)}

    return run


def test_a_sound_table_has_no_findings(examine: Examine) -> None:
    rng = np.random.default_rng(2)
    doors = [("2", "3", "4", "5more")[index % 4] for index in rng.integers(0, 4, ROWS)]
    assert (
        examine(
            city=rng.choice(["p", "q"], ROWS),
            truth=rng.random(ROWS) < 0.5,
            few=rng.integers(0, 9, ROWS),
            income=(40_000 + 12_000 * NOISE).astype(int),
            doors=doors,
            country=np.where(rng.random(ROWS) < 0.1, "", rng.choice(["DE", "FR"], ROWS)),
            part=[f"{n % 30 + 10}-{n % 12 + 1}-{n % 70 + 10}" for n in range(ROWS // 2)] * 2,
            when=1_700_000_000 + 30 * DRAWN,
            seen=pa.array(1_700_000_000.0 + 30 * DRAWN, mask=DRAWN < 30),
            flag=3_000_000_000 + DRAWN % 2,
            far=(500_000_000 + NOISE).round(1),
        )
        == {}
    )


def test_times_that_all_differ_are_identifiers_unless_they_are_dates(examine: Examine) -> None:
    day = 1_700_000_000 + np.random.default_rng(4).permutation(ROWS)
    assert list(examine(day=day)) == ["identifier_column"]
    assert examine(given={"columns": {"day": "date"}}, day=day) == {}


def test_all_findings_of_a_column_are_reported_and_the_worst_comes_first(examine: Examine) -> None:
    found = examine(same=["x"] * ROWS, serial=10**18 + np.arange(ROWS), leak=np.char.add("is ", LABEL))
    assert list(found) == ["target_given_away", "rounded_numbers", "identifier_column", "constant_column"]
    assert "column 'serial' has 300 values in 300 rows" in found["identifier_column"].sentence
    assert "column 'same'" in found["constant_column"].sentence


def test_classes_that_differ_by_spelling_are_reported_and_joined(examine: Examine) -> None:
    label = np.where(DRAWN % 2, LABEL, np.char.upper(LABEL))
    found = examine(label)
    assert list(found) == ["spellings_of_one_class"]
    assert "such as 'NO' and 'no'" in found["spellings_of_one_class"].sentence
    assert examine(label, tokens=shlex.split(found["spellings_of_one_class"].remedy)) == {}


def test_a_text_that_counts_as_a_missing_label_is_named_with_its_option(examine: Examine) -> None:
    found = examine(np.where(DRAWN % 3, LABEL, "NA"))
    assert "or a text that counts as missing, 'NA'" in found["missing_labels"].sentence
    assert found["missing_labels"].remedy.endswith("if 'NA' is a class: --data.missing ''")
    assert examine(np.where(DRAWN % 3, LABEL, "NA"), tokens=("--data.missing", "")) == {}


def test_presets_have_no_findings(tmp_path: Path) -> None:
    data = presets.iris().data
    assert table_data.find(prepare(data, tmp_path), data) == ()


@pytest.mark.parametrize(
    ("code", "column", "message", "remedy"),
    [
        ("constant_column", np.full(ROWS, 3.5), "has only one value", IGNORE),
        ("constant_column", pa.nulls(ROWS, pa.float64()), "has no value", IGNORE),
        ("constant_column", ["same"] * ROWS, "has only one value", IGNORE),
        ("identifier_column", np.arange(ROWS)[::-1].copy(), "has 180 values in 180 rows", IGNORE),
        ("identifier_column", [f"id{i}" for i in range(ROWS)], "has 300 values in 300 rows", IGNORE),
        ("target_given_away", np.char.add("is ", LABEL), "alone predicts 'income, a year' in 100 % of rows", IGNORE),
        ("target_given_away", np.where(LABEL == "yes", 1.0, 5.0) + NOISE / 100, "in 100 %", IGNORE),
        ("target_given_away", np.where(LABEL == "yes", np.nan, NOISE), "in 100 %", IGNORE),
        ("mixed_types", [*map(str, range(9)), "?"] * 30, "holds numbers, except for 30 values such as '?'", "numeric"),
        ("mixed_types", [f"{n:.4f}" if n > -1.6 else "-" for n in NOISE], "values such as '-'", "numeric"),
        ("rounded_numbers", 10**18 + DRAWN % 2, "2 different values, but only 1 of them", IGNORE),
        ("rounded_numbers", [str(10**18 + 30 * n) for n in DRAWN], "even after a subtraction in float64", IGNORE),
        ("numbers_as_text", [f"{n:.1f}".replace(".", ",") for n in NOISE], "with a decimal comma", "--data.decimal ,"),
        ("numbers_as_text", [f"${1000 + n:,}" for n in DRAWN], "units or signs, such as '$1,00", "numeric"),
        ("numbers_as_text", [f"{1 + n // 100}_{n % 100:03}" for n in DRAWN], "units or signs, such as '1_0", "numeric"),
        ("booleans_as_text", [("Yes", "no")[n % 2] for n in DRAWN], "holds 'Yes' and 'no'", "boolean"),
        ("dates_as_text", [f"{1 + n % 28} May 2031" for n in DRAWN], "holds dates or times", IGNORE),
        ("leading_zeros", [f"{n:05}" for n in DRAWN % 40], "leading zeros, such as '00000'", "numeric"),
        ("spellings_of_one_value", [("New York", "new york ", "Rome")[n % 3] for n in DRAWN], "spelling", "joined"),
        ("code_taken_as_missing", [("NA", "DE", "FR", "")[n % 4] for n in DRAWN], "NA counts as a missing", "''"),
    ],
)  # fmt: skip
def test_an_unsound_column_is_named_with_its_remedy(
    code: str, column: object, message: str, remedy: str, examine: Examine
) -> None:
    found = examine(**{"the column": column})
    assert list(found) == [code]
    assert f"column 'the column' {message}" in found[code].sentence or message in found[code].sentence
    assert found[code].remedy.endswith(remedy)
    # The remedy, typed as printed, is accepted and works.
    for option in re.findall(r"--data\.columns\.'[^']*' \w+|--data\.\w+ (?:'[^']*'|\S+)", found[code].remedy):
        after = examine(tokens=shlex.split(option), **{"the column": column}).get(code)
        # Texts that the user calls missing are still counted.
        assert after is None or after.sentence.endswith("they are treated as missing"), option


def test_values_that_are_not_numbers_are_counted_in_a_numeric_column(examine: Examine) -> None:
    column = [*map(str, range(9)), "?"] * 30
    found = examine(given={"columns": {"a": "numeric"}}, a=column)
    assert (
        found["mixed_types"].sentence
        == "30 values of column 'a' are not numbers, such as '?': they are treated as missing"
    )


def test_many_categories_are_reported_with_the_number_kept(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_data, "MANY", 50)
    values = [f"{number}x" for number in np.random.default_rng(2).integers(0, 60, ROWS)]
    found = examine(given={"categories": 20}, a=values)
    assert "values: the 20 most frequent are kept, all others are unknown" in found["many_categories"].sentence
    assert found["many_categories"].remedy.endswith("--data.categories 40")


def test_missing_labels_are_counted(examine: Examine) -> None:
    label = LABEL.astype(object)
    label[:7] = None
    found = examine(label)
    assert list(found) == ["missing_labels"]
    assert found["missing_labels"].sentence.startswith("7 rows have no value in 'income, a year'")


@pytest.mark.parametrize("method", ["stratified", "content"])
def test_duplicates_across_splits_are_counted_unless_they_stay_together(method: str, tmp_path: Path) -> None:
    table = pa.table({"a": np.repeat(np.arange(ROWS // 3), 3) * 0.5, owned.TARGET: LABEL})
    data = owned.source(owned.write(table, tmp_path / "x.parquet"), split={"method": method})
    dataset = prepare(data, tmp_path)
    found = {one.code: one for one in table_data.find(dataset, data)}
    if method == "content":
        assert "duplicates_across_splits" not in found
        return
    x = {split: np.load(dataset.folder / f"{split}.x.npy").ravel() for split in ("train", "validation", "test")}
    counts = [int(np.isin(x[split], x["train"]).sum()) for split in ("validation", "test")]
    reported = [
        int(number)
        for number in re.findall(r"(\d+) (?:validation|test) rows", found["duplicates_across_splits"].sentence)
    ]
    # Identical rows within a split count once.
    assert [len(set(x[split]) & set(x["train"])) for split in ("validation", "test")] == reported
    assert all(0 < one <= count for one, count in zip(reported, counts, strict=True))


def test_rare_classes_and_imbalance_are_reported_with_balancing_factors(examine: Examine) -> None:
    label = np.array(["common"] * (ROWS - 8) + ["rare"] * 8)
    found = examine(np.random.default_rng(2).permutation(label))
    assert list(found) == ["rare_classes", "imbalanced_classes"]
    assert "the class rare" in found["rare_classes"].sentence
    assert "class 'common' has 175 training rows and class 'rare' has 5" in found["imbalanced_classes"].sentence
    factors = found["imbalanced_classes"].remedy.rpartition(" ")[2]
    options.experiment("iris", ["--training.loss.weight", f"{factors},1"])  # the option is accepted
    common, rare = map(float, factors.split(","))
    assert common * 175 == pytest.approx(rare * 5, rel=0.01)


def test_a_remedy_can_be_pasted_into_a_shell(examine: Examine) -> None:
    found = examine(**{'a, "b"': ["same"] * ROWS})
    tokens = shlex.split(found["constant_column"].remedy)
    assert owned.source(Path("x.csv"), ignore=tokens[1]).ignore == ('a, "b"',)
