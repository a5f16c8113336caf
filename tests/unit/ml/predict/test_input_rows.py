import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image
from pyarrow import csv, parquet

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.artifact.certificate import Input
from hallmark.tasks.ml.data.tables import csv_file
from hallmark.tasks.ml.predict import input_rows

TWO = (Input("a", "float32", (1,), 0, 1, ""), Input("b", "float32", (1,), 0, 1, ""))
GREY = (Input("image", "uint8", (3, 4), 0, 255, ""),)


def read(path: Path | str, inputs: tuple[Input, ...] = TWO) -> tuple[list[object], dict[str, NDArray[np.generic]]]:
    """Everything there is: rows by number or name, and feeds."""
    source = input_rows.open_source(str(path), inputs)
    batches = list(source.batches)
    rows = [row for batch in batches for row in batch.rows]
    assert source.total in (None, len(rows))
    return rows, {one.name: np.concatenate([batch.feeds[one.name] for batch in batches]) for one in inputs}


def refused(path: Path | str, inputs: tuple[Input, ...] = TWO) -> str:
    with pytest.raises(InputError) as error:
        read(path, inputs)
    message = str(error.value)
    assert "\n" not in message
    return message


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def save(path: Path, **columns: object) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def test_csv_columns_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    rows, feeds = read(write(tmp_path / "x.csv", '\ufeffb,a\n1,2\n"3", 4.5e0 \n-.5,+7\n'))
    assert rows == [1, 2, 3]
    assert {name: value.tolist() for name, value in feeds.items()} == {"a": [[2], [4.5], [7]], "b": [[1], [3], [-0.5]]}
    assert all(value.dtype == np.float32 for value in feeds.values())


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_of_many_blocks_is_the_same_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
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


def test_damaged_parquet_or_other_columns_are_refused(tmp_path: Path) -> None:
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


def test_a_file_that_is_no_array_is_refused(tmp_path: Path) -> None:
    assert "cannot be read as .npy" in refused(write(tmp_path / "x.npy", "a,b\n"))
    assert "cannot be read as .npy" in refused(write(tmp_path / "x.npy", ""))
    np.save(tmp_path / "x.npy", np.zeros((100, 2)))
    os.truncate(tmp_path / "x.npy", 500)
    assert "cannot be read as .npy" in refused(tmp_path / "x.npy")


def test_an_array_of_images_is_one_or_many(tmp_path: Path) -> None:
    images = np.arange(7 * 12, dtype=np.uint8).reshape(7, 3, 4)
    np.save(tmp_path / "many.npy", images)
    np.save(tmp_path / "one.npy", images[5])
    rows, feeds = read(tmp_path / "many.npy", GREY)
    assert rows == list(range(1, 8))
    np.testing.assert_array_equal(feeds["image"], images)
    rows, feeds = read(tmp_path / "one.npy", GREY)
    assert rows == [1]
    np.testing.assert_array_equal(feeds["image"], images[5:6])


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 3, 4)), np.zeros((2, 4, 3), np.uint8), np.zeros((1, 2, 3, 4), np.uint8), np.zeros(12, np.uint8)],
)
def test_an_array_of_other_images_is_refused(tmp_path: Path, array: NDArray[np.generic]) -> None:
    np.save(tmp_path / "x.npy", array)
    message = refused(tmp_path / "x.npy", GREY)
    assert "expected uint8 of shape (N, 3, 4) or (3, 4), found " in message
    assert str(array.shape) in message


def test_an_image_and_a_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4), dtype=np.uint8)
    for name, pixels in zip("cabed", images, strict=True):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / ".DS_Store").touch()
    rows, feeds = read(tmp_path / "c.png", GREY)
    assert rows == ["c.png"]
    np.testing.assert_array_equal(feeds["image"], images[:1])
    monkeypatch.setattr(input_rows, "ROWS_AT_ONCE", 2)
    rows, feeds = read(tmp_path, GREY)
    assert rows == [f"{name}.png" for name in "abcde"]
    np.testing.assert_array_equal(feeds["image"], images[[1, 2, 0, 4, 3]])


