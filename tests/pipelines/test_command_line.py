import importlib
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import prefect.settings
import pytest
from cyclopts import App

from hallmark.flows.__main__ import COMMANDS
from hallmark.flows.experiments import presets
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.runtime import prefect_api
from hallmark.tasks.tracking.run_queries import recent_runs
from tests.conftest import ROOT
from tests.pipelines.conftest import Help
from tests.support.consoles import Call
from tests.support.processes import HALLMARK


def hallmark(*tokens: str, cwd: Path = ROOT, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [HALLMARK, *tokens], capture_output=True, text=True, cwd=cwd, env=os.environ | environment, check=False
    )


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*")) if folder.exists() else set()


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["train", "irsi"], "there is no preset 'irsi': did you mean 'iris'?"),
        (["train", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["train", "iris", "--training.epoch", "3"], "did you mean 'training.epochs'?"),
        (["train", "iris", "--training.epochs", "0"], "--training.epochs: "),
        (["train", "iris", "--training.epochs", "-1"], "--training.epochs: "),
        (["train", "iris", "--training.lr", "fast"], "--training.lr: .*found 'fast'"),
        (["train", "iris", "--training.momentum", "0.5"], "momentum 0.5 and optimizer 'adam' contradict"),
        (["train", "iris", "--training.batch_size", "91"], "91 is more than the 90 rows"),
        (["train", "iris", "--data.split.test", "0.01"], "leave a split without rows of every class"),
        (["train", "iris", "--training.device", "mps"], "training.device: torch .* finds no 'mps' device"),
        (["train"], "requires an argument"),
        (["trian", "iris"], 'Did you mean "train"?'),
        (["show", "irsi"], "did you mean 'iris'?"),
        (["runs", "no-such-name"], "there is no run of an experiment 'no-such-name'"),
        (["runs", "o'brien"], "there is no run of an experiment 'o'brien'"),
        (["runs", "--limit", "0"], "--limit"),
        (["runs", "--limit", "60000"], "--limit"),
        (["ui", "--port", "0"], "--port"),
    ],
)
def test_bad_input_is_refused_in_one_line_with_exit_code_2_and_writes_nothing(
    console: Call, tokens: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "darwin" and "mps" in tokens:
        pytest.skip("this machine has MPS, so requesting it is not an error")
    monkeypatch.setenv("HALLMARK_HOME", str(tmp_path / "home"))
    runs = len(recent_runs(None, 1000))
    code, out, error = console(*tokens)
    assert (code, out) == (2, "")
    assert re.search(message, error)
    assert error.startswith("hallmark: ")
    assert error.count("\n") == 1
    assert not [path for path in files(tmp_path) if path.is_file()]
    assert len(recent_runs(None, 1000)) == runs


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_the_command_with_an_example(command: str, helps: Help) -> None:
    text = helps.texts[command]
    assert re.search(rf"^(Example: |  )hallmark {command}\b", text, re.MULTILINE)
    module, _, name = COMMANDS[command][0].partition(":")
    target = getattr(importlib.import_module(module), name)
    function = target.default_command if isinstance(target, App) else target
    assert " ".join(str(function.__doc__).split("\n\n")[0].split()) in " ".join(text.split())
    assert "[default: False]" not in text


def test_help_imports_no_command(helps: Help) -> None:
    assert helps.imported == []


def test_help_fills_a_narrow_terminal() -> None:
    lines = hallmark("verify", "--help", COLUMNS="60").stdout.splitlines()
    text = "\n".join(line.rstrip() for line in lines)
    exits = text[text.index("Exit code 0") : text.index("\n\nExample")].split("\n")
    assert all(len(line) > 40 for line in exits[:-1]), exits


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HALLMARK_HOME", "/dev/null/home", "HALLMARK_HOME: /dev/null/home cannot be written"),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:9", "MLFLOW_TRACKING_URI: http://127.0.0.1:9 cannot be reached"),
        ("MLFLOW_TRACKING_URI", "file:///tmp/mlruns", "MLFLOW_TRACKING_URI: file:///tmp/mlruns cannot be reached"),
        ("HALLMARK_UI_PORT", "abc", "HALLMARK_UI_PORT: .*found 'abc'"),
        ("HALLMARK_CHECKPOINT_SECONDS", "0", "HALLMARK_CHECKPOINT_SECONDS: .*found '0'"),  # read in the middle of a fit
    ],
)
def test_invalid_settings_are_refused(
    console: Call, variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    code, out, error = console("train", "iris")
    assert (code, out) == (2, "")
    assert re.match(f"hallmark: {message}", error)
    assert error.count("\n") == 1


def test_a_prefect_server_that_does_not_answer_is_refused() -> None:
    done = hallmark("train", "iris", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hallmark: PREFECT_API_URL: http://127.0.0.1:9/api does not answer")
    assert done.stderr.count("\n") == 1


def test_strict_refuses_known_mistakes_before_training(console: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = console("train", "iris_as_published", "--strict", "--json")
    assert code == 2
    assert json.loads(out)["status"] == "refused"
    for expected in ("scaling_fitted_beyond_training", "training_loss_as_validation", "--data.scaling_fitted_on train"):
        assert expected in err
    assert len(err.splitlines()) == 1
    assert recent_runs("iris_as_published", 1) == []


@pytest.mark.usefixtures("home", "prefect_server")  # a home without downloads
def test_failed_download_is_refused_and_leaves_no_run(console: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALLMARK_MIRROR", "http://127.0.0.1:9")
    name = f"t{uuid.uuid4().hex[:12]}"
    code, _, error = console("train", "mnist", "--name", name)
    assert code == 2
    assert "HALLMARK_MIRROR must be the URL of a folder" in error
    assert "Traceback" not in error
    assert recent_runs(name, 1) == []


@pytest.mark.usefixtures("prefect_server")
def test_json_is_the_last_line_of_stdout_and_complete(console: Call) -> None:
    name = f"j{uuid.uuid4().hex[:12]}"
    code, out, _ = console("train", "iris", "--json", "--name", name, "--training.epochs", "3")
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert set(result) == {
        "status", "name", "run_id", "experiment_digest", "dataset_digest", "onnx", "sha256",
        "metrics", "parity", "diagnosis", "model_version", "champion", "resumed_from",
    }  # fmt: skip
    assert (result["status"], result["name"], result["model_version"]) == ("finished", name, 1)
    assert Path(result["onnx"]).is_absolute()
    assert file_digest(Path(result["onnx"])) == result["sha256"]
    assert result["parity"]["passed"] is True
    assert result["parity"]["rows"] == 30
    assert {"train/loss", "val/accuracy", "test/accuracy", "test/brier"} <= set(result["metrics"])
    (finding,) = result["diagnosis"]
    assert set(finding) == {"code", "sentence", "remedy"}
    assert finding["code"] == "test_split_too_small"
    (recent,) = recent_runs(name, 10)
    assert (recent.id, recent.status) == (result["run_id"], "FINISHED")


@pytest.mark.usefixtures("prefect_server")
def test_failed_step_is_named_with_its_log_and_exit_code_1(console: Call) -> None:
    name = f"f{uuid.uuid4().hex[:12]}"
    options = ["--name", name, "--training.lr", "1e30", "--training.optimizer", "sgd"]
    code, out, error = console("train", "iris", "--json", *options)
    assert code == 1
    last = error.splitlines()[-1]
    assert re.match(r"hallmark: fit failed: training diverged: .* at epoch \d+, step \d+, learning rate 1e\+30", last)
    log = Path(last.rpartition("(log: ")[2].rstrip(")"))
    assert "DivergedError" in log.read_text()
    assert "Traceback" not in error
    assert json.loads(out)["status"] == "failed"
    assert [run.status for run in recent_runs(name, 10)] == ["FAILED"]


@pytest.mark.usefixtures("prefect_server")
def test_damaged_dataset_is_prepared_again_with_a_warning(
    console: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALLMARK_HOME", str(tmp_path))
    command = ["train", "iris", "--name", f"d{uuid.uuid4().hex[:12]}", "--training.epochs", "2"]
    code, _, error = console(*command)
    assert (code, "damaged" in error) == (0, False)
    (rows,) = tmp_path.glob("datasets/*/train.x.npy")
    rows.write_bytes(rows.read_bytes()[:-1] + b"!")
    code, out, error = console(*command, "--training.seed", "1")
    assert code == 0
    assert [line for line in error.splitlines() if "is damaged and is written again" in line]
    (champion,) = re.findall(r"^champion (.*)$", out, re.MULTILINE)
    assert re.match(r"is still version 1 \(accuracy \d\.\d{4}\): compare, promote or retrain with `", champion)
    assert f"compare {command[3]}@champion " in champion
    assert f"promote {command[3]} 2 --reason WHY` or `" in champion
    assert champion.endswith(f"retrain {' '.join(command[1:])} --training.seed 1`")
    assert "Traceback" not in error
    assert "Created version" in "".join(log.read_text() for log in tmp_path.glob("logs/*.log"))


def test_commands_repeat_requests_to_a_busy_prefect_server_for_four_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "")
    monkeypatch.delenv("PREFECT_CLIENT_MAX_RETRIES")
    prefect_api.wait_long()
    assert prefect.settings.Settings().client.max_retries == 7
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "2")
    prefect_api.wait_long()
    assert prefect.settings.Settings().client.max_retries == 2


def test_presets_are_listed_and_shown(console: Call) -> None:
    code, out, _ = console("presets", "--json")
    listed = {row["name"]: row["kind"] for row in json.loads(out)["presets"]}
    assert (code, listed) == (0, {name: kind for name, (kind, _) in presets.PRESETS.items()})
    _, table, _ = console("presets")
    for name in presets.PRESETS:
        assert name in table
    code, shown, _ = console("show", "digits")
    assert code == 0
    assert 'name = "digits"' in shown


@pytest.mark.usefixtures("prefect_server")
def test_runs_are_listed(console: Call) -> None:
    name = f"r{uuid.uuid4().hex[:12]}"
    for _ in range(2):
        assert console("train", "iris", "--name", name, "--training.epochs", "2")[0] == 0
    code, out, _ = console("runs", name)
    assert code == 0
    heading, *rows = out.splitlines()
    assert heading.split() == ["started", "run", "state", "accuracy", "loss", "model", "id"]
    assert [(row.split()[2], row.split()[3], row.split()[-2]) for row in rows] == [
        (name, "finished", "v1"),
        (name, "finished", "v1"),  # the same file is no new version
    ]
    _, out, _ = console("runs", name, "--json", "--limit", "1")
    assert [run["experiment"] for run in json.loads(out)["runs"]] == [name]
    code, _, error = console("runs", name[:-1])
    assert (code, f"did you mean '{name}'?" in error) == (2, True)


def test_ui_refers_to_the_ui_of_a_server(console: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert console("ui") == (
        0,
        "the server named by MLFLOW_TRACKING_URI serves the MLflow UI: http://127.0.0.1:9\n",
        "",
    )
