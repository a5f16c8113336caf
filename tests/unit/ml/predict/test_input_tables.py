from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hallmark.tasks.ml.artifact.certificate import Input
from hallmark.tasks.ml.data.tables.formats import csv_file
from hallmark.tasks.ml.predict import input_rows
from tests.support.prediction_rows import read, refused, save, write

OWN = (
    Input("n", "float32", (1,), 0, 9, "", "numeric"),
    Input("b", "float32", (1,), 0, 1, "", "boolean"),
    Input("t", "string", (1,), None, None, "", "categorical", ("x", "NA?")),
)


def test_missing_values_booleans_and_text_of_an_own_table_are_read(tmp_path: Path) -> None:
    text = ' n ,t,more,b\n1, x ,5,TRUE\n NA ,"NA",,\n-0,"say ""x""",z,0\n,é,,1.0\n'
    source = input_rows.open_source(str(write(tmp_path / "x.csv", text)), OWN)
    (batch,) = source.batches
    assert source.left_out == ["more"]
    np.testing.assert_array_equal(batch.feeds["n"].ravel(), [1, np.nan, 0, np.nan])
    np.testing.assert_array_equal(batch.feeds["b"].ravel(), [1, np.nan, 0, 1])
    assert batch.feeds["t"].ravel().tolist() == ["x", "", 'say "x"', "é"]


def test_dates_and_wide_numbers_are_read_exactly_from_text_arrow_types_and_arrays(tmp_path: Path) -> None:
    inputs = Input("d", "float64", (1,), 0, 9, "", "date"), Input("w", "float64", (1,), 0, 9, "", "numeric")
    seconds, wide = [0.0, np.nan, 1_709_208_000.5], [1_700_000_001.0, 2.0**53 - 1, np.nan]
    text = "d,w\n1970-01-01,1700000001\n NA ,9007199254740991\n2024-02-29T13:00:00.5+01:00,\n"
    times = pa.array([0, None, 1_709_208_000_500], pa.timestamp("ms"))
    np.save(tmp_path / "x.npy", np.array([seconds, wide]).T)
    paths = write(tmp_path / "x.csv", text), save(tmp_path / "x.parquet", d=times, w=pa.array(wide)), tmp_path / "x.npy"
    for path in paths:
        found = read(path, inputs)[1]
        assert {value.dtype for value in found.values()} == {np.dtype(np.float64)}
        np.testing.assert_array_equal(np.hstack([found["d"], found["w"]]), np.array([seconds, wide]).T)
    assert "row 2, column 'd': expected a date such as 2026-11-30" in refused(
        write(tmp_path / "y.csv", "d,w\n1,1\n30.11.2026,1\n"), inputs
    )


def test_text_in_a_numeric_column_counts_as_missing_if_it_did_in_training(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "n,b,t\n1,1,x\n?,0,x\n2.5,0,?\n")
    assert "row 2, column 'n'" in refused(path, OWN)
    source = input_rows.open_source(str(path), (replace(OWN[0], mixed=True), *OWN[1:]))
    (batch,) = source.batches
    np.testing.assert_array_equal(batch.feeds["n"].ravel(), [1, np.nan, 2.5])
    assert batch.feeds["t"].ravel().tolist() == ["x", "x", "?"]
    assert source.not_numbers == {"n": (1, "?")}


