import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.predict import output_files
from hallmark.tasks.ml.predict.output_files import Format
from hallmark.tasks.ml.predict.predictions import Heading, PredictedBatch
from tests.support import terminals

AWKWARD = ("plain", 'say "no"', "a,b", "naïve [red]", "")
FILE_FORMS: tuple[Format, ...] = ("csv", "parquet", "jsonl")


def predictions(rows: range | list[str], classes: int = 3, seed: int = 0) -> PredictedBatch:
    raw = np.random.default_rng(seed).exponential(size=(len(rows), classes)).astype(np.float32)
    probabilities: NDArray[np.float32] = raw / raw.sum(axis=1, keepdims=True)
    return PredictedBatch(rows, probabilities.argmax(axis=1), probabilities)


def write(path: Path, form: Format, heading: Heading, *batches: PredictedBatch) -> list[dict[str, object]]:
    """Write batches and read them back with another library."""
    with output_files.open_output(path, form, heading) as take:
        for batch in batches:
            take(batch)
    match form:
        case "csv":
            with path.open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        case "jsonl":
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return parquet.read_table(path).to_pylist()


def write_and_fail(path: Path | None, form: Format) -> None:
    """Write many rows, then fail."""
    with output_files.open_output(path, form, Heading("row", ("a", "b", "c"))) as take:
        take(predictions(range(1, 100_000)))
        raise RuntimeError("stop")


@pytest.mark.parametrize("form", FILE_FORMS)
def test_every_row_has_its_number_its_class_and_all_probabilities(tmp_path: Path, form: Format) -> None:
    heading = Heading("row", ("a", "b", "c"))
    first, second = predictions(range(1, 6)), predictions(range(6, 9), seed=1)
    rows = write(tmp_path / "y", form, heading, first, second)
    assert [list(row) for row in rows] == [["row", "class", "p_a", "p_b", "p_c"]] * 8
    assert [int(str(row["row"])) for row in rows] == list(range(1, 9))
    assert [row["class"] for row in rows] == ["abc"[label] for label in (*first.label, *second.label)]
    read = np.array([[np.float32(row[name]) for name in ("p_a", "p_b", "p_c")] for row in rows])  # type: ignore[arg-type]
    np.testing.assert_array_equal(read, np.concatenate([first.probabilities, second.probabilities]))


@pytest.mark.parametrize("form", FILE_FORMS)
def test_names_with_special_characters_are_preserved(tmp_path: Path, form: Format) -> None:
    files = ["a.png", 'b "b".png', "c,d.png", "ë\n.png", "{}.png"]
    batch = PredictedBatch(files, np.arange(5), np.eye(5, dtype=np.float32))
    rows = write(tmp_path / "y", form, Heading("file", AWKWARD), batch)
    assert [row["file"] for row in rows] == files
    assert [row["class"] for row in rows] == list(AWKWARD)
    assert [name for name in rows[0] if name.startswith("p_")] == [f"p_{name}" for name in AWKWARD]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_extreme_probabilities_are_exact_and_valid(tmp_path: Path, form: Format) -> None:
    values = np.array([[1, 0], [np.nextafter(np.float32(1), np.float32(0)), 5.960464e-08], [1e-30, 1e-45]], np.float32)
    batch = PredictedBatch(range(1, 4), values.argmax(axis=1), values)
    rows = write(tmp_path / "y", form, Heading("row", ("a", "b")), batch)
    read = np.array([[np.float32(row["p_a"]), np.float32(row["p_b"])] for row in rows])  # type: ignore[arg-type]
    np.testing.assert_array_equal(read, values)


def test_csv_and_json_lines_are_written_exactly(tmp_path: Path) -> None:
    batch = PredictedBatch(range(1, 3), np.array([1, 0]), np.array([[0.25, 0.75], [1, 0]], np.float32))
    write(tmp_path / "y", "csv", Heading("row", ("no", "yes")), batch)
    assert (tmp_path / "y").read_bytes() == b"row,class,p_no,p_yes\n1,yes,0.25,0.75\n2,no,1,0\n"
    write(tmp_path / "y", "jsonl", Heading("row", ("no", "yes")), batch)
    first = '{"row": 1, "class": "yes", "p_no": 0.25, "p_yes": 0.75}'
    assert (tmp_path / "y").read_text().splitlines()[0] == first


