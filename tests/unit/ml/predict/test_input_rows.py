import os
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.data.tables.formats import csv_file
from hallmark.tasks.ml.predict import input_rows
from tests.support.prediction_rows import GREY, TWO, read, refused, save, write


def test_csv_columns_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    rows, feeds = read(write(tmp_path / "x.csv", '\ufeffb,a\n1,2\n"3", 4.5e0 \n-.5,+7\n'))
    assert rows == [1, 2, 3]
    assert {name: value.tolist() for name, value in feeds.items()} == {"a": [[2], [4.5], [7]], "b": [[1], [3], [-0.5]]}
    assert all(value.dtype == np.float32 for value in feeds.values())


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_read_in_many_blocks_gives_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    values = np.random.default_rng(0).normal(size=(2000, 2)).astype(np.float32)
    text = end.join(["", "a,b", *(f"{a},{b}" for a, b in values)])
    monkeypatch.setattr(csv_file, "_BLOCK", 512)
    rows, feeds = read(write(tmp_path / "x.csv", text))
    assert rows == list(range(1, 2001))
    np.testing.assert_array_equal(np.hstack([feeds["a"], feeds["b"]]), values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,x\n", r"x\.csv: row 2, column 'b': expected a finite number within float32, found 'x'"),
        ("a,b\n1,2\n3,1_000\n", "row 2, column 'b': .* found '1_000'"),
        ("a,b\n1,2\n,4\n", "row 2, column 'a': .* found nothing"),
        ("a,b\n1,2\nNA,4\n", "row 2, column 'a': .* found 'NA'"),
        ("a,b\n1,2\nnan,4\n", "row 2, column 'a': .* found nan"),
        ("a,b\n1,2\n4,inf\n", "row 2, column 'b': .* found inf"),
        ("a,b\n1,2\n4,-1e39\n", r"row 2, column 'b': .* found -1e\+39"),
        ("a,b\n1,2\n3\n", "x.csv: row 2: expected 2 fields as in the heading, found 1"),
        ("a,b\n1,2\n3,4,5\n", "x.csv: row 2: expected 2 fields as in the heading, found 3"),
        ("a,c,d\n1,2,3\n", "expected the columns a, b; missing: 'b'; unexpected: 'c', 'd'"),
        ("1,2\n3,4\n", "missing: 'a', 'b'; unexpected: '1', '2'"),
        ("a,b,b\n1,2,3\n", "duplicated: 'b'"),
        ("a;b\n1;2\n", "missing: 'a', 'b'; unexpected: 'a;b'"),
        ("a,b\n", "x.csv: has no rows"),
        ("a,b", "x.csv: has no rows"),
        ("\n\r\na,b\n1,2\n3,x\n", "row 2, column 'b'"),
        ("a,b\n" + "1" * 3_000_000, "x.csv: has a line of more than 1,048,576 bytes"),
        ("", "x.csv: has no heading: expected the column names in the first line"),
    ],
)
def test_invalid_csv_is_refused_with_row_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / "x.csv", text))


def test_the_row_is_counted_over_all_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "_BLOCK", 512)
    lines = ["a,b", *(f"{row},{row}" for row in range(1, 5001))]
    lines[4321] = "4321,four"
    assert "row 4321, column 'b': " in refused(write(tmp_path / "x.csv", "\n".join(lines)))
    lines[4320] = "4320"
    assert "row 4320: expected 2 fields" in refused(write(tmp_path / "x.csv", "\n".join(lines)))


def test_csv_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("a,b\n1,2\n3,ä\n".encode("latin-1"))
    assert "x.csv: line 3: expected UTF-8, found byte 0xe4 at offset 10: " in refused(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_bytes("a,b\n1,2\n".encode("utf-16"))
    assert "iconv -f utf-16" in refused(tmp_path / "x.csv")


def test_parquet_numbers_of_any_type_are_read(tmp_path: Path) -> None:
    kinds = [
        pa.array([1, 2, 3], pa.int8()),
        pa.array([1, 2, 3], pa.uint64()),
        pa.array([1.0, 2.0, 3.0], pa.float64()),
        pa.array(np.array([1, 2, 3], np.float16)),
        pa.array([Decimal(1), Decimal(2), Decimal(3)]),
    ]
    for kind in kinds:
        rows, feeds = read(save(tmp_path / "x.parquet", b=kind, a=pa.array([0.5, 0.25, 0.125], pa.float32())))
        assert rows == [1, 2, 3]
        assert feeds["a"].tolist() == [[0.5], [0.25], [0.125]]
        assert feeds["b"].tolist() == [[1], [2], [3]]
        assert feeds["b"].dtype == np.float32


def test_parquet_is_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_rows, "NUMBERS_AT_ONCE", 200)
    values = np.arange(1050, dtype=np.float32)
    parquet.write_table(pa.table({"a": values, "b": -values}), tmp_path / "x.parquet", row_group_size=400)
    batches = list(input_rows.open_source(str(tmp_path / "x.parquet"), TWO).batches)
    assert max(len(batch.rows) for batch in batches) == 100
    np.testing.assert_array_equal(np.concatenate([batch.feeds["b"] for batch in batches]), -values[:, None])
    assert batches[-1].rows[-1] == 1050