@pytest.mark.parametrize(
    ("known", "joined", "texts", "found"),
    [
        (("1", "2.5", "x"), False, ["1.0", "2.50", "1", "X", "01", "1e0"], ["1", "2.5", "1", "X", "01", "1e0"]),
        (("1.0", "2"), False, ["1", "2.0", "1.00"], ["1.0", "2", "1.0"]),
        (("1", "1.0"), False, ["1", "1.0", "1.00"], ["1", "1.0", "1"]),
        (
            ("caf\u00e9", "nai\u0308f"),
            False,
            ["cafe\u0301", "na\u00eff", "CAF\u00c9"],
            ["caf\u00e9", "nai\u0308f", "CAF\u00c9"],
        ),
        (("New York", "1"), True, ["new york ", "NEW  YORK.", "1.0", "Rome"], ["New York", "New York", "1", "Rome"]),
    ],
)
def test_a_number_or_accent_is_the_same_category_however_it_is_spelt(
    known: tuple[str, ...],
    joined: bool,  # noqa: FBT001 - a parameter of the test
    texts: list[str],
    found: list[str],
    tmp_path: Path,
) -> None:
    one = replace(OWN[2], values=known, joined=joined)
    for path in (write(tmp_path / "x.csv", "\n".join(["t", *texts])), save(tmp_path / "x.parquet", t=texts)):
        assert read(path, (one,))[1]["t"].ravel().tolist() == found


def test_numbers_and_missing_values_are_read_as_in_training(tmp_path: Path) -> None:
    inputs = (
        replace(OWN[0], decimal=",", unit="%", mixed=True, missing_text=("?",)),
        replace(OWN[1], missing_text=("?",)),
        replace(OWN[2], missing_text=("?",)),
    )
    path = write(tmp_path / "x.csv", "n;b;t\n1.234,5 %;1;NA\n?;?;?\n1.5;0;x\n7;;\n")
    source = input_rows.open_source(str(path), inputs)
    (batch,) = source.batches
    np.testing.assert_array_equal(batch.feeds["n"].ravel(), [1234.5, np.nan, np.nan, 7])
    np.testing.assert_array_equal(batch.feeds["b"].ravel(), [1, np.nan, 0, np.nan])
    assert batch.feeds["t"].ravel().tolist() == ["NA", "", "x", ""]
    assert source.not_numbers == {"n": (1, "1.5")}
    assert "row 3, column 'n': expected a finite number" in refused(
        path, (replace(inputs[0], mixed=False), *inputs[1:])
    )


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_of_an_own_table_is_found_from_its_heading(tmp_path: Path, separator: str) -> None:
    text = "\n".join(separator.join(line) for line in (["b", "n", "t"], ["true", "2.5", "x"]))
    _, feeds = read(write(tmp_path / "x.csv", text), OWN)
    assert [feeds[name].item() for name in "nbt"] == [2.5, 1, "x"]


def test_parquet_columns_are_read_as_the_same_text(tmp_path: Path) -> None:
    path = save(
        tmp_path / "x.parquet",
        **{" n ": pa.array([1.5, float("nan"), None]), "b": pa.array([True, None, False])},
        t=pa.array(["x", None, " NA "]).dictionary_encode(),
    )
    _, feeds = read(path, OWN)
    np.testing.assert_array_equal(feeds["n"].ravel(), [1.5, np.nan, np.nan])
    np.testing.assert_array_equal(feeds["b"].ravel(), [1, np.nan, 0])
    assert feeds["t"].ravel().tolist() == ["x", "", ""]


def test_numeric_categories_in_parquet_have_the_same_text_in_every_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_rows, "NUMBERS_AT_ONCE", 3)  # a row at a time
    path = save(tmp_path / "x.parquet", n=[1, 2, 3], b=[0, 1, None], t=[1.0, 2.5, 12345678901.0])
    _, feeds = read(path, OWN)
    assert feeds["t"].ravel().tolist() == ["1", "2.5", "12345678901"]


