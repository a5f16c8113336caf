"""`hallmark sweep` on the command line: what it refuses and prints."""

import json
import re
import sys
import uuid
from functools import partial
from pathlib import Path

import pytest

from hallmark.flows.experiments import sweep_grids
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.tracking import client
from hallmark.tasks.tracking.run_queries import recent_runs
from tests.pipelines.conftest import Help
from tests.support.consoles import Call

pytestmark = pytest.mark.usefixtures("prefect_server")

LR, SEED = "--training.lr", "--training.seed"
HUGE = ["--model.hidden", "65536,65536", SEED, "0..99"]


@pytest.fixture
def console(console: Call) -> Call:
    """Return a function that runs `hallmark sweep` in this process: exit code, stdout and stderr."""
    return partial(console, "sweep")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["irsi", SEED, "0,1"], "there is no preset 'irsi': did you mean 'iris'?"),
        ([], "requires an argument"),
        (["iris"], "no option varies: give at least one option several values, as --training.seed 0..4"),
        (["iris", LR, "0.1"], "no option varies: "),
        (["iris", LR, ","], "--training.lr: expected values separated by ',', found ','"),
        (["iris", LR, "fast,slow"], "--training.lr: input should be a valid number, .*found 'fast'"),
        (["iris", "--data.seed", "0,1"], "--data.seed: "),
        (["iris", "--data.split.seed", "0..4"], "--data.split.seed: cannot vary within a sweep"),
        (["iris", "--training.optimizer", "0..4"], "--training.optimizer: expected no range or distribution"),
        (["iris", SEED, "4..0"], "--training.seed: the range is reversed, found '4..0': write 0..4"),
        (["iris", LR, "uniform:0:1"], "--training.lr: a distribution needs --random"),
        (["iris", "--random", "4", LR, "loguniform:1:1e-4"], "--training.lr: expected LOW below HIGH, found"),
        (["iris", "--random", "0", LR, "uniform:0:1"], "--random: expected 1 to "),
        (["iris", "--random", "many", LR, "uniform:0:1"], "--random"),
        (["iris", LR, "1,2", "--data.split.validation", "0"], "--data.split.validation: a sweep chooses by valid"),
        (["threshold", LR, "1,2"], "threshold: data.split.validation: a sweep chooses by validation loss"),
        (["iris", "--training.batch_size", "30,91"], "91 is more than the 90 rows of the training split"),
        (["iris", "--training.device", "mps", SEED, "0,1"], "training.device: torch .* finds no 'mps' device"),
    ],
)
def test_bad_input_is_refused_in_one_line_with_exit_code_2_and_writes_nothing(
    console: Call, tokens: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "darwin" and "mps" in tokens:
        pytest.skip("this machine has MPS, so requesting it is not an error")
    assert_refused(console, tokens, message, tmp_path, monkeypatch)


def assert_refused(console: Call, tokens: list[str], message: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALLMARK_HOME", str(home))
    before = len(recent_runs(None, 1000))
    code, out, error = console(*tokens)
    assert (code, out) == (2, "")
    assert re.match(f"hallmark: {message}", error) or (error.startswith("hallmark: ") and re.search(message, error))
    assert error.count("\n") == 1
    assert files(home) == []
    assert len(recent_runs(None, 1000)) == before


def test_members_that_exceed_memory_are_refused_before_training(
    console: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = r"100 members with the same shape do not fit into memory together: \d+ fit: give fewer values"
    assert_refused(console, ["iris", *HUGE], message, tmp_path, monkeypatch)


def test_members_that_exceed_memory_are_refused_with_the_number_that_fits(console: Call) -> None:
    """Check this in the home of the session too, where other tests have prepared data."""
    name = f"c{uuid.uuid4().hex[:12]}"
    code, out, error = console("iris", *HUGE, "--name", name)
    assert (code, out) == (2, "")
    assert re.search(
        r"100 members with the same shape do not fit into memory together: \d+ fit: ", error.splitlines()[-1]
    )
    assert recent_runs(name, 1) == []


def test_json_contains_the_reason_of_a_refusal(console: Call) -> None:
    code, out, error = console("iris", SEED, "4..0", "--json")
    assert code == 2
    assert json.loads(out) == {"status": "refused", "error": error.removeprefix("hallmark: ").strip()}


def named() -> list[str]:
    return ["--name", f"c{uuid.uuid4().hex[:12]}", "--training.epochs", "3", "--training.device", "cpu"]


def test_json_is_the_last_line_of_stdout_and_complete(console: Call) -> None:
    options = named()
    code, out, error = console("iris", LR, "0.01,1e30", "--training.optimizer", "sgd", *options, "--json")
    assert code == 0, error
    result = json.loads(out.splitlines()[-1])
    assert set(result) >= {
        "status", "name", "run_id", "dataset_digest", "onnx", "sha256", "metrics", "parity", "diagnosis",
        "model_version", "champion", "axes", "members", "chosen", "chosen_run_id",
    }  # fmt: skip
    assert (result["status"], result["name"], result["model_version"]) == ("finished", options[1], 1)
    assert file_digest(Path(result["onnx"])) == result["sha256"]
    assert (result["axes"], result["chosen"]) == (["training.lr"], 0)
    first, second = result["members"]
    assert set(first) == set(second) == {"values", "run_id", "val_loss", "way", "failed"}
    assert (first["values"], first["way"], first["failed"]) == ({"training.lr": 0.01}, "stacked", None)
    assert (second["val_loss"], second["failed"].startswith("training diverged: ")) == (None, True)
    assert result["chosen_run_id"] == first["run_id"]
    assert result["metrics"]["val/loss"] == first["val_loss"]
    assert "test/accuracy" in result["metrics"]
    assert client.connect().get_run(result["run_id"]).info.status == "FINISHED"


def test_json_has_the_keys_of_train(console: Call) -> None:
    _, out, _ = console("iris", SEED, "0,1", *named(), "--json")
    assert {"experiment_digest", "resumed_from"} <= set(json.loads(out.splitlines()[-1]))


def test_table_lists_the_best_first_and_fits_a_narrow_terminal(console: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    axes = [LR, "0.001,0.01", "--training.weight_decay", "0,0.001,0.01", SEED, "0..2"]
    code, out, error = console("iris", *axes, *named())
    assert code == 0, error
    heading, *rows = out.splitlines()
    assert heading.split() == ["lr", "weight_decay", "seed", "val", "loss"]
    shown = rows[: rows.index("... and 6 more")]
    assert len(shown) == 12
    assert [row.startswith("chosen") for row in shown] == [True] + [False] * 11
    losses = [float(row.split()[-1]) for row in shown]
    assert losses == sorted(losses)
    assert [row for row in (heading, *shown) if len(row.rstrip()) > 60] == []
    summary = dict(row.split(maxsplit=1) for row in rows[13:])
    assert list(summary) == ["accuracy", "parity", "findings", "model", "champion", "onnx", "sweep", "next"]
    assert "fit      18 members: 18 together" in error.splitlines()
    assert "\x1b" not in out + error


def test_options_with_equal_last_names_are_distinguished_and_no_number_is_truncated(
    console: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    varied = ["--model.kind", "linear,mlp", "--training.schedule.kind", "constant,cosine", LR, "0.00123456,0.0123456"]
    code, out, error = console("iris", *varied, *named())
    assert code == 0, error
    heading, first, *_ = out.splitlines()
    assert len(set(heading.split())) == len(heading.split())
    assert "…" not in out
    assert "0.0123456" in first


def test_failed_step_is_named(console: Call) -> None:
    code, out, error = console("iris", LR, "1e30,1e29", "--training.optimizer", "sgd", *named(), "--json")
    assert code == 1
    assert re.match(
        r"hallmark: choose failed: all 2 members diverged, the first one: .* \(log: ", error.splitlines()[-1]
    )
    assert json.loads(out)["status"] == "failed"


def test_failure_outside_of_a_step_names_the_flow(console: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a plan is broken")

    monkeypatch.setattr("hallmark.flows.members.describe", fail)
    code, _, error = console("iris", SEED, "0,1", *named())
    assert code == 1
    assert error.splitlines()[-1].startswith("hallmark: sweep failed: a plan is broken (log: ")


def test_help_has_the_grammar_and_examples(helps: Help) -> None:
    text = helps.texts["sweep"]
    words = " ".join(text.split())
    for line in (*sweep_grids.GRAMMAR.splitlines(), "hallmark sweep mnist --random 32 --training.lr loguniform:1e-4:1"):
        assert " ".join(line.split()) in words
    assert max(map(len, text.splitlines())) <= 80
