from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import Column
from hallmark.tasks.ml.config.data import Table
from hallmark.tasks.ml.data.dataset_store import prepare
from hallmark.tasks.ml.data.source_rows import SourceRows
from hallmark.tasks.ml.data.tables import reader
from tests.support import owned

NAN = float("nan")


def read(path: Path, **given: object) -> SourceRows:
    return reader.read(Table.model_validate({"kind": "table", "path": str(path), "target": "t"} | given))


def csv(folder: Path, *columns: str) -> Path:
    """Write a table of these columns and the target `t`. Each is `name: value value ...`, `-` if missing."""
    named = [column.split(":") for column in (*columns, "t: x y x y")]
    fields = [["" if field == "-" else field for field in text.split()] for _, text in named]
    lines = [",".join(name for name, _ in named), *map(",".join, zip(*fields, strict=True))]
    path = folder / "x.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def stored(folder: Path, **columns: object) -> Path:
    path = folder / "x.parquet"
    parquet.write_table(pa.table({"t": ["x", "y", "x", "y"]} | columns), path)
    return path


def column_of(table: SourceRows, index: int = 0) -> tuple[Column, list[float]]:
    return table.table_columns[index], table.x[:, index].tolist()


@pytest.mark.parametrize(
    ("text", "kind", "values", "x"),
    [
        ("1 2.5 - +4e0", "numeric", (), [1, 2.5, NAN, 4]),
        ("1 0 1 0", "numeric", (), [1, 0, 1, 0]),
        ("0.75 08.5 9 -0", "numeric", (), [0.75, 8.5, 9, 0]),
        ("0501 501 - 501", "categorical", ("0501", "501"), [0, 1, NAN, 1]),
        ("- NA nan null", "numeric", (), [NAN, NAN, NAN, NAN]),
        ("true FALSE True -", "boolean", (), [1, 0, 1, NAN]),
        ("true false yes no", "categorical", ("false", "no", "true", "yes"), [2, 0, 3, 1]),
        ("b a b -", "categorical", ("a", "b"), [1, 0, 1, NAN]),
        ("a a a a", "categorical", ("a",), [0, 0, 0, 0]),
        ("1 2 3 x", "categorical", ("1", "2", "3", "x"), [0, 1, 2, 3]),
        ("0x1A 1_0 1 2", "categorical", ("0x1A", "1", "1_0", "2"), [0, 2, 1, 3]),
    ],
)
def test_the_kind_of_a_column_is_inferred_from_its_values(
    text: str, kind: str, values: tuple[str, ...], x: list[float], tmp_path: Path
) -> None:
    column, found = column_of(read(csv(tmp_path, f"a: {text}")))
    assert (column.name, column.kind, column.values) == ("a", kind, values)
    assert column.missing == np.isnan(x).sum()
    np.testing.assert_array_equal(found, x)


@pytest.mark.parametrize(
    ("text", "given", "kind", "x", "strange"),
    [
        ("1,5 2.000 - -3,25", {"decimal": ","}, "numeric", [1.5, 2000, NAN, -3.25], 0),
        ("1,5 2.5 3 4", {"decimal": ",", "columns": {"a": "numeric"}}, "numeric", [1.5, NAN, 3, 4], 1),
        ("$1,234 $5 - ?", {"columns": {"a": "numeric"}}, "numeric", [1234, 5, NAN, NAN], 1),
        ("0501 501 - 7", {"columns": {"a": "numeric"}}, "numeric", [501, 501, NAN, 7], 0),
        ("1 2 ? -", {"missing": "?"}, "numeric", [1, 2, NAN, NAN], 0),
        ("NA DE - NA", {"missing": ""}, "categorical", [1, 0, NAN, 1], 0),
        ("Yes yes YES. no", {"spellings": "joined"}, "categorical", [1, 1, 1, 0], 0),
        ("1.0 x 1 x", {"spellings": "joined"}, "categorical", [0, 1, 0, 1], 0),
    ],
)
def test_options_say_how_values_are_written(
    text: str, given: dict[str, object], kind: str, x: list[float], strange: int, tmp_path: Path
) -> None:
    path = stored(tmp_path, a=["" if field == "-" else field for field in text.split()])
    column, found = column_of(read(path, **given))
    assert (column.kind, column.strange) == (kind, strange)
    np.testing.assert_array_equal(found, x)