def test_an_image_of_one_bit_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0, 0, 0], [255, 255, 255, 255], [0, 255, 0, 255]], np.uint8)).convert("1").save(
        tmp_path / "x.png"
    )
    _, feeds = read(tmp_path / "x.png", GREY)
    assert feeds["image"].tolist() == [[[0, 0, 0, 0], [255, 255, 255, 255], [0, 255, 0, 255]]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16"])
def test_an_image_of_another_mode_is_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 3)).save(tmp_path / "x.png")
    assert f"x.png: expected a grey image (mode L), found mode {mode}" in refused(tmp_path / "x.png", GREY)


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    Image.new("L", (3, 4)).save(tmp_path / "x.png")
    assert "x.png: expected 3 x 4 pixels (height x width), found 4 x 3" in refused(tmp_path / "x.png", GREY)
    Image.new("1", (10_000, 10_000)).save(tmp_path / "x.png")  # Pillow warns of it
    assert "x.png: cannot be read as an image: Image size" in refused(tmp_path / "x.png", GREY)


def test_several_images_in_one_file_are_refused(tmp_path: Path) -> None:
    one = Image.new("L", (4, 3))
    one.save(tmp_path / "x.tif", save_all=True, append_images=[one, one])
    assert "expected one image, found 3 in one file" in refused(tmp_path / "x.tif", GREY)


def test_files_that_are_not_images_are_refused(tmp_path: Path) -> None:
    assert "cannot be read as an image" in refused(write(tmp_path / "x.png", "no image"), GREY)
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(tmp_path / "x.png")
    os.truncate(tmp_path / "x.png", 45)
    assert "x.png: cannot be read as an image" in refused(tmp_path / "x.png", GREY)


def test_a_folder_with_anything_else_or_nothing_is_refused(tmp_path: Path) -> None:
    assert "has no rows" in refused(tmp_path, GREY)
    write(tmp_path / "notes.txt", "")
    assert "expected images alone" in refused(tmp_path, GREY)
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "0.png").mkdir()
    assert "found '0.png'" in refused(tmp_path, GREY)


def test_a_source_that_the_model_cannot_take_is_refused(tmp_path: Path) -> None:
    Image.new("L", (4, 3)).save(tmp_path / "x.png")
    assert "x.png: the model takes a table with the columns a, b, not images" in refused(tmp_path / "x.png")
    assert "the model takes a table" in refused(tmp_path)
    message = "x.csv: is a table, but the model takes grey images of 3 x 4 pixels"
    assert message in refused(write(tmp_path / "x.csv", "a,b\n1,2\n"), GREY)
    assert "nowhere.csv: there is no such file or folder" in refused(tmp_path / "nowhere.csv")
    assert "expected a file that ends in .csv, .parquet, .npy, .png" in refused(write(tmp_path / "x.txt", "a,b\n1,2\n"))


SOURCES: dict[str, Callable[[Path, NDArray[np.float64]], object]] = {
    ".csv": lambda path, x: csv.write_csv(pa.table({"a": x[:, 0], "b": x[:, 1]}), path),
    ".npy": np.save,
    ".parquet": lambda path, x: parquet.write_table(pa.table({"a": x[:, 0], "b": x[:, 1]}), path),
}