@pytest.mark.parametrize(
    ("b", "message"),
    [
        (pa.array([1.0, None]), "row 2, column 'b': .* found null"),
        (pa.array([1.0, np.nan]), "row 2, column 'b': .* found nan"),
        (pa.array([1.0, 1e39]), r"row 2, column 'b': .* found 1e\+39"),
        (pa.array(["1", "2"]), r"row 1, column 'b': .* found '1' \(type string\)"),
        (pa.array([True, False]), r"row 1, column 'b': .* found True \(type bool\)"),
        (pa.array([], pa.float32()), "has no rows"),
    ],
)
def test_invalid_parquet_is_refused_with_row_and_column(tmp_path: Path, b: pa.Array, message: str) -> None:
    a = pa.array(np.zeros(len(b), np.float32))
    with pytest.raises(InputError, match=message):
        read(save(tmp_path / "x.parquet", a=a, b=b))


def test_damaged_parquet_and_other_columns_are_refused(tmp_path: Path) -> None:
    assert "x.parquet: cannot be read as Parquet" in refused(write(tmp_path / "x.parquet", "a,b\n1,2\n"))
    assert "cannot be read as Parquet" in refused(write(tmp_path / "x.parquet", ""))
    assert "missing: 'b'; unexpected: 'c'" in refused(save(tmp_path / "x.parquet", a=[1.0], c=[2.0]))
    whole = save(tmp_path / "x.parquet", a=np.arange(9999.0), b=np.arange(9999.0)).read_bytes()
    (tmp_path / "x.parquet").write_bytes(whole[:2000] + bytes(5000) + whole[7000:])
    assert "cannot be read as Parquet" in refused(tmp_path / "x.parquet")


@pytest.mark.parametrize("dtype", ["float32", "float64", ">f8", "int64", "uint8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_columns_is_read_in_the_models_order(tmp_path: Path, dtype: str, order: str) -> None:
    np.save(tmp_path / "x.npy", np.array([[1, 2], [3, 4], [5, 6]], dtype=dtype, order=order))  # type: ignore[call-overload]
    rows, feeds = read(tmp_path / "x.npy")
    assert rows == [1, 2, 3]
    assert feeds["a"].tolist() == [[1], [3], [5]]
    assert feeds["b"].tolist() == [[2], [4], [6]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3)), r"expected shape \(N, 2\), the columns a, b in this order, found \(2, 3\)"),
        (np.zeros(2), r"found \(2,\)"),
        (np.zeros(()), r"found \(\)"),
        (np.zeros((0, 2)), "has no rows"),
        (np.array([["1", "2"]]), r"row 1, column 'a': .* found .*'1'"),
        (np.array([[1, 2], [3, np.inf]]), "row 2, column 'b': .* found inf"),
        (np.array([[1, None]]), "cannot be read as .npy"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(tmp_path: Path, array: NDArray[np.generic], message: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "x.npy")


def test_a_file_that_is_not_an_array_is_refused(tmp_path: Path) -> None:
    assert "cannot be read as .npy" in refused(write(tmp_path / "x.npy", "a,b\n"))
    assert "cannot be read as .npy" in refused(write(tmp_path / "x.npy", ""))
    np.save(tmp_path / "x.npy", np.zeros((100, 2)))
    os.truncate(tmp_path / "x.npy", 500)
    assert "cannot be read as .npy" in refused(tmp_path / "x.npy")


def test_a_source_that_the_model_cannot_take_is_refused(tmp_path: Path) -> None:
    Image.new("L", (4, 3)).save(tmp_path / "x.png")
    assert "x.png: the model takes a table with the columns a, b, not images" in refused(tmp_path / "x.png")
    assert "the model takes a table" in refused(tmp_path)
    message = "x.csv: is a table, but the model takes grey images of 3 x 4 pixels"
    assert message in refused(write(tmp_path / "x.csv", "a,b\n1,2\n"), GREY)
    assert "nowhere.csv: there is no such file or folder" in refused(tmp_path / "nowhere.csv")
    assert "expected a file that ends in .csv, .tsv, .jsonl, .ndjson, .xlsx, .parquet, .npy, .png" in refused(
        write(tmp_path / "x.txt", "a,b\n1,2\n")
    )