@pytest.mark.parametrize(
    ("column", "counts", "exact"),
    [
        (["20310301", "20310302", "20310303", "20310304"], (0, 0), [20310301, 20310302, 20310303, 20310304]),
        (["1700000000", "1700000030.0", "1700000030", "?"], (0, 0), [1700000000, 1700000030, 1700000030, NAN]),
        (["1,700,000,000 $", "1,700,000,030 $", "?", "5 $"], (0, 0), [1700000000, 1700000030, NAN, 5]),
        (pa.array([1.7e9, None, 1.7e9 + 30, 1.75e9]), (0, 0), [1.7e9, NAN, 1.7e9 + 30, 1.75e9]),
        (pa.array([5e8 + 0.1, 5e8 + 0.2, 5e8, 5e8]), (0, 0), [5e8 + 0.1, 5e8 + 0.2, 5e8, 5e8]),
        ([str(10**18 + by) for by in (0, 128, 256, 300)], (4, 3), [1e18, 1e18 + 128, 1e18 + 256, 1e18 + 256]),
        (pa.array([2**60, 2**60 + 1, 2**60, 2**60 + 1]), (2, 1), None),
        (pa.array([1, 10**9, 2 * 10**9, 3]), (0, 0), None),
        (pa.array([0.1, 0.1 + 1e-12, 5.0, 1e9]), (0, 0), None),
        (pa.array([16777217.0, 16777217, 16777217, 16777217]), (0, 0), None),
    ],
)
def test_numbers_that_are_one_in_float32_stay_float64_and_are_counted_if_that_does_not_help(
    column: object, counts: tuple[int, int], exact: list[float] | None, tmp_path: Path
) -> None:
    table = read(stored(tmp_path, a=column), columns={"a": "numeric"})
    described, found = column_of(table)
    assert (described.distinct, described.merged, described.wide) == (*counts, exact is not None)
    assert table.x.dtype == (np.float64 if exact else np.float32)
    if exact:
        np.testing.assert_array_equal(found, exact)


def test_classes_that_differ_by_spelling_can_be_joined(tmp_path: Path) -> None:
    path = stored(tmp_path, t=["1", "01", "1", "2.0"], a=[1, 2, 3, 4])
    assert read(path).classes == ("01", "1", "2.0")
    assert read(path, spellings="joined").classes == ("1", "2.0")
    path = stored(tmp_path, t=["NA", "EU", "EU", ""], a=[1, 2, 3, 4])
    table = read(path, missing="")
    assert (table.classes, table.unlabelled, table.unlabelled_as) == (("EU", "NA"), 1, "")


@pytest.mark.parametrize(
    ("text", "kind", "values", "x"),
    [
        ("01 1 01 -", "categorical", ("01", "1"), [0, 1, 0, NAN]),
        ("1 0 1.0 -", "boolean", (), [1, 0, 1, NAN]),
        ("1 2 ? x", "numeric", (), [1, 2, NAN, NAN]),
    ],
)
def test_the_kind_of_a_column_can_be_given(
    text: str, kind: str, values: tuple[str, ...], x: list[float], tmp_path: Path
) -> None:
    column, found = column_of(read(csv(tmp_path, f"a: {text}"), columns={"a": kind}))
    assert (column.kind, column.values) == (kind, values)
    np.testing.assert_array_equal(found, x)