def test_an_array_may_have_missing_values_where_a_table_may(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1, 0], [np.nan, np.nan]]))
    _, feeds = read(tmp_path / "x.npy", OWN[:2])
    np.testing.assert_array_equal(feeds["n"].ravel(), [1, np.nan])
    assert "column 't' is text, which .npy cannot hold" in refused(tmp_path / "x.npy", OWN)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_quoted_field_may_span_lines_and_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    texts = [f'{"y" * (index % 37)},{index}\n"quoted"\n' for index in range(300)]
    quoted = ['"' + text.replace('"', '""') + '"' for text in texts]
    stray = [f'5" pipe {index}' for index in range(300)]  # a quote inside a field does not start quoting
    lines = [f"{index},1,{text}" for index, pair in enumerate(zip(quoted, stray, strict=True)) for text in pair]
    monkeypatch.setattr(csv_file, "_BLOCK", 256)
    rows, feeds = read(write(tmp_path / "x.csv", end.join(['n,"b",t', *lines, ""])), OWN)
    assert len(rows) == 600
    expected = [text.strip() for pair in zip(texts, stray, strict=True) for text in pair]
    assert [text.replace("\r\n", "\n") for text in feeds["t"].ravel()] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n,t\n1,x\n", "missing: 'b'"),
        ("n;t\n1;x\n", "missing: 'b'"),
        ("N,b,t\n1,1,x\n", "missing: 'n'; is 'N' the column 'n'? Rename it"),
        ("n,b,b,t\n1,1,1,x\n", "duplicated: 'b'"),
        ("n,b,t\n1,1,x\nold,1,x\n", "row 2, column 'n': expected a finite number within float32, found 'old'"),
        ("n,b,t\n1e39,1,x\n", "row 1, column 'n': expected a finite number within float32, found 1e+39"),
        ("n,b,t\n1,1,x\n1,maybe,x\n", "row 2, column 'b': expected true or false (or 1 or 0), found 'maybe'"),
        ("n,b,t\n1,0.5,x\n", "row 1, column 'b': expected true or false (or 1 or 0), found '0.5'"),
        ("n,b,t\n1,1,x,2\n", "row 1: expected 3 fields as in the heading, found 4"),
        ("n,b,t\n", "has no rows"),
    ],
)
def test_rows_that_do_not_fit_an_own_table_are_refused(text: str, message: str, tmp_path: Path) -> None:
    assert message in refused(write(tmp_path / "x.csv", text), OWN)


def test_invalid_parquet_booleans_and_nested_types_are_refused(tmp_path: Path) -> None:
    assert "expected true or false (or 1 or 0), found '2'" in refused(
        save(tmp_path / "x.parquet", n=[1], b=[2], t=["x"]), OWN
    )
    assert "column 't': expected text, numbers or booleans, found type list" in refused(
        save(tmp_path / "x.parquet", n=[1], b=[1], t=[[1]]), OWN
    )
    assert "column 'n'" in refused(save(tmp_path / "x.parquet", n=[[1]], b=[1], t=["x"]), OWN)


def test_decimals_and_nan_are_read_as_in_training(tmp_path: Path) -> None:
    path = save(tmp_path / "x.parquet", n=["1", "NAN"], b=[1, 0], t=[Decimal("0.50"), Decimal("3.00")])
    _, feeds = read(path, OWN)
    np.testing.assert_array_equal(feeds["n"].ravel(), [1, np.nan])
    assert feeds["t"].ravel().tolist() == ["0.5", "3"]


def test_columns_without_a_name_are_not_used_as_in_training(tmp_path: Path) -> None:
    assert read(write(tmp_path / "x.csv", ",n,,\n0,1,,\n"), OWN[:1])[1] == {"n": [[1]]}


def test_column_names_are_found_in_any_unicode_form(tmp_path: Path) -> None:
    one = replace(OWN[0], name="pr\u00e9nom")
    assert read(write(tmp_path / "x.csv", "pre\u0301nom\n1\n"), (one,))[1] == {one.name: [[1]]}
    assert "duplicated: 'pr\u00e9nom'" in refused(write(tmp_path / "x.csv", "pre\u0301nom,pr\u00e9nom\n1,2\n"), (one,))


def test_a_point_where_a_decimal_comma_is_expected_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "n\n1\n0.64\n")
    message = "row 2, column 'n': expected a finite number within float32, with ',' before its fraction, found '0.64'"
    assert message in refused(path, (replace(OWN[0], decimal=","),))
