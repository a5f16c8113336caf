"""`hallmark compare`: references to runs, counts against a count by hand, and output as text, JSON and HTML."""

import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from hallmark.flows.experiments import presets
from hallmark.flows.train import train
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.evaluation import paired_tests
from hallmark.tasks.runtime import settings
from hallmark.tasks.tracking import run_lookup
from hallmark.tasks.tracking.client import connect
from tests.support import registered
from tests.support.consoles import Call
from tests.support.html_pages import Parsed, is_self_contained


@pytest.fixture(scope="module")
def outcomes(prefect_server: str) -> list[Outcome]:  # noqa: ARG001 - the server comes first
    """Return a good run, one of two epochs, and one with another name and another split."""
    preset, names = presets.iris(), [f"c{uuid.uuid4().hex[:12]}" for _ in range(2)]
    long, short = (preset.training.model_copy(update={"device": "cpu", "epochs": epochs}) for epochs in (20, 2))
    data = preset.data.model_copy(update={"split": preset.data.split.model_copy(update={"seed": 5})})
    good = preset.model_copy(update={"name": names[0], "training": long})
    other = {"name": names[1], "training": short, "data": data}
    return [train(each) for each in (good, good.model_copy(update={"training": short}), good.model_copy(update=other))]


def twin(outcome: Outcome) -> str:
    """Create a run with the same records, except for the learning curves."""
    client = connect()
    stored = client.get_run(outcome.run.id)
    run_id = client.create_run(stored.info.experiment_id, tags=stored.data.tags).info.run_id
    client.log_artifact(run_id, client.download_artifacts(outcome.run.id, "experiment.toml"))
    for name, value in outcome.evaluation.metrics.items():
        client.log_metric(run_id, name, value)
    return run_id


def correct_by_row(outcome: Outcome) -> dict[bytes, bool]:
    """Return whether the shipped file classifies each test row correctly, by the row's content."""
    session, folder = onnxruntime.InferenceSession(outcome.artifact.path), outcome.dataset.folder
    x, y = np.load(folder / "test.x.npy"), np.load(folder / "test.y.npy")
    label, _ = session.run(None, {name: x[:, [i]] for i, name in enumerate(outcome.dataset.columns)})
    return {row.tobytes(): bool(found) for row, found in zip(x, label == y, strict=True)}


def test_two_runs_are_compared_as_json(outcomes: list[Outcome], console: Call) -> None:
    good, poor, _ = outcomes
    code, out, error = console("compare", good.run.id, poor.run.id[:8], "--json")
    found = json.loads(out)
    assert (code, error, out.count("\n")) == (0, "", 1)
    assert found["status"] == "compared"
    assert [one["run_id"] for one in found["runs"]] == [good.run.id, poor.run.id]
    assert found["differences"] == {"training.epochs": [20, 2]}
    for number, outcome in enumerate((good, poor)):
        recorded = outcome.evaluation.metrics
        for metric in ("test/accuracy", "test/log_loss", "test/loss"):
            assert found["metrics"][metric][number]["value"] == pytest.approx(recorded[metric])
        for metric in ("test/accuracy", "test/log_loss"):
            interval = found["metrics"][metric][number]["interval"]
            assert interval["low"] <= recorded[metric] <= interval["high"]
    before, after = correct_by_row(good), correct_by_row(poor)
    wins = sum(after[row] and not before[row] for row in before)
    losses = sum(before[row] and not after[row] for row in before)
    assert losses > 0
    (pair,) = found["pairs"]
    assert (pair["run"], pair["wins"], pair["losses"]) == (2, wins, losses)
    assert pair["p"] == paired_tests.mcnemar(wins, losses)
    assert pair["interval"] == pytest.approx(paired_tests.paired_interval(wins, losses, pair["rows"], 0.05))
    change = poor.evaluation.metrics["test/log_loss"] - good.evaluation.metrics["test/log_loss"]
    assert pair["log_loss"] == pytest.approx(change, abs=1e-6)


def test_every_kind_of_reference_finds_its_run(outcomes: list[Outcome]) -> None:
    name = registered.create_model(outcomes)
    experiment = outcomes[0].model_version.name
    for reference, expected in {
        f"{name}@champion": 0,
        f"models:/{name}@champion": 0,
        f"models:/{name}/2": 1,
        experiment: 1,
        outcomes[2].run.id[:12]: 2,
    }.items():
        assert run_lookup.find(reference).id == outcomes[expected].run.id