@pytest.mark.parametrize("suffix", SOURCES)
def test_memory_is_bounded_by_a_few_batches(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 32 MB. Python's own memory, NumPy's among it, and Arrow's."""
    monkeypatch.setattr(csv_file, "_BLOCK", 2**18)
    path = tmp_path / f"x{suffix}"
    SOURCES[suffix](path, np.random.default_rng(0).uniform(size=(2_000_000, 2)))
    pool, before, rows, most = pa.default_memory_pool(), pa.total_allocated_bytes(), 0, 0
    tracemalloc.start()
    for batch in input_rows.open_source(str(path), TWO).batches:
        rows += len(batch.rows)
        most = max(most, pool.bytes_allocated() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 2_000_000
    assert peak < 12e6
    assert most < 12e6


OWN = (
    Input("n", "float32", (1,), 0, 9, "", "numeric"),
    Input("b", "float32", (1,), 0, 1, "", "boolean"),
    Input("t", "string", (1,), None, None, "", "categorical", ("x", "NA?")),
)


def test_missing_values_booleans_and_text_of_an_own_table(tmp_path: Path) -> None:
    text = ' n ,t,more,b\n1, x ,5,TRUE\n NA ,"NA",,\n-0,"say ""x""",z,0\n,é,,1.0\n'
    source = input_rows.open_source(str(write(tmp_path / "x.csv", text)), OWN)
    (batch,) = source.batches
    assert source.left_out == ["more"]
    np.testing.assert_array_equal(batch.feeds["n"].ravel(), [1, np.nan, 0, np.nan])
    np.testing.assert_array_equal(batch.feeds["b"].ravel(), [1, np.nan, 0, 1])
    assert batch.feeds["t"].ravel().tolist() == ["x", "", 'say "x"', "é"]


def test_text_where_a_number_belongs_counts_as_missing_where_it_did_in_training(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "n,b,t\n1,1,x\n?,0,x\n2.5,0,?\n")
    assert "row 2, column 'n'" in refused(path, OWN)
    _, feeds = read(path, (replace(OWN[0], mixed=True), *OWN[1:]))
    np.testing.assert_array_equal(feeds["n"].ravel(), [1, np.nan, 2.5])
    assert feeds["t"].ravel().tolist() == ["x", "x", "?"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_of_an_own_table_is_found_from_its_heading(tmp_path: Path, separator: str) -> None:
    text = "\n".join(separator.join(line) for line in (["b", "n", "t"], ["true", "2.5", "x"]))
    _, feeds = read(write(tmp_path / "x.csv", text), OWN)
    assert [feeds[name].item() for name in "nbt"] == [2.5, 1, "x"]


def test_stored_columns_are_read_as_the_same_text(tmp_path: Path) -> None:
    path = save(
        tmp_path / "x.parquet",
        **{" n ": pa.array([1.5, float("nan"), None]), "b": pa.array([True, None, False])},
        t=pa.array(["x", None, " NA "]).dictionary_encode(),
    )
    _, feeds = read(path, OWN)
    np.testing.assert_array_equal(feeds["n"].ravel(), [1.5, np.nan, np.nan])
    np.testing.assert_array_equal(feeds["b"].ravel(), [1, np.nan, 0])
    assert feeds["t"].ravel().tolist() == ["x", "", ""]


def test_stored_numbers_that_are_a_category_are_the_same_text_in_every_batch(
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
def test_a_field_in_quotes_goes_over_lines_and_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    texts = [f'{"y" * (index % 37)},{index}\n"quoted"\n' for index in range(300)]
    quoted = ['"' + text.replace('"', '""') + '"' for text in texts]
    stray = [f'5" pipe {index}' for index in range(300)]  # a quote within a field opens nothing
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
        ("n,b,b,t\n1,1,1,x\n", "duplicated: 'b'"),
        ("n,b,t\n1,1,x\nold,1,x\n", "row 2, column 'n': expected a finite number within float32, found 'old'"),
        ("n,b,t\n1e39,1,x\n", "row 1, column 'n': expected a finite number within float32, found 1e+39"),
        ("n,b,t\n1,1,x\n1,yes,x\n", "row 2, column 'b': expected true or false (or 1 or 0), found 'yes'"),
        ("n,b,t\n1,0.5,x\n", "row 1, column 'b': expected true or false (or 1 or 0), found '0.5'"),
        ("n,b,t\n1,1,x,2\n", "row 1: expected 3 fields as in the heading, found 4"),
        ("n,b,t\n", "has no rows"),
    ],
)
def test_rows_that_do_not_fit_an_own_table_are_refused(text: str, message: str, tmp_path: Path) -> None:
    assert message in refused(write(tmp_path / "x.csv", text), OWN)


def test_invalid_stored_booleans_and_nested_types_are_refused(tmp_path: Path) -> None:
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
