"""`hallmark train FILE` refuses a table that cannot be trained on: one line, exit code 2, and nothing is started."""

import re
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from hallmark.flows.__main__ import run

GOOD = "a,b,t\n" + "1,p,x\n2,q,y\n" * 20

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.mark.parametrize(
    ("content", "tokens", "message"),
    [
        (None, "--target t", "there is no such file or folder: did you mean '.*rows.parquet'?"),
        (GOOD, "", "the column to predict is missing: add --target and one of the columns: a, b, t"),
        (GOOD, "--target tt", "--target: there is no column 'tt': did you mean 't'?"),
        (GOOD, "--target t --data.ignore aa", "--data.ignore: there is no column 'aa': did you mean 'a'?"),
        (GOOD, "--target t --data.split.group bb", "--data.split.group: there is no column 'bb': did you mean 'b'?"),
        (GOOD, "--target t --data.columns.bb numeric", "--data.columns.bb: there is no column 'bb'"),
        (GOOD, "--target t --data.columns.b number", "--data.columns.b: .*found 'number'"),
        (GOOD, "--target t --data.ignore a,b", "no input column is left besides the target 't'"),
        (GOOD, "--target t --data.ignore t", "target 't' cannot be in ignore too"),
        (GOOD, "--target t --data.columns.b boolean", "row 1, column 'b': expected true or false .* found 'p'"),
        (
            GOOD,
            "--target t --data.split.time b",
            "row 1, column 'b': expected numbers, or dates such as 2026-11-30, found 'p': .* --data.split.time b",
        ),
        (GOOD, "--target t --model.kind cnn", "model.kind 'cnn' needs images, but data.kind 'table' has columns"),
        (GOOD.replace("y", "x"), "--target t", "target 't': expected at least two classes, found only 'x'"),
        (
            "a,t\n" + "".join(f"1,{i}\n" for i in range(30)),
            "--target t",
            "target 't': .* found 30 different values in 30 rows",
        ),
        (GOOD + "3,r,z\n", "--target t", "class 'z' has 1 of 41 rows, too few for every split"),
        (GOOD + "3,r,z,4\n", "--target t", "row 41: expected 3 fields as in the heading, found 4"),
        (
            GOOD + "inf,p,x\n-inf,p,x\n",
            "--target t",
            "row 41, column 'a': expected a finite number .* found inf: .* --data.ignore a",
        ),
        (
            GOOD.encode() + b"3,\xe9,x\n",
            "--target t",
            "line 42: expected UTF-8, found byte 0xe9 at offset 248: .* `iconv -f latin1",
        ),
        (GOOD.encode("utf-16"), "--target t", "found byte 0xff at offset 0: .* `iconv -f utf-16"),
        (
            GOOD.replace("p", "2026-01-01").replace("q", "2026-01-02"),
            "--target t",
            "found dates: .* --data.columns.b date",
        ),
        (GOOD.replace(",", ";"), "--target t", "has one column, 'a;b;t': .* add --data.separator ';'"),
        (GOOD.replace("b", "a", 1), "--target t", "two columns are named 'a'"),
        (GOOD.replace("b", "", 1), "--target t", "column 2 has no name"),
        (GOOD.replace("b", "label", 1), "--target t", "column 'label' has a name that the exported model uses itself"),
        ("", "--target t", "has no heading"),
        ("a,b,t\n", "--target t", "has no rows"),
        (pa.table({"a": [[1], [2]] * 9, "t": ["x", "y"] * 9}), "--target t", "column 'a': .* found type list"),
        (pa.table({"a": [1, 2] * 9, "t": [[1], [2]] * 9}), "--target t", "column 't': .* found type list"),
        (GOOD, "--target t --training.batch_size 500", "training.batch_size: 500 is more than the 24 rows"),
    ],
)
def test_a_table_that_cannot_be_trained_on_is_refused_in_one_line(
    content: "str | bytes | pa.Table | None",
    tokens: str,
    message: str,
    tmp_path: Path,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / ("rows.parquet" if isinstance(content, pa.Table) else "rows.csv")
    if isinstance(content, pa.Table):
        parquet.write_table(content, path)
    elif content is None:
        (tmp_path / "rows.parquet").touch()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    code = run(["train", str(path), *tokens.split()])
    error = capsys.readouterr().err.strip()
    assert code == 2, error
    assert re.search(message.replace("?", r"\?"), error), error
    assert error.startswith("hallmark: ")
    assert "\n" not in error
    assert not list(home.glob("datasets/*"))
    assert not list(home.glob("fits/*"))