def test_sweep_stands_for_its_chosen_member(outcomes: list[Outcome], console: Call) -> None:
    client, name = connect(), f"c{uuid.uuid4().hex[:12]}"
    place = client.get_run(outcomes[0].run.id).info.experiment_id
    tags = {"hallmark.name": name, "hallmark.sweep": "training.lr", "hallmark.chosen_run": outcomes[1].run.id}
    parent = client.create_run(place, tags=tags).info.run_id
    assert run_lookup.find(parent).id == outcomes[1].run.id
    code, _, error = console("compare", name, outcomes[0].run.id)
    assert (code, error.count("\n")) == (2, 1)
    assert f"no run of '{name}' has finished" in error
    client.set_terminated(parent)
    assert run_lookup.find(name).id == outcomes[1].run.id
    client.delete_tag(parent, "hallmark.chosen_run")
    assert "no member was chosen" in console("compare", parent, outcomes[0].run.id)[2]


def test_ambiguous_name_or_id_is_refused(outcomes: list[Outcome], console: Call) -> None:
    client, digits = connect(), outcomes[0].run.id[:8]
    named_run = client.create_run(client.get_run(outcomes[0].run.id).info.experiment_id, tags={"hallmark.name": digits})
    code, _, error = console("compare", digits, outcomes[1].run.id)
    client.delete_run(named_run.info.run_id)
    assert (code, error.count("\n")) == (2, 1)
    assert f"{digits}: is an experiment's name and the beginning of a run id" in error
    assert run_lookup.find(digits).id == outcomes[0].run.id


