"""Compressed text, JSON lines, Excel, folders of Parquet parts, and tables at an address."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import re
import zipfile
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest
from openpyxl import Workbook
from pyarrow import parquet

from hallmark.flows.experiments import options
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.artifact.certificate import Input
from hallmark.tasks.ml.config.data import Table
from hallmark.tasks.ml.data.tables import files, reader
from hallmark.tasks.ml.data.tables.formats import compressed, json_lines_file, web_file
from hallmark.tasks.ml.predict import input_rows
from tests.support import http_servers
from tests.support.prediction_rows import read

TEXT = "a,b,t\n" + "".join(f"{row / 4},{row % 3},{'xy'[row % 2]}\n" for row in range(60))
OBJECTS = "".join(json.dumps({"a": row / 4, "b": row % 3, "t": "xy"[row % 2]}) + "\n" for row in range(60))
INPUTS = (Input("a", "float32", (1,), 0, 20, "", "numeric"), Input("b", "float32", (1,), 0, 2, "", "numeric"))


_gzip = partial(gzip.compress, mtime=0)  # the names of tests contain the bytes


def zipped(content: str, *names: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, content)
    return archive.getvalue()


PACKED = {
    "x.csv.gz": _gzip(TEXT.encode()),
    "x.CSV.GZ": _gzip(TEXT[:99].encode()) + _gzip(TEXT[99:].encode()),
    "x.tsv.bz2": bz2.compress(TEXT.replace(",", "\t").encode()),
    "x.csv.xz": lzma.compress(TEXT.encode()),
    "x.csv.zst": bytes(pa.compress(TEXT.encode(), "zstd", asbytes=True)),
    "x.csv.zip": zipped(TEXT, "folder/", "folder/x.csv", "__MACOSX/._x.csv"),
    "x.jsonl": OBJECTS.encode(),
    "x.ndjson.gz": _gzip(b"\xef\xbb\xbf" + OBJECTS.replace("\n", "\r\n\r\n").encode()),
}


def save(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def sheet(path: Path, *sheets: list[list[object]]) -> Path:
    """Write an Excel file with these rows in sheets named `Sheet`, `Sheet1`, ..."""
    workbook = Workbook()
    for number, rows in enumerate(sheets):
        one = workbook.worksheets[0] if not number else workbook.create_sheet()
        for row in rows:
            one.append(row)
    workbook.save(path)
    return path


def columns(path: Path, name: str | None = None) -> dict[str, list[object]]:
    return {name: column.to_pylist() for name, column in files.read(path, sheet=name).items()}


def refused(path: Path, **options: str) -> str:
    with pytest.raises(InputError) as error:
        files.read(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", PACKED)
def test_every_format_gives_training_and_prediction_the_same_rows_as_csv(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines_file, "_ROWS", 7)
    plain, path = save(tmp_path / "plain.csv", TEXT), save(tmp_path / name, PACKED[name])
    tables = [reader.read(Table(kind="table", path=str(one), target="t")) for one in (plain, path)]
    assert tables[0].x.tolist() == tables[1].x.tolist()
    assert tables[0].table_columns == tables[1].table_columns
    (rows, feeds), (_, expected) = read(path, INPUTS), read(plain, INPUTS)
    assert rows == list(range(1, 61))
    assert {one: feed.tolist() for one, feed in feeds.items()} == {one: feed.tolist() for one, feed in expected.items()}
    is_csv = ".csv" in name.lower() or ".tsv" in name
    assert not is_csv or files.estimate_rows(path) == files.estimate_rows(plain)
    experiment = options.experiment(str(path), ["--target", "t"])
    assert (experiment.name, experiment.data.name) == ("x", "x")
    assert experiment.model == options.experiment(str(plain), ["--target", "t"]).model


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv.gz", _gzip(TEXT.encode())[:-30], "cannot be decompressed as .gz: .*incomplete, damaged"),
        ("x.csv.gz", TEXT, "cannot be decompressed as .gz"),
        ("x.csv.bz2", bz2.compress(TEXT.encode())[:-9], "cannot be decompressed as .bz2"),
        ("x.csv.xz", _gzip(TEXT.encode()), "cannot be decompressed as .xz"),
        ("x.csv.zst", PACKED["x.csv.zst"][:-9], "cannot be decompressed as .zst"),
        ("x.csv.zip", TEXT, "cannot be decompressed as .zip"),
        ("x.csv.zip", zipped(TEXT, "x.csv", "y.csv"), "has 2 files: expected a ZIP archive of one"),
        ("x.csv.zip", PACKED["x.csv.zip"].replace(b"\x00\x00\x08\x00", b"\x01\x00\x08\x00"), "is encrypted"),
        ("x.csv.gz", _gzip(_gzip(b"x")), "is not CSV but compressed"),
        ("x.csv.gz", _gzip(b"a,b\n" + b"1,2\n" * 9000), "more than 200 times as many bytes"),
        ("x.csv.gz", _gzip("a,b\n1,\u00e9\n".encode("latin1")), "line 2: .* decompress the file and .* x.csv`"),
        ("x.parquet.gz", b"", "expected a table .*: .*decompress any but CSV and JSON lines"),
        ("x.jsonl", '{"a": 1}\n{"a": {"b": 1}}\n', r"line 2, column 'a': expected .* found an object: "),
        ("x.jsonl", '{"a": 1}\n{"a": [1]}\n', r"line 2, column 'a': expected .* found a list: "),
        ("x.jsonl", '{"a": 1}\n\n[1]\n', r"line 3: expected an object such as \{\"a\": 1\}, found \[1\]"),
        ("x.jsonl", '{"a": 1}\n{"a": 1\n', "line 2: expected an object"),
        ("x.jsonl", '{"a": 1, "a": 2}\n', "line 1: a key is there twice"),
        ("x.jsonl", b'{"a": "\xe9"}\n', "line 1: expected UTF-8"),
        ("x.jsonl", "[" * 100_000, "line 1: expected an object"),
        ("x.jsonl", " " * 2**20 + "{}", "line 1 has more than 1,048,576 bytes"),
        ("x.jsonl", "\n", "has no columns|has no rows"),
        ("x.xlsx", TEXT, "cannot be read as Excel: .*: save it as .xlsx"),
        ("x.xlsx", zipped(TEXT, "x.csv"), "cannot be read as Excel"),
        ("x.xlsx", b"\xd0\xcf\x11\xe0", "is protected by a password"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    name: str, content: bytes | str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressed, "_UNQUESTIONED", 20_000)
    path = save(tmp_path / name, content)
    assert re.search(message, refused(path))
    with pytest.raises(InputError, match=str(path)):
        read(path, INPUTS)


def test_json_values_are_the_texts_that_csv_would_have(tmp_path: Path) -> None:
    lines = (
        '{"a": 1.50, "b": true, "c": "x"}\n{"b": null, "late": 12345678901234567890}\n{"a": NaN, "c": "2030-01-02"}\n'
    )
    assert columns(save(tmp_path / "x.jsonl", lines)) == {
        "a": ["1.50", None, "NaN"],
        "b": ["true", None, None],
        "c": ["x", None, "2030-01-02"],
        "late": [None, "12345678901234567890", None],
    }


def test_a_sheet_is_read_as_if_it_had_been_saved_as_csv(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        [],
        ["n", "w", "b", "day", "when", "t", ""],
        [0.1, 7, True, datetime.fromisoformat("2030-01-02"), datetime.fromisoformat("2030-01-02T03:04:05"), "0501"],
        [],
        [1e-7, None, False, None, None, " x "],
    ]
    path = sheet(tmp_path / "x.xlsx", rows, [["n", "other"], [1, 2]])
    expected = {
        "n": ["0.1", "1e-07"],
        "w": ["7", None],
        "b": ["true", "false"],
        "day": ["2030-01-02", None],
        "when": ["2030-01-02T03:04:05", None],
        "t": ["0501", " x "],
    }
    assert columns(path) == expected
    assert files.estimate_rows(path) == 2
    assert files.notes(path) == ("sheet 'Sheet' of 2 is read: --data.sheet reads another",)
    assert files.notes(path, sheet="Sheet1") == ()
    assert columns(path, "Sheet1") == {"n": ["1"], "other": ["2"]}
    assert "there is no sheet 'x', only Sheet, Sheet1" in refused(path, sheet="x")
    with pytest.raises(InputError, match=r"no column 'other': .* chooses one of the sheets Sheet, Sheet1"):
        reader.read(Table(kind="table", path=str(path), target="other"))
    # Prediction takes the sheet that has the columns of the model.
    source = input_rows.open_source(str(path), (Input("other", "float32", (1,), 0, 9, "", "numeric"),))
    assert [batch.feeds["other"].tolist() for batch in source.batches] == [[[2]]]
    assert "row 1: has a value to the right of the 1 columns" in refused(sheet(tmp_path / "y.xlsx", [["n"], [1, 2]]))
    assert columns(sheet(tmp_path / "y.xlsx", [["n"], [1], [None], [2], [None]])) == {"n": ["1", None, "2"]}
    assert "has no heading" in refused(sheet(tmp_path / "y.xlsx", []))


def test_formulas_have_their_stored_value_or_are_refused(tmp_path: Path) -> None:
    path = sheet(tmp_path / "x.xlsx", [["n", "sum"], [1, "=A2+1"], [2, "=A3+1"]])
    assert "the formula in B2 has no stored value" in refused(path)
    with zipfile.ZipFile(path) as archive:
        members = {one.filename: archive.read(one) for one in archive.infolist()}
    name = "xl/worksheets/sheet1.xml"
    members[name] = re.sub(rb"(A(\d)\+1</f>)<v\s*/>|(A(\d)\+1</f>)<v></v>", rb"\1\3<v>\2\4</v>", members[name])
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    assert columns(path) == {"n": ["1", "2"], "sum": ["2", "3"]}


def part(path: Path, **values: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(values), path)
    return path


def test_a_folder_of_parquet_parts_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "sales.2030"
    part(folder / "zone=1 2" / "part-1.parquet", a=[3.0], b=[3], t=["y"])
    part(folder / "zone=__HIVE_DEFAULT_PARTITION__" / "part-2.parquet", a=[4.0], b=[4], t=["x"])
    part(folder / "zone=0%2F1" / "part-0.parquet", a=[1.0, 2.0], b=[1, 2], t=["x", "y"])
    for hidden in ("_SUCCESS", ".part-0.parquet.crc", "_metadata/x.csv"):
        save(folder / hidden, "")
    assert columns(folder) == {
        "a": [1.0, 2.0, 3.0, 4.0],
        "b": [1, 2, 3, 4],
        "t": ["x", "y", "y", "x"],
        "zone": ["0/1", "0/1", "1 2", None],
    }
    zone = Input("zone", "string", (1,), None, None, "", "categorical", ("0/1",))
    rows, feeds = read(folder, (INPUTS[1], zone))
    assert (rows, feeds["b"].ravel().tolist()) == ([1, 2, 3, 4], [1, 2, 3, 4])
    assert (
        feeds["zone"].ravel().tolist() == read(folder, (zone,))[1]["zone"].ravel().tolist() == ["0/1", "0/1", "1 2", ""]
    )
    experiment = options.experiment(str(folder), ["--target", "t"])
    assert (experiment.name, experiment.data.name, experiment.data.kind) == ("sales.2030", "sales.2030", "table")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": [1.0]}, "part-1.parquet: has no column 't', which .*part-0.parquet has"),
        ({"a": [1], "t": ["x"]}, "part-1.parquet: column 'a' has type int64, and type double in .*part-0.parquet"),
        ({"a": [1.0], "t": ["x"], "b": [1]}, "part-1.parquet: has a column 'b', which .*part-0.parquet has not"),
    ],
)
def test_parts_that_differ_are_refused_by_name(values: dict[str, object], message: str, tmp_path: Path) -> None:
    part(tmp_path / "p" / "part-0.parquet", a=[1.0], t=["x"])
    part(tmp_path / "p" / "part-1.parquet", **values)
    assert re.search(message, refused(tmp_path / "p"))
    save(tmp_path / "p" / "part-1.parquet", "a,t\n")
    assert "part-1.parquet: cannot be read as Parquet" in refused(tmp_path / "p")
    save(tmp_path / "p" / "part-2.csv", "a,t\n")
    assert "part-2.csv: is in a folder of Parquet files" in refused(tmp_path / "p")


class Handler(BaseHTTPRequestHandler):
    """Answers each path as `test_a_table_at_an_address` needs it, and notes what was asked."""

    asked: list[str] = []  # noqa: RUF012 - one server at a time

    def do_GET(self) -> None:
        self.asked.append(self.path)
        place = self.path.partition("?")[0]
        where = {"/moved.csv": "/x.csv", "/ftp.csv": "ftp://127.0.0.1/x.csv", "/file.csv": "file:///etc/passwd"}
        self.send_response(302 if place in where else 404 if place == "/none.csv" else 200)
        if place in where:
            self.send_header("Location", where[place])
        body = b"" if place in where else PACKED["x.csv.gz"] if place.endswith(".gz") else TEXT.encode()
        self.send_header("Content-Length", str(len(body) + 99 * (place == "/short.csv")))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with http_servers.running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def test_a_table_at_an_address_is_downloaded_once(address: str, tmp_path: Path) -> None:
    url = f"{address}/some%20rows.csv?raw=1"
    experiment = options.experiment(url, ["--target", "t"])
    assert (experiment.name, experiment.data.name) == ("some-rows", "some-rows")
    assert getattr(experiment.data, "path") == url  # noqa: B009 - of a table only
    assert reader.read(Table(kind="table", path=url, target="t")).x.shape == (60, 2)
    assert read(url, INPUTS)[0] == list(range(1, 61))
    assert Handler.asked == ["/some%20rows.csv?raw=1"]
    assert web_file.describe(url).endswith(f"{len(TEXT)} bytes, sha256 {hashlib.sha256(TEXT.encode()).hexdigest()}")
    assert read(f"{address}/moved.csv", INPUTS)[0] == read(f"{address}/x.csv.gz", INPUTS)[0]
    file = save(tmp_path / "x.toml", f'[data]\nkind = "table"\npath = "{url}"\ntarget = "t"\n')
    assert options.experiment(str(file), []).data == experiment.data


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none.csv", r"cannot be downloaded \(HTTP Error 404"),
        ("/short.csv", r"cannot be downloaded \(.*it ended after \d+ of \d+ bytes"),
        ("/ftp.csv", "it redirects to ftp://"),
        ("/file.csv", "(?i)redirection to url 'file:"),
        ("/big.csv", "has more than 99 bytes"),
        ("/page", "expected an address whose path ends in .csv"),
    ],
)
def test_a_bad_download_is_refused(path: str, message: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if path == "/big.csv":
        monkeypatch.setattr(web_file, "MAX_BYTES", 99)
    with pytest.raises(InputError, match=message):
        read(address + path, INPUTS)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/x.csv", "expected a path, or an address that begins with https"),
        ("s3://bucket/x.csv", "expected a path, or an address"),
        ("https://me:word@host/x.csv", "has a password or token"),
        ("https://host/x.csv?token=word", r"x\.csv\?token=\*\*\*': has a password or token"),
        ("https://[host/x.csv", "is not a valid address"),
    ],
)
def test_an_address_that_is_not_accepted_is_refused_without_its_secret(url: str, message: str, tmp_path: Path) -> None:
    file = save(tmp_path / "x.toml", f'[data]\nkind = "table"\npath = "{url}"\ntarget = "t"\n')
    for attempt in (lambda: options.experiment(url, []), lambda: read(url), lambda: options.experiment(str(file), [])):
        with pytest.raises(InputError, match=message) as error:
            attempt()
        assert "word@" not in str(error.value)
        assert "=word" not in str(error.value)
