from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from hallmark.tasks.common.errors import HallmarkError, InputError
from hallmark.tasks.ml.config.table_names import TABLE_SUFFIXES
from hallmark.tasks.ml.data.tables import files, values
from hallmark.tasks.ml.data.tables.formats import csv_file
from hallmark.tasks.ml.data.tables.values import Location

HERE = Location("x.csv", "a", range(1, 100))


def write(folder: Path, content: str | bytes, name: str = "x.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, separator: str = ",") -> dict[str, list[object]]:
    """Return the columns as training sees them."""
    columns = {name: values.decode(column) for name, column in files.read(path, separator).items()}
    return {
        name: (values.text(column, HERE) if values.is_text(column.type) else column).to_pylist()
        for name, column in columns.items()
    }


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,x\n,y\n",
        "a,b\r\n1,x\r\n,y\r\n",
        "a,b\r1,x\r,y\r",
        b"\xef\xbb\xbfa,b\n1,x\n,y",
        "a,b\n1,x\n,y\n\n\n",
        ' a ,"b"\n"1",x\nNA,"y"\n',
    ],
    ids=["plain", "crlf", "cr", "bom and no final newline", "empty lines", "quotes, blanks and NA"],
)
def test_csv_variants_read_as_the_same_text_and_missing_values(content: str | bytes, tmp_path: Path) -> None:
    assert read(write(tmp_path, content)) == {"a": ["1", None], "b": ["x", "y"]}


@pytest.mark.parametrize("block", [32, 2**20])
@pytest.mark.parametrize(
    ("heading", "line", "end"),
    [
        ("a,b", "{0},x", "\n"),
        ('a,pipe 5"', "{0},x", "\n"),
        ('"a,1",5" of "6', '"{0}\n""{0}""",5"', "\r\n"),
        ("a,b", "{0},x", "\r"),
        ('a,pipe 5"', '"{0}\r",x', "\r"),
        ("a", "{0}\n", "\n"),
        ("a", '""\r{0}', "\r"),
    ],
    ids=["plain", "odd quote", "quotes", "cr", "cr and odd quote", "blank rows", "blank rows by cr"],
)
def test_training_and_prediction_read_the_same_rows(
    heading: str, line: str, end: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_file, "_BLOCK", block)
    path = write(tmp_path, end.join([heading, *(line.format(index) for index in range(100)), ""]))
    file = csv_file.CsvFile(path)
    table = file.read()
    batches = list(file.batches(lambda names: list(range(len(names))), 10))
    rows = 100 * (2 if len(table.columns) == 1 else 1)  # in a table of one column, an empty line is a row
    assert (table.num_rows, sum(batch.num_rows for batch in batches)) == (rows, rows)
    assert pa.Table.from_batches(batches).equals(table)
    kept = [text.strip('\r\n"') for text in table.columns[0].to_pylist()]
    assert [text.split("\n")[0] for text in kept if text] == [str(index) for index in range(100)]


def test_lines_and_rows_that_differ_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "_count_lines", lambda *_: 3)
    with pytest.raises(HallmarkError, match="from row 1 on, 3 lines were read as 2 rows"):
        files.read(write(tmp_path, "a,b\n1,2\n\n3,4\n"))


@pytest.mark.parametrize("first", ["\uff21\uff27\uff25", "\uf8ff size", "\ufffd"])
def test_only_a_byte_order_mark_is_removed_from_the_heading(first: str, tmp_path: Path) -> None:
    for mark in ("", "\ufeff"):
        assert read(write(tmp_path, f"{mark}{first},b\n1,x\n")) == {first: ["1"], "b": ["x"]}


def test_a_column_without_a_name_is_left_out_if_it_is_empty_or_counts_the_rows(tmp_path: Path) -> None:
    for text in (",a,b\n0,1,x\n1,2,y\n", ",a,b\n1,1,x\n2,2,y\n", "a,b,\n1,x,\n2,y, \n"):
        path = write(tmp_path, text)
        assert read(path) == {"a": ["1", "2"], "b": ["x", "y"]}
        assert files.names(path) == ["a", "b"]
        assert files.notes(path) == (files.UNNAMED,)
    with pytest.raises(InputError, match="column 1 has no name"):
        files.read(write(tmp_path, ",a\n5,1\n7,2\n"))


@pytest.mark.parametrize(("separator", "character"), [(",", ","), (";", ";"), ("tab", "\t"), ("|", "|")])
def test_the_named_separator_is_used(separator: str, character: str, tmp_path: Path) -> None:
    path = write(tmp_path, character.join(("a,1", "b")).replace("a,1", '"a,1"') + f"\n1{character}x\n")
    assert read(path, separator) == {"a,1": ["1"], "b": ["x"]}


def test_quoted_fields_and_names_may_contain_separators_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path, '"a\nname","b, c"\n"p\nq","say ""x"""\n"r",s\n')
    assert read(path) == {"a\nname": ["p\nq", "r"], "b, c": ['say "x"', "s"]}


