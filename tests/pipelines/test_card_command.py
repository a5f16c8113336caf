"""`hallmark card`: what it fetches, and what it refuses."""

import json
import re
from pathlib import Path

import pytest

from hallmark.tasks.tracking.client import connect
from tests.support.cards import Trained, download_card
from tests.support.consoles import Call


def test_command_accepts_every_kind_of_reference(
    flowers: Trained, console: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, outcome = flowers
    expected = download_card(outcome, tmp_path).read_bytes()
    monkeypatch.chdir(tmp_path)
    for number, reference in enumerate((outcome.run.id[:12], experiment.name, f"{experiment.name}@champion")):
        code, out, error = console("card", reference, "--output", f"{number}.html")
        assert (code, error) == (0, "")
        assert out.split() == ["card", f"{number}.html"]
        assert Path(f"{number}.html").read_bytes() == expected
    code, out, _ = console("card", experiment.name, "--json")
    path = tmp_path / f"{experiment.name}.card.html"
    assert json.loads(out) == {"status": "written", "run_id": outcome.run.id, "card": str(path), "live": None}
    assert path.read_bytes() == expected
    assert console("card", experiment.name)[0] == 2
    assert console("card", experiment.name, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["no-such@champion"], "there is no registered model 'no-such'"),
        (["no-such"], "there is no run 'no-such'"),
        (["BARE"], "has no card: only a run that shipped a file has one"),
        (["NAME", "--output", "FOLDER"], "is not a regular file: choose another name"),
        (["NAME", "--output", "FOLDER/none/card.html"], "there is no folder"),
        (
            ["NAME", "--live", "FOLDER/live"],
            "an image, but NAME.onnx takes columns: sepal_length",
        ),
        (["NAME", "--live", "FOLDER/none/live"], "--live: expected a model whose input is an image"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(
    flowers: Trained, console: Call, tmp_path: Path, tokens: list[str], message: str
) -> None:
    experiment, outcome = flowers
    client = connect()
    tags = {"hallmark.experiment_digest": "0" * 64, "hallmark.name": "bare"}
    bare_run = client.create_run(client.get_run(outcome.run.id).info.experiment_id, tags=tags).info.run_id
    values = {"NAME": experiment.name, "FOLDER": str(tmp_path), "BARE": bare_run}

    def fill_in(text: str) -> str:
        return re.sub("|".join(values), lambda found: values[found[0]], text)

    output = [] if "--output" in tokens else ["--output", str(tmp_path / "card.html")]
    code, out, error = console("card", *map(fill_in, tokens), *output)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert fill_in(message) in error
    assert not list(tmp_path.iterdir())
    code, out, _ = console("card", *map(fill_in, tokens), *output, "--json")
    assert (code, json.loads(out)["status"]) == (2, "refused")


def test_changed_card_is_refused(flowers: Trained, console: Call, tmp_path: Path) -> None:
    outcome, client = flowers[1], connect()
    expected = client.get_run(outcome.run.id).data.tags["hallmark.card_sha256"]
    client.set_tag(outcome.run.id, "hallmark.card_sha256", "0" * 64)
    try:
        code, _, error = console("card", outcome.run.id, "--output", str(tmp_path / "card.html"))
    finally:
        client.set_tag(outcome.run.id, "hallmark.card_sha256", expected)
    assert (code, error.count("\n")) == (1, 1)
    assert "expected sha256 000000000000" in error
    assert not list(tmp_path.iterdir())