def test_values_that_are_not_numbers_are_counted_with_an_example(tmp_path: Path) -> None:
    assert (
        column_of(read(csv(tmp_path, "a: 1 2 3 ?")))[0].strange,
        column_of(read(csv(tmp_path, "a: 1 2 3 ?")))[0].example,
    ) == (
        1,
        "?",
    )
    column = column_of(read(csv(tmp_path, "a: 1 ? - x"), columns={"a": "numeric"}))[0]
    assert (column.strange, column.example, column.missing) == (2, "?", 1)
    assert column_of(read(csv(tmp_path, "a: 1 x y z")))[0].strange == 0


@pytest.mark.parametrize(
    ("column", "kind", "text"),
    [
        (pa.array([1.0, 2.5, NAN, None]), "numeric", "1 2.5 - -"),
        (pa.array([True, False, None, True]), "boolean", "true false - true"),
        (pa.array(["b", " a ", "", "NA"]), "categorical", "b a - -"),
        (pa.array(["b", "a", "b", None]).dictionary_encode(), "categorical", "b a b -"),
        (pa.nulls(4), "numeric", "- - - -"),
        (pa.array([1, 2, 3, 4], pa.decimal128(12, 2)), "numeric", "1 2 3 4"),
        (pa.array(np.array([1, 0.5, 2, 4], np.float16)), "numeric", "1 0.5 2 4"),
        (pa.array(["b", "a", "b", "a"], pa.string_view()), "categorical", "b a b a"),
        (pa.array([-0.0, 1.0, 2.0, 3.0]), "numeric", "-0 1 2 3"),
    ],
    ids=["numbers", "booleans", "text", "dictionary", "all missing", "decimal", "half", "view", "minus zero"],
)
def test_parquet_is_read_like_the_same_csv(column: pa.Array, kind: str, text: str, tmp_path: Path) -> None:
    (first, x), (second, y) = column_of(read(stored(tmp_path, a=column))), column_of(read(csv(tmp_path, f"a: {text}")))
    assert first == second
    assert first.kind == kind
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("row_group_size", [1, 1000])
def test_the_same_table_is_the_same_dataset_in_csv_and_parquet(row_group_size: int, tmp_path: Path) -> None:
    table = owned.mixed()
    parquet.write_table(table, tmp_path / "stored.parquet", row_group_size=row_group_size)
    sources = [owned.source(owned.write(table, tmp_path / "stored.csv")), owned.source(tmp_path / "stored.parquet")]
    first, second = (prepare(reader.read(source), source, tmp_path / source.path[-3:]) for source in sources)
    assert first.digest == second.digest
    assert first.kinds == ("numeric", "numeric", "boolean", "categorical")


@pytest.mark.parametrize(
    ("target", "classes", "y"),
    [
        (pa.array(["b", " a", "b", "a"]), ("a", "b"), [1, 0, 1, 0]),
        (pa.array([10, 9, -1, 9]), ("-1", "9", "10"), [2, 1, 0, 1]),
        (pa.array(["10", "9", "9", "10"]), ("9", "10"), [1, 0, 0, 1]),
        (pa.array(["1.0", "0.0", "1.0", "0.0"]), ("0", "1"), [1, 0, 1, 0]),
        (pa.array([1.0, 0.0, 1.0, 0.0]), ("0", "1"), [1, 0, 1, 0]),
        (pa.array(["True", "False", "true", "False"]), ("false", "true"), [1, 0, 1, 0]),
        (pa.array([True, False, True, False]), ("false", "true"), [1, 0, 1, 0]),
        (pa.array([0.5, 0.25, 0.5, 0.25]), ("0.25", "0.5"), [1, 0, 1, 0]),
        (pa.array([" x", "y", "x", "y"]).dictionary_encode(), ("x", "y"), [0, 1, 0, 1]),
        (pa.array([">50K", "<=50K", ">50K", "日 本"]), ("<=50K", ">50K", "日 本"), [1, 0, 1, 2]),
    ],
)
def test_classes_are_sorted_and_normalized(
    target: pa.Array, classes: tuple[str, ...], y: list[int], tmp_path: Path
) -> None:
    table = read(stored(tmp_path, t=target, a=[1, 2, 3, 4]))
    assert table.classes == classes
    assert table.y.tolist() == y