def test_parquet_columns_keep_their_types_with_any_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"a": [1, None, 3], " b ": [True, False, None]}), path, row_group_size=1)
    assert read(path) == {"a": [1, None, 3], "b": [True, False, None]}
    assert files.estimate_rows(path) == 3


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_rows_of_a_csv_are_estimated_from_its_size(end: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"a,b{end}" + f"1.5,x{end}" * 300_000)
    assert files.estimate_rows(path) == pytest.approx(300_000, rel=0.01)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no heading"),
        ("\n\n", "has no heading"),
        ("a,b", "has no rows"),
        ("a,b\n", "has no rows"),
        ("a,,c\n1,2,3\n", "column 2 has no name"),
        ("a,b, a\n1,2,3\n", "two columns are named 'a'"),
        ("a,b\n1,2\n3,4,5\n", "row 2: expected 2 fields as in the heading, found 3"),
        ("a,b\n1,2\n3\n", "row 2: expected 2 fields as in the heading, found 1"),
        ("a;b\n1;2\n", "has one column, 'a;b': if its fields are separated by ;, add --data.separator ';'"),
        ("a\tb\n1\t2\n", "are separated by tab, add --data.separator 'tab'"),
        ("a|b\n1|2\n", r"are separated by \|, add --data.separator '\|'"),
        ('a,"b\n1,2\n', "the heading has an opening quote without a closing one"),
        (b"PK\x03\x04\x14", "is not CSV but an Excel file or a ZIP archive: let its name end in .xlsx"),
        (b"\x1f\x8b\x08", "is not CSV but compressed: let its name end in .csv.gz"),
        (
            "a,b\n1,x\n2,é\n".encode("latin1"),
            r"line 3: expected UTF-8, found byte 0xe9 at offset 10: .*iconv -f latin1",
        ),
        ("a,b\n1,x\n".encode("utf-16"), r"line 1: expected UTF-8, found byte 0xff at offset 0: .*iconv -f utf-16"),
        ("é,b\n1,x\n".encode("latin1"), "line 1: expected UTF-8, found byte 0xe9 at offset 0"),
    ],
)
def test_invalid_csv_is_refused_in_one_line(content: str | bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=message) as refused:
        files.read(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.parquet", "cannot be read as Parquet: "),
        ("x.txt", "expected a table"),
        ("x.zip", "expected a table .*: let its name end in, for example, .csv.zip"),
        ("x.xls", "expected a table .*: save the sheet as .xlsx"),
    ],
)
def test_other_file_types_are_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        files.read(write(tmp_path, "a,b\n1,2\n", name))


def test_a_missing_column_is_refused_with_the_most_similar_name_or_all_names() -> None:
    with pytest.raises(InputError, match=r"there is no column 'specie': did you mean 'species'\?"):
        files.require("specie", ["length", "species"], "--target", Path("x.csv"))
    with pytest.raises(InputError, match=r"the columns are a0, .*, a11 and 3 more"):
        files.require("zzz", [f"a{index}" for index in range(15)], "--target", Path("x.csv"))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([" x ", "", "NA", " NaN", "na", None]), ["x", None, None, None, "na", None]),
        (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
        (pa.array(["x", None], pa.large_string()), ["x", None]),
        (pa.array(["x", " "], pa.string_view()), ["x", None]),
        (pa.array([1, -20, None]), ["1", "-20", None]),
        (pa.array([1.0, 2.5, float("nan"), -0.0, None]), ["1", "2.5", None, "0", None]),
        (pa.array([1e10, 12345678901.0, 1e300]), ["10000000000", "12345678901", "1e+300"]),
        (pa.array(np.array([1, 0.5], np.float16)), ["1", "0.5"]),
        (pa.array([True, False, None]), ["true", "false", None]),
    ],
    ids=["text", "dictionary", "large", "view", "integer", "float", "large float", "half", "boolean"],
)
def test_text_of_a_column_does_not_depend_on_its_stored_type(column: pa.Array, expected: list[str | None]) -> None:
    assert values.text(values.decode(pa.chunked_array([column])), HERE).to_pylist() == expected
    # Row by row gives the same text, because prediction reads in batches.
    rows = [values.text(values.decode(column.slice(index, 1)), HERE)[0].as_py() for index in range(len(column))]
    assert rows == expected


def test_nested_and_binary_columns_cannot_be_text() -> None:
    for column in (pa.array([[1], [2]]), pa.array([b"x"]), pa.array([b"x"], pa.binary(1)), pa.array([{"a": 1}])):
        with pytest.raises(InputError, match=r"column 'a': expected text, numbers or booleans, found type "):
            values.text(column, HERE)


def test_booleans_are_true_or_false_in_any_case_or_words_or_1_and_0() -> None:
    found = values.boolean(pa.array(["TRUE", "false", "1", "0.0", "Yes", "off", None]), HERE)
    np.testing.assert_array_equal(found, [1, 0, 1, 0, 1, 0, np.nan])
    for wrong in ("2", "maybe"):
        with pytest.raises(
            InputError, match=rf"row 2, column 'a': expected true or false \(or 1 or 0\), found '{wrong}'"
        ):
            values.boolean(pa.array(["true", wrong]), HERE)


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_every_table_suffix_has_a_reader(suffix: str) -> None:
    assert files.open_table(Path(f"x{suffix.upper()}"))


@pytest.mark.parametrize("blank", ["\n", "\r\n\n", "\ufeff\n"])
def test_empty_lines_above_the_heading_are_skipped(blank: str, tmp_path: Path) -> None:
    assert read(write(tmp_path, f"{blank}a,b\n1,x\n")) == {"a": ["1"], "b": ["x"]}