def test_names_are_escaped_for_a_terminal_and_for_a_spreadsheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    batch = PredictedBatch(["=1+1.png", "+\x1b[31m.png"], np.array([1, 0]), np.eye(2, dtype=np.float32))
    heading = Heading("file", ("plain", "-2\nverdict holds"))
    with output_files.open_output(tmp_path / "y", "csv", heading, for_spreadsheets=True) as take:
        take(batch)
    with (tmp_path / "y").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["'=1+1.png", "'+\x1b[31m.png"]
    assert [row["class"] for row in rows] == ["'-2\nverdict holds", "plain"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for form in ("csv", "jsonl"):
        with output_files.open_output(None, form, heading) as take:  # type: ignore[arg-type]
            take(batch)
        out = capsysbinary.readouterr().out.decode()
        assert "\\x1b[31m.png" in out
        assert "-2\\x0averdict holds" in out.replace("\\\\", "\\")
        assert out.isprintable() or set(out) - {"\n"} <= {one for one in out if one.isprintable()}


def test_parquet_columns_have_types(tmp_path: Path) -> None:
    write(tmp_path / "y", "parquet", Heading("row", ("a", "b", "c")), predictions(range(1, 6)))
    kinds = [pa.int64(), pa.string(), *[pa.float32()] * 3]
    assert parquet.read_schema(tmp_path / "y").types == kinds
    write(tmp_path / "y", "parquet", Heading("file", ("a", "b", "c")), predictions(["x.png"]))
    assert parquet.read_schema(tmp_path / "y").types == [pa.string(), *kinds[1:]]


@pytest.mark.parametrize("form", FILE_FORMS)
def test_a_failure_keeps_the_existing_file(tmp_path: Path, form: Format) -> None:
    path = tmp_path / "y"
    path.write_text("before")
    with pytest.raises(RuntimeError, match="stop"):
        write_and_fail(path, form)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "before"


@pytest.mark.parametrize("form", FILE_FORMS)
def test_stdout_gets_everything_or_nothing(
    form: Format, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_files, "_SPOOLED", 100)
    heading, batch = Heading("row", ("a", "b", "c")), predictions(range(1, 1000))
    write(tmp_path / "y", form, heading, batch)
    with output_files.open_output(None, form, heading) as take:
        take(batch)
    assert capfdbinary.readouterr().out == (tmp_path / "y").read_bytes()
    with pytest.raises(RuntimeError, match="stop"):
        write_and_fail(None, form)
    assert capfdbinary.readouterr().out == b""


def table(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    heading: Heading,
    *batches: PredictedBatch,
) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    with output_files.open_output(None, "table", heading) as take:
        for batch in batches:
            take(batch)
    return capsys.readouterr().out.splitlines()


def test_a_table_has_the_first_rows(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    heading = Heading("row", ("a", "b", "c"))
    batches = [predictions(range(start, start + 8), seed=start) for start in (1, 9, 17)]
    lines = table(capsys, monkeypatch, 80, heading, *batches)
    assert lines[0].split() == ["row", "class", "probability", "p_a", "p_b", "p_c"]
    assert [line.split()[0] for line in lines[1:21]] == [str(row) for row in range(1, 21)]
    assert lines[21:] == ["... and 4 more rows: add --output FILE to get all of them"]
    row, label, probability, *others = lines[1].split()
    assert (row, label) == ("1", "abc"[batches[0].label[0]])
    assert others == [f"{value:.4f}" for value in batches[0].probabilities[0]]
    assert probability == max(others)


def test_a_narrow_table_omits_classes_and_truncates_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heading = Heading("file", tuple(f"class {index}" for index in range(10)))
    lines = table(capsys, monkeypatch, 40, heading, predictions(["a.png", "b.png"], 10))
    assert lines[0].split() == ["file", "class", "probability"]
    assert max(map(len, lines)) <= 40
    long = "x" * 50 + ".png"
    lines = table(capsys, monkeypatch, 40, heading, predictions([long, "b [red].png"], 10))
    assert lines[1].startswith(long)
    assert lines[2].startswith("b [red].png ")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("output", "form", "chosen"),
    [
        ("y.csv", None, "csv"),
        ("y.PARQUET", None, "parquet"),
        ("y.jsonl", None, "jsonl"),
        ("y.txt", "jsonl", "jsonl"),
        ("y.csv", "parquet", "parquet"),
        (None, None, "csv"),
        (None, "table", "table"),
        (None, "parquet", "parquet"),
    ],
)
def test_the_format_is_given_or_follows_the_suffix_or_is_csv(
    output: str | None, form: Format | None, chosen: Format
) -> None:
    assert output_files.choose_format(Path(output) if output else None, form) == chosen


def test_a_format_that_does_not_suit_the_output_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"y\.txt: expected a name that ends in \.csv, \.parquet, \.jsonl, or --format"
    ):
        output_files.choose_format(Path("y.txt"), None)
    with pytest.raises(InputError, match=r"y\.txt: format 'table' is for the terminal only"):
        output_files.choose_format(Path("y.txt"), "table")


@pytest.mark.parametrize(("form", "chosen"), [(None, "table"), *((form, form) for form in ("table", *FILE_FORMS))])
def test_a_terminal_gets_a_table_and_no_parquet(form: Format | None, chosen: str) -> None:
    code = (
        "from hallmark.tasks.ml.predict import output_files\n"
        f"try: print('chosen', output_files.choose_format(None, {form!r}))\n"
        "except output_files.InputError as error: print(error)\n"
    )
    _, output = terminals.run([sys.executable, "-c", code], os.environ)
    expected = (
        "--format: parquet cannot be printed on a terminal: add --output FILE"
        if form == "parquet"
        else f"chosen {chosen}"
    )
    assert output.strip() == expected


def refused(output: str, *, overwrite: bool = False) -> str:
    with pytest.raises(InputError) as error:
        output_files.check_output(Path(output), "x.csv", overwrite=overwrite)
    return str(error.value)


def test_an_output_that_must_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x.csv", "y.csv"):
        (tmp_path / name).touch()
    assert refused("y.csv") == "y.csv: exists: choose another name, or add --overwrite"
    assert refused("x.csv", overwrite=True) == "x.csv: is the input file: choose another name"
    assert refused("nowhere/y.csv") == "nowhere/y.csv: there is no folder nowhere: create it first"
    assert refused("/dev/null", overwrite=True) == "/dev/null: is not a regular file: choose another name"
    assert refused(".", overwrite=True) == ".: is not a regular file: choose another name"
    if sys.platform == "linux":
        message = "/proc/y.csv: the folder /proc cannot be written: choose another one"
        assert refused("/proc/y.csv") == message
    output_files.check_output(Path("y.csv"), "x.csv", overwrite=True)
    output_files.check_output(Path("z.csv"), "-", overwrite=False)