@pytest.mark.parametrize("gap", [None, NAN])
def test_rows_without_a_label_are_left_out_and_counted(gap: float | None, tmp_path: Path) -> None:
    table = read(stored(tmp_path, t=pa.array([1.0, gap, 0.0, 1.0]), a=["p", "only there", "q", "p"]))
    assert (table.classes, table.unlabelled, table.y.tolist()) == (("0", "1"), 1, [1, 0, 1])
    assert column_of(table)[0].values == ("p", "q")


def test_a_column_to_split_by_is_not_an_input(tmp_path: Path) -> None:
    path = csv(tmp_path, "a: 1 2 3 4", "g: p q p r", "d: 2026-01-02 2025-12-31 2026-01-02 2024-02-29", "n: 10 9 2 10")
    ignored = {"ignore": "g,d,n"}
    by_group = read(path, split={"group": "g"}, ignore="d,n")
    assert (by_group.columns, by_group.split_key is not None and by_group.split_key.tolist()) == (("a",), [0, 1, 0, 2])
    for time, ranks in (("d", [2, 1, 2, 0]), ("n", [2, 1, 0, 2])):
        table = read(path, split={"time": time}, **ignored)
        assert (table.columns, table.split_key is not None and table.split_key.tolist()) == (("a",), ranks)
    path = csv(tmp_path, "a: 1 2 3 4", "s: test train validation train")
    table = read(path, split={"column": "s"})
    assert table.split_key is not None
    assert table.split_key.tolist() == [2, 0, 1, 0]


@pytest.mark.parametrize(
    ("texts", "ranks"),
    [
        (["31/01/2030", "01/02/2030", "30/12/2029", "01/02/2030"], [1, 2, 0, 2]),
        (["12/31/2029 10:30", "01/02/2030 00:00", "12/31/2029 09:30", "02/01/2030 00:00"], [1, 2, 0, 3]),
        (["30-01-31", "29-12-30", "30-02-01", "31-02-28"], [1, 0, 2, 3]),
        (["2030-02", "2029-12", "2031-01", "2030-02"], [1, 0, 2, 1]),
        (["2 Feb 2030", "31 Jan 2030", "1 Dec 2029", "2 Feb 2030"], [2, 1, 0, 2]),
        (["Feb 2030", "Jan 2030", "Dec 2029", "Mar 2031"], [2, 1, 0, 3]),
        (["09.02.2030", "10.02.2030", "08.02.2030", "10.02.2030"], [1, 2, 0, 2]),  # the same order either way
    ],
    ids=["day first", "month first", "year of two digits", "month", "written", "written month", "unclear"],
)
def test_rows_are_ordered_by_dates_of_any_form(texts: list[str], ranks: list[int], tmp_path: Path) -> None:
    table = read(stored(tmp_path, a=[1, 2, 3, 4], g=texts), split={"time": "g"})
    assert table.split_key is not None
    assert table.split_key.tolist() == ranks


