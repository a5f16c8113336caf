"""`hallmark predict` on the command line: what it refuses, writes and prints."""

import csv
import json
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.tracking.client import connect
from tests.pipelines.conftest import Help
from tests.support import certified, terminals
from tests.support.consoles import Call
from tests.support.processes import HALLMARK

HEADER = ",".join(certified.COLUMNS)
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5], [9.0, 3.0, 4.5, 1.5]]
"""The last row lies outside the training range."""


@pytest.fixture
def console(console: Call) -> Call:
    """Return a function that runs `hallmark predict` in this process: exit code, stdout and stderr."""
    return partial(console, "predict")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with two models and a file of valid rows."""
    monkeypatch.chdir(tmp_path)
    certified.columns(tmp_path / "iris.onnx")
    certified.images(tmp_path / "pictures.onnx")
    write_csv("rows.csv", HEADER, ROWS)
    return tmp_path


def write_csv(name: str, header: str, rows: list[list[float]]) -> None:
    Path(name).write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def hallmark(*tokens: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([HALLMARK, "predict", *tokens], capture_output=True, text=True, input=stdin, check=False)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def check(rows: list[dict[str, str]], x: list[list[float]] = ROWS) -> None:
    """Compare predictions with those of NumPy."""
    expected = certified.expected(np.array(x, np.float32), 3)
    assert [int(row["row"]) for row in rows] == list(range(1, len(x) + 1))
    assert [row["class"] for row in rows] == [certified.CLASSES[label] for label in expected.argmax(axis=1)]
    found = [[float(row[f"p_{name}"]) for name in certified.CLASSES] for row in rows]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.usefixtures("here")
def test_a_pipe_gets_csv_and_a_summary_on_stderr(console: Call) -> None:
    code, out, error = console("iris.onnx", "rows.csv")
    assert code == 0, error
    check(rows_of(out))
    assert re.fullmatch(
        r"predict  3 rows, 1 outside the training range; \w+: \d+\.\d% \(training 33\.3%\), .*\n", error
    )
    for name in certified.CLASSES:
        assert f"{name}: " in error


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
@pytest.mark.parametrize("kind", [".csv", ".parquet", ".jsonl"])
def test_every_kind_of_file_is_read_and_written(console: Call, here: Path, suffix: str, kind: str) -> None:
    x = np.array(ROWS)
    np.save("rows.npy", x)
    parquet.write_table(pa.table(dict(zip(certified.COLUMNS, x.T, strict=True))), "rows.parquet")
    code, out, error = console("iris.onnx", f"rows{suffix}", "--output", f"said{kind}")
    assert (code, out) == (0, ""), error
    match kind:
        case ".csv":
            check(rows_of((here / "said.csv").read_text()))
        case ".jsonl":
            check([json.loads(line) for line in (here / "said.jsonl").read_text().splitlines()])
        case _:
            check(parquet.read_table(here / "said.parquet").to_pylist())


@pytest.mark.usefixtures("here")
def test_stdin_is_read_as_csv() -> None:
    done = hallmark("iris.onnx", "-", stdin=Path("rows.csv").read_text())
    assert done.returncode == 0, done.stderr
    check(rows_of(done.stdout))
    done = hallmark("iris.onnx", "-", stdin="")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hallmark: stdin: has no heading: expected the column names in the first line\n"


def test_predictions_of_images_contain_their_file_names(console: Call, here: Path) -> None:
    (here / "images").mkdir()
    x = np.random.default_rng(0).integers(0, 9, (3, *certified.SIDES)).astype(np.uint8)
    for name, pixels in zip("bca", x, strict=True):
        Image.fromarray(pixels).save(here / "images" / f"{name}.png")
    code, out, error = console("pictures.onnx", "images")
    assert code == 0, error
    rows = rows_of(out)
    assert list(rows[0]) == ["file", "class", "p_dark", "p_light"]
    assert [row["file"] for row in rows] == ["a.png", "b.png", "c.png"]
    found = [[float(row["p_dark"]), float(row["p_light"])] for row in rows]
    np.testing.assert_allclose(found, certified.expected(x[[2, 0, 1]].reshape(3, -1), 2), atol=1e-6)
    code, out, _ = console("pictures.onnx", "images/a.png", "--format", "jsonl")
    assert code == 0
    assert json.loads(out)["file"] == "a.png"
    np.save("images.npy", x)
    _, out, _ = console("pictures.onnx", "images.npy")
    assert [row["row"] for row in rows_of(out)] == ["1", "2", "3"]


def test_json_is_the_last_line_and_is_complete(console: Call, here: Path) -> None:
    code, out, error = console("iris.onnx", "rows.csv", "--output", "said.csv", "--json")
    assert code == 0, error
    result = json.loads(out.splitlines()[-1])
    shares = result.pop("class_shares")
    assert list(shares) == list(certified.CLASSES)
    assert sum(shares.values()) == pytest.approx(1)
    assert result == {
        "status": "finished",
        "onnx": str(here / "iris.onnx"),
        "sha256": file_digest(here / "iris.onnx"),
        "source": "rows.csv",
        "output": str(here / "said.csv"),
        "rows": 3,
        "training_class_shares": pytest.approx(dict.fromkeys(certified.CLASSES, 1 / 3)),
        "outside_training_range": 1,
        "left_out": [],
        "gaps": [],
        "unreadable": [],
    }


def test_an_existing_output_is_replaced_only_on_request(console: Call, here: Path) -> None:
    (here / "said.csv").write_text("before")
    code, out, error = console("iris.onnx", "rows.csv", "--output", "said.csv")
    assert (code, out) == (2, "")
    assert error == "hallmark: said.csv: exists: choose another name, or add --overwrite\n"
    assert (here / "said.csv").read_text() == "before"
    code, _, error = console("iris.onnx", "rows.csv", "--output", "said.csv", "--overwrite")
    assert code == 0, error
    check(rows_of((here / "said.csv").read_text()))


def prepare_mistakes() -> None:
    """Write every kind of refused input into the current folder."""
    Path("text.onnx").write_text("no model")
    Path("empty.csv").write_text("")
    write_csv("heading.csv", HEADER, [])
    write_csv("text.csv", HEADER, [*ROWS, ["x", 1, 1, 1]])  # type: ignore[list-item]
    write_csv("columns.csv", HEADER.replace("petal_width", "width") + ",id", [[1, 1, 1, 1, 1]])
    Image.new("L", (5, 5)).save("size.png")
    Image.new("RGB", certified.SIDES[::-1]).save("mode.png")
    Path("folder").mkdir()
    np.save("three.npy", np.zeros((2, 3)))


MISTAKES = [
    (["nowhere.onnx", "rows.csv"], "nowhere.onnx: cannot be read: No such file"),
    (["text.onnx", "rows.csv"], "text.onnx: not an ONNX file"),
    (["iris.onnx", "nowhere.csv"], "nowhere.csv: there is no such file or folder"),
    (["iris.onnx", "iris.onnx"], "iris.onnx: expected a file that ends in .csv, .tsv, .jsonl"),
    (["iris.onnx", "empty.csv"], "empty.csv: has no heading"),
    (["iris.onnx", "heading.csv"], "heading.csv: has no rows"),
    (["iris.onnx", "text.csv"], "text.csv: row 4, column 'sepal_length': expected a finite number .* found 'x'"),
    (["iris.onnx", "columns.csv"], "columns.csv: expected .*; missing: 'petal_width'; unexpected: 'width', 'id'"),
    (["iris.onnx", "three.npy"], r"three.npy: expected shape \(N, 4\), .* found \(2, 3\)"),
    (["iris.onnx", "size.png"], "size.png: the model takes a table with the columns sepal_length"),
    (["pictures.onnx", "rows.csv"], "rows.csv: is a table, but the model takes grey images of 3 x 4 pixels"),
    (["pictures.onnx", "size.png"], r"size.png: expected 3 x 4 pixels \(height x width\), found 5 x 5"),
    (["pictures.onnx", "mode.png"], r"mode.png: expected a grey image \(mode L\), found mode RGB"),
    (["pictures.onnx", "folder"], "folder: has no rows"),
    (["pictures.onnx", "."], "expected only images"),
    (["iris.onnx", "rows.csv", "--output", "said.txt"], "said.txt: expected a name that ends in .csv"),
    (["iris.onnx", "rows.csv", "--output", "nowhere/said.csv"], "nowhere/said.csv: there is no folder nowhere"),
    (["iris.onnx", "rows.csv", "--output", "rows.csv", "--overwrite"], "rows.csv: is the input file"),
    (["iris.onnx", "rows.csv", "--format", "xml"], "--format"),
    (["iris.onnx", "rows.csv", "--json"], "--json: stdout is taken by the predictions: add --output FILE"),
    (["iris.onnx"], "requires an argument"),
    (["no-such-model", "rows.csv"], "there is no file and no registered model 'no-such-model'"),
    (["models:/iris", "rows.csv"], "models:/iris: expected models:/NAME@ALIAS or models:/NAME/VERSION"),
]


@pytest.mark.parametrize(("tokens", "message"), MISTAKES)
def test_bad_input_is_refused_in_one_line_with_exit_code_2_and_writes_nothing(
    console: Call, here: Path, tokens: list[str], message: str
) -> None:
    prepare_mistakes()
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    code, out, error = console(*tokens, *([] if {"--output", "--json"} & set(tokens) else ["--output", "said.csv"]))
    assert (code, out if "--json" not in tokens else "") == (2, "")
    assert re.search(message, error)
    assert error.startswith("hallmark: ")
    assert error.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


@pytest.mark.usefixtures("here")
def test_a_mistake_in_a_late_row_leaves_stdout_empty(console: Call) -> None:
    write_csv("late.csv", HEADER, [[1, 2, 3, 4]] * 300_000 + [["x", 1, 1, 1]])  # type: ignore[list-item]
    code, out, error = console("iris.onnx", "late.csv")
    assert (code, out) == (2, "")
    assert "late.csv: row 300001, column 'sepal_length': " in error


@pytest.mark.usefixtures("here")
def test_long_predictions_report_progress(console: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hallmark.tasks.runtime.progress.SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("hallmark.tasks.ml.predict.input_rows.NUMBERS_AT_ONCE", 400)
    np.save("rows.npy", np.ones((200, 4)))
    code, _, error = console("iris.onnx", "rows.npy", "--output", "said.csv")
    assert code == 0
    first, second, last = error.splitlines()
    assert re.fullmatch(r"predict  (50|100)%, (100|200) rows, [\d,]+ a second", first)
    assert re.fullmatch(r"predict  100%, 200 rows, [\d,]+ a second", second)
    assert last.startswith("predict  200 rows, 0 outside the training range; ")


@pytest.mark.usefixtures("here")
def test_json_contains_the_reason_of_a_refusal(console: Call) -> None:
    code, out, error = console("iris.onnx", "nowhere.csv", "--output", "said.csv", "--json")
    assert code == 2
    assert json.loads(out) == {"status": "refused", "error": error.removeprefix("hallmark: ").strip()}


@pytest.mark.usefixtures("here")
def test_a_registered_name_uses_its_champion(console: Call, tmp_path: Path) -> None:
    client, name = connect(), f"p{uuid.uuid4().hex[:12]}"
    client.create_registered_model(name)
    code, _, error = console(name, "rows.csv", "--output", "said.csv")
    assert (code, error) == (2, f"hallmark: {name}: has no version: train it first\n")
    (tmp_path / "stored").mkdir()
    path = certified.columns(tmp_path / "stored" / "model.onnx")
    client.create_model_version(name, path.parent.as_uri(), tags={"hallmark.onnx_sha256": file_digest(path)})
    client.set_registered_model_alias(name, "champion", "1")
    for model in (name, f"models:/{name}@champion", f"models:/{name}/1"):
        code, out, error = console(model, "rows.csv")
        assert code == 0, error
        check(rows_of(out))


def test_a_local_file_needs_neither_torch_nor_mlflow_nor_prefect(python: Callable[..., str], here: Path) -> None:
    heavy = ("torch", "prefect", "mlflow", "sklearn", "matplotlib")
    code = (
        "import sys\nfrom hallmark.flows.__main__ import run\n"
        f"assert run(['predict', {str(here / 'iris.onnx')!r}, {str(here / 'rows.csv')!r}]) == 0\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert python(code).splitlines()[-1] == "[]"


@pytest.mark.usefixtures("here")
def test_a_closed_pipe_is_not_an_error() -> None:
    write_csv("many.csv", HEADER, [[1, 2, 3, 4]] * 100_000)
    command = f"'{HALLMARK}' predict iris.onnx many.csv | head -n 2; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 3
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr.startswith("predict  100,000 rows, ")
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("here")
def test_a_full_disk_is_reported_in_one_line_with_exit_code_1() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    write_csv("many.csv", HEADER, [[1, 2, 3, 4]] * 100_000)
    with Path("/dev/full").open("w") as full:
        command = [HALLMARK, "predict", "iris.onnx", "many.csv"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "hallmark: stdout: cannot be written: No space left on device\n")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_file(tmp_path: Path, number: signal.Signals) -> None:
    before = set(tmp_path.rglob("*"))
    command = [HALLMARK, "predict", "iris.onnx", "-", "--output", "said.csv"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin
        process.stdin.write("\n".join([HEADER, *["1,2,3,4"] * 4_000_000]))  # more than the blocks that are read ahead
        process.stdin.flush()
        assert set(tmp_path.rglob("*")) > before, "it has not begun to write"
        process.send_signal(number)
        assert process.wait(timeout=60) == 130  # although stdin is still open
        with suppress(BrokenPipeError):
            process.stdin.close()
        assert process.stderr
        *progress, last = process.stderr.read().splitlines()  # a slow machine reports progress
    assert last == "hallmark: interrupted"
    assert all(line.startswith("predict  ") for line in progress)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("columns", [40, 80])
def test_a_terminal_gets_a_table_that_fits(columns: int) -> None:
    environment = os.environ | {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "xterm"}
    code, output = terminals.run([HALLMARK, "predict", "iris.onnx", "rows.csv"], environment)
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)  # NO_COLOR removes colours but keeps bold
    lines = [line for line in re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "\n", plain).splitlines() if line.strip()]
    start = next(index for index, line in enumerate(lines) if line.split()[:2] == ["row", "class"])
    names = [] if columns == 40 else [f"p_{name}" for name in certified.CLASSES]
    assert lines[start].split() == ["row", "class", "probability", *names]
    assert [line.split()[0] for line in lines[start + 1 : start + 4]] == ["1", "2", "3"]
    assert max(map(len, lines[start : start + 4])) <= columns
    assert lines[-1].startswith("predict  3 rows, 1 outside the training range; ")


def test_help_fits_eighty_columns(helps: Help) -> None:
    text = helps.texts["predict"]
    assert max(map(len, text.splitlines())) <= 80
    for option in ("--output", "--format", "--overwrite", "--json", "models:/NAME@ALIAS"):
        assert option in text