def test_terminal_of_80_columns_truncates_no_number(
    outcomes: list[Outcome], console: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    good, poor, other = outcomes
    code, out, _ = console("compare", *(outcome.run.id for outcome in outcomes), *(twin(poor) for _ in range(5)))
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert all(outcome.run.id[:8] in out for outcome in outcomes)
    metrics, pairs = out.split("Compared with run 1")
    found = [each for line in re.findall("^log_loss (.*)$", metrics, re.MULTILINE) for each in line.split()]
    assert found == [f"{each.evaluation.metrics['test/log_loss']:.4f}" for each in (good, poor, other, *[poor] * 5)]
    assert re.search(r"^training.epochs +20 +2 ", out, re.MULTILINE)
    assert "precision" not in out  # metrics by class are only on the page
    assert re.search("^ +run 2 +run 4 +run 5 +run 6 +run 7 +run 8$", pairs, re.MULTILINE)
    notes = " ".join(pairs.split())
    assert "run 3: no paired test, and its metrics are for different rows: its 30 test rows are not the 30" in notes
    assert re.search(r"run 1 used \d+ of the 30 test rows of run 3 for training or validation", notes)


def test_runs_without_differences_are_reported_as_such(outcomes: list[Outcome], console: Call) -> None:
    code, out, _ = console("compare", outcomes[0].run.id, twin(outcomes[0]))
    assert code == 0
    assert "The runs do not differ in options, data, code or machine." in out
    assert re.search(r"^wins +0$", out, re.MULTILINE)
    assert re.search(r"^p +1\.0000$", out, re.MULTILINE)


@pytest.fixture
def name_with_markup(outcomes: list[Outcome]) -> Iterator[str]:
    """Give the second run a name with markup, until the test ends."""
    client, run_id, name = connect(), outcomes[1].run.id, "<b>bold</b> & $x$ [red]"
    before = client.get_run(run_id).info.run_name
    client.set_tag(run_id, "mlflow.runName", name)
    yield name
    client.set_tag(run_id, "mlflow.runName", before)


def test_page_is_escaped_and_self_contained(
    outcomes: list[Outcome], name_with_markup: str, console: Call, tmp_path: Path
) -> None:
    page = tmp_path / "compared.html"
    code, out, _ = console("compare", outcomes[0].run.id, outcomes[1].run.id, "--html", str(page))
    assert code == 0
    assert "[red]" in out
    assert out.splitlines()[-1] == f"page: {page}"
    text = page.read_text()
    parsed = Parsed(text)
    assert is_self_contained(text)
    assert not parsed.named("b")
    assert name_with_markup in parsed.texts
    assert len(parsed.named("caption")) == len(parsed.named("table")) == 6
    assert len(parsed.named("svg")) == 1
    assert {"Test precision by class", "Test recall by class", "setosa"} <= set(parsed.texts)
    assert outcomes[0].run.id in parsed.texts
    before = page.read_bytes()
    code, out, error = console("compare", outcomes[0].run.id, outcomes[1].run.id, "--html", str(page))
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "add --overwrite" in error
    assert console("compare", outcomes[0].run.id, outcomes[1].run.id, "--html", str(page), "--overwrite")[0] == 0
    assert page.read_bytes() == before  # the same runs give the same page


def without_data(outcome: Outcome) -> None:
    shutil.rmtree(settings.read().home / "datasets" / outcome.dataset.digest)


def with_damaged_rows(outcome: Outcome) -> None:
    (settings.read().home / "datasets" / outcome.dataset.digest / "test.rows.npy").write_bytes(b"x")


def without_file(outcome: Outcome) -> None:
    connect().delete_tag(outcome.run.id, "hallmark.model_version")


def with_another_file(outcome: Outcome) -> None:
    connect().set_tag(outcome.run.id, "hallmark.onnx_sha256", "0" * 64)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_data, "is not on this machine"),
        (with_damaged_rows, "test.rows.npy: expected sha256"),
        (without_file, "it shipped no file"),
        (with_another_file, "its file is no longer registered"),
    ],
)
def test_runs_that_cannot_be_predicted_have_no_interval_and_a_reason(
    outcomes: list[Outcome],
    console: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Outcome], None],
    reason: str,
) -> None:
    other = outcomes[2]
    shutil.copytree(settings.read().home / "datasets", tmp_path / "home" / "datasets")
    monkeypatch.setenv("HALLMARK_HOME", str(tmp_path / "home"))
    client = connect()
    tags = client.get_run(other.run.id).data.tags
    try:
        change(other)
        code, out, _ = console("compare", outcomes[0].run.id, other.run.id, "--json")
    finally:
        for tag in ("hallmark.model_version", "hallmark.onnx_sha256"):
            client.set_tag(other.run.id, tag, tags[tag])
    found = json.loads(out)
    assert code == 0
    first, second = found["metrics"]["test/accuracy"]
    assert first["interval"]
    assert second["value"] == pytest.approx(other.evaluation.metrics["test/accuracy"])
    assert second["interval"] is None
    assert not found["pairs"]
    (note,) = [note for note in found["notes"] if note.startswith("run 2: no intervals")]
    assert reason in note


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "expected 2 to 8 runs, found 0"),
        (["RUN"], "expected 2 to 8 runs, found 1"),
        (["RUN"] * 9, "expected 2 to 8 runs, found 9"),
        (["RUN", "NAME@champion"], "NAME@champion: is the same run as RUN"),
        (["RUN", "ffffffff"], "ffffffff: no run id begins with it"),
        (["RUN", "0"], "there is no run '0'"),
        (["RUN", "EXPERIMENx"], "there is no run 'EXPERIMENx': did you mean 'EXPERIMENT'"),
        (["RUN", "' OR 1=1"], "there is no run"),
        (["RUN", "[red]"], r"there is no run '\[red\]'"),
        (["RUN", "no-such@champion"], "there is no registered model 'no-such'"),
        (["RUN", "NAME@nobody"], "NAME: has no nobody"),
        (["RUN", "models:/NAME/9"], "NAME: has no version 9"),
        (["RUN", "models:NAME"], "models:NAME: expected models:/"),
        (["RUN", "FOREIGN"], "was not made by Hallmark"),
        (["RUN", "EMPTY"], "its experiment.toml is not in the store"),
        (["RUN", "OTHER", "--html", "FOLDER/none/page.html"], "there is no folder"),
        (["RUN", "OTHER", "--html", "FOLDER"], "is not a regular file: choose another name"),
        (["RUN", "OTHER", "--nothing"], "--nothing"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(
    outcomes: list[Outcome], console: Call, tmp_path: Path, tokens: list[str], message: str
) -> None:
    client = connect()
    place = client.get_run(outcomes[0].run.id).info.experiment_id
    bare = {"hallmark.experiment_digest": "0" * 64, "hallmark.dataset_digest": "0" * 64}
    values = {
        "RUN": outcomes[0].run.id,
        "OTHER": outcomes[1].run.id,
        "NAME": registered.create_model(outcomes),
        "EXPERIMENT": outcomes[2].model_version.name,
        "EXPERIMENx": f"{outcomes[2].model_version.name[:-1]}x",
        "FOREIGN": client.create_run(place).info.run_id,
        "EMPTY": client.create_run(place, tags=bare).info.run_id,
        "FOLDER": str(tmp_path),
    }

    def fill_in(text: str) -> str:
        return re.sub("|".join(values), lambda found: values[found[0]], text)

    page = [] if "--html" in tokens else ["--html", str(tmp_path / "page.html")]
    code, out, error = console("compare", *map(fill_in, tokens), *page)
    assert (code, out) == (2, "")
    assert re.search(fill_in(message), error)
    assert error.startswith("hallmark: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
    if "--nothing" not in tokens:
        code, out, _ = console("compare", *map(fill_in, tokens), *page, "--json")
        assert (code, json.loads(out)["status"]) == (2, "refused")


def test_compare_and_card_import_neither_torch_nor_prefect_nor_jinja(
    outcomes: list[Outcome], python: Callable[..., str], tmp_path: Path
) -> None:
    code = (
        "import sys; from hallmark.flows.__main__ import run; first, second, card = sys.argv[1:]\n"
        "assert run(['compare', first, second, '--json']) == 0\n"
        "assert run(['card', first, '--output', card]) == 0\n"
        "print(sorted({'torch', 'prefect', 'sklearn', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    )
    output = python(code, outcomes[0].run.id, outcomes[1].run.id, tmp_path / "card.html")
    assert output.splitlines()[-1] == "[]"