@pytest.mark.parametrize(
    ("columns", "given", "message"),
    [
        (["a: 1 2 3 4"], {"target": "zzz"}, "--target: there is no column 'zzz': the columns are a, t"),
        (["age: 1 2 3 4"], {"ignore": "agee"}, "--data.ignore: there is no column 'agee': did you mean 'age'?"),
        (["age: 1 2 3 4"], {"columns": {"agee": "numeric"}}, "--data.columns.agee: there is no column 'agee'"),
        (["age: 1 2 3 4"], {"split": {"group": "agee"}}, "--data.split.group: there is no column 'agee'"),
        (["a: 1 2 3 4"], {"ignore": "a"}, "no input column is left besides the target 't'"),
        ([], {}, "no input column is left"),
        (["a: p q p q", "t2: x x x x"], {"target": "t2"}, "target 't2': expected at least two classes, found only 'x'"),
        (
            ["a: p q p q", "t2: - - - NA"],
            {"target": "t2"},
            "target 't2': expected at least two classes, found no value: if 'NA' is a class .*, add --data.missing ''",
        ),
        (["a: p q p q", "t2: 1 2 3 4"], {"target": "t2"}, "target 't2': .* found 4 different values in 4 rows"),
        (
            ["a: 2026-01-01 2026-01-02 - 2026-01-03"],
            {},
            "column 'a': .* found dates: .* --data.split.time a; .* --data.columns.a categorical",
        ),
        (
            ["a: 9.2.2026 2.9.2026 - -"],
            {},
            "found dates: to learn from .*: --data.columns.a date; or .* --data.ignore a; or treat each as",
        ),
        (
            ["a: 1 inf 3 -1e39"],
            {},
            "row 2, column 'a': expected a finite number .*, found inf: .* leave the column out: --data.ignore a",
        ),
        (
            ["a: yes no maybe no"],
            {"columns": {"a": "boolean"}},
            "row 3, column 'a': expected true or false .* found 'maybe'",
        ),
        (["a: 1 0 2 -"], {"columns": {"a": "boolean"}}, "row 3, column 'a': expected true or false .* found '2'"),
        (["label: 1 2 3 4"], {}, "column 'label' has a name that the exported model uses itself"),
        (
            ["encoding/features: 1 2 3 4"],
            {},
            "column 'encoding/features' has a name that the exported model uses",
        ),
        (["network/linear: 1 2 3 4"], {}, "rename the column, or leave it out: --data.ignore network/linear"),
        (
            ["a: 1 2 3 4", "g: p - p q"],
            {"split": {"group": "g"}},
            "row 2, column 'g': expected a value to split by, found none: .* --data.split.group g",
        ),
        (
            ["a: 1 2 3 4", "g: p q p q"],
            {"split": {"time": "g"}},
            "row 1, column 'g': expected numbers, or dates such as 2026-11-30, found 'p'",
        ),
        (
            ["a: 1 2 3 4", "g: train dev test test"],
            {"split": {"column": "g"}},
            "row 2, column 'g': expected train, validation or test, found 'dev'",
        ),
    ],
)
def test_invalid_csv_tables_are_refused(
    columns: list[str], given: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = csv(tmp_path, *columns)
    with pytest.raises(InputError, match=message) as refused:
        read(path, **given)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("columns", "given", "message"),
    [
        (
            {"a": [[1], [2], [3], [4]]},
            {},
            "column 'a': expected .*, found type list<.*>: leave the column out: --data.ignore a",
        ),
        ({"a, b": [b"1", b"2", b"3", b"4"]}, {}, """--data.ignore '"a, b"'"""),
        ({"a": pa.array([1, 2, 3, 4], pa.timestamp("s"))}, {}, "column 'a': .* found dates: .* --data.columns.a date;"),
        ({"a": pa.array([1, 2, 3, 4], pa.time32("s"))}, {}, "column 'a': .* found dates: convert them to numbers"),
        ({"a": [1, 2, 3, 4], "t": [[1], [2], [3], [4]]}, {}, "column 't': .* found type list<.*>"),
        (
            {"a": [1, 2, 3, 4], "g": [1.0, NAN, 1.0, 2.0]},
            {"split": {"group": "g"}},
            "row 2, column 'g': expected a value to split by",
        ),
        ({"a": [1, 2, 3, 4], "g": [[1], [2], [3], [4]]}, {"split": {"time": "g"}}, "column 'g': .* found type list"),
        (
            {"a": [1, 2, 3, 4], "g": pa.array(["9/2/2026", "2/9/2026"] * 2).dictionary_encode()},
            {"split": {"time": "g"}},
            "expected numbers, or dates such as 2026-11-30, of which day and month can be told apart, found '9/2/2026'",
        ),
    ],
)
def test_invalid_parquet_tables_are_refused(
    columns: dict[str, object], given: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        read(stored(tmp_path, **columns), **given)
