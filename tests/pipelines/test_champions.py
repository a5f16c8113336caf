"""Champions: promoted by hand, rolled back, refused without a proof, and shown by the commands."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hallmark.tasks.common.results import Outcome
from hallmark.tasks.promotion import champions
from hallmark.tasks.tracking.client import connect
from hallmark.tasks.tracking.registry import model_registry
from tests.support import registered
from tests.support.consoles import Call
from tests.support.registered import aliases, registry_state, stored_file

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def name(three_seeds: list[Outcome]) -> str:
    return registered.create_model(three_seeds)


def test_manual_promotions_and_rollbacks_are_shown_by_the_commands(name: str, console: Call) -> None:
    assert console("champion", name)[0] == 0
    code, out, _ = console("promote", name, "2", "--reason", "it is newer", "--json")
    decision = json.loads(out)
    assert (code, decision["verdict"], decision["champion"], decision["previous"]) == (0, "MANUAL", 2, 1)
    assert console("promote", name, "3", "--reason", "newer still")[0] == 0
    assert aliases(name) == {"champion": 3, "previous": 2}
    code, out, _ = console("rollback", name, "--reason", "it was not", "--json")
    assert (code, json.loads(out)["champion"]) == (0, 2)
    assert aliases(name) == {"champion": 2, "previous": 1}
    assert champions.demoted_version(name, 3) == 3
    assert console("rollback", name)[0] == 0
    assert aliases(name) == {"champion": 1}
    code, out, _ = console("champion", name, "--json")
    result = json.loads(out)
    assert (result["version"], result["previous"], result["why"]) == (1, None, "ROLLBACK: rolled back")
    code, out, _ = console("history", name, "--json")
    verdicts = [decision["verdict"] for decision in json.loads(out)["decisions"]]
    assert verdicts == ["MANUAL", "MANUAL", "ROLLBACK", "ROLLBACK"]
    assert "it is newer" in console("history", name)[1]
    # A version that was rolled back may be promoted by hand.
    assert console("promote", name, "3", "--reason", "after all")[0] == 0
    assert aliases(name) == {"champion": 3, "previous": 1}


def test_a_dry_run_records_nothing(name: str, console: Call) -> None:
    before = registry_state(name)
    code, out, _ = console("judge", name, "2", "--json")
    result = json.loads(out)
    assert (code, result["verdict"], result["champion"], result["challenger"]) == (0, "HOLD", 1, 2)
    assert [gate["name"] for gate in result["judgement"]["gates"]] == [
        "proof holds",
        "same inputs and classes",
        "loss finite",
        "file size",
        "latency of one row",
        "not rolled back",
        "no new disqualifying finding",
        "accuracy floor",
        "recall of each class",
    ]
    code, out, _ = console("judge", name, "2", "--rule.size_budget", "100")
    assert code == 0
    assert "REJECT" in out
    assert "FAILED" in out
    assert registry_state(name) == before


def test_without_a_champion_a_version_can_be_promoted_but_not_rolled_back(name: str, console: Call) -> None:
    champions.promote(name, 2, "a try")
    connect().delete_registered_model_alias(name, "champion")
    code, _, error = console("rollback", name)
    assert (code, error.count("\n")) == (2, 1)
    assert "has no champion" in error
    assert aliases(name) == {"previous": 1}
    assert console("promote", name, "3", "--reason", "a third")[0] == 0
    assert aliases(name) == {"champion": 3}


def test_a_rolled_back_version_is_rejected_when_it_is_judged(name: str, console: Call) -> None:
    champions.promote(name, 2, "a try")
    champions.rollback(name, "it failed")
    code, out, _ = console("judge", name, "2", "--json")
    result = json.loads(out)
    assert (code, result["verdict"]) == (0, "REJECT")
    assert "not rolled back" in result["reason"]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["champion", "no-such-model"], "there is no registered model 'no-such-model'"),
        (["history", "no-such-model"], "there is no registered model 'no-such-model'"),
        (["judge", "no-such-model", "1"], "there is no registered model 'no-such-model'"),
        (["promote", "no-such-model", "1", "--reason", "x"], "no registered model 'no-such-model'"),
        (["rollback", "no-such-model"], "there is no registered model 'no-such-model'"),
        (["judge", "NAME", "9"], "has no version 9: its versions are 1, 2, 3"),
        (["judge", "NAME", "1"], "version 1: is the champion"),
        (["judge", "NAME", "2", "--rule.alhpa", "1"], "--rule.alhpa: there is no such option"),
        (["judge", "NAME", "2", "--rule.alpha", "7"], "--rule.alpha: .*found '7'"),
        (["judge", "NAME", "2", "--rule.alpha"], "--rule.alpha: expected a value after it"),
        (
            ["judge", "NAME", "2", "--training.lr", "7"],
            "expected an option such as --rule.alpha 0.01, found '--training.lr'",
        ),
        (["judge", "NAME", "two"], "(?i)version"),
        (["promote", "NAME", "9", "--reason", "x"], "has no version 9: its versions are 1, 2, 3"),
        (["promote", "NAME", "1", "--reason", "x"], "version 1: is the champion already"),
        (["promote", "NAME", "2"], "(?i)reason"),
        (["promote", "NAME", "2", "--reason", " "], "--reason: expected a reason in words"),
        (["rollback", "NAME"], "has no previous version to roll back to"),
        (["retrain", "irsi"], "there is no preset 'irsi': did you mean 'iris'"),
        (["retrain", "iris", "--rule.mode", "best"], "--rule.mode: .*found 'best'"),
        (["retrain", "iris", "--notify", "nowhere"], "--notify: "),
        (["retrain", "iris_softmax"], "'resubstitution' tests on the training rows"),
    ],
)
def test_bad_input_is_refused_in_one_line_with_exit_code_2_and_changes_nothing(
    name: str, console: Call, tokens: list[str], message: str
) -> None:
    before = registry_state(name)
    code, out, error = console(*[name if each == "NAME" else each for each in tokens])
    assert (code, out) == (2, "")
    assert re.search(message, error)
    assert error.startswith("hallmark: ")
    assert error.count("\n") == 1
    assert registry_state(name) == before


def damage_file(name: str) -> None:
    stored_file(name, 2).write_bytes(stored_file(name, 2).read_bytes() + b"x")


def remove_file(name: str) -> None:
    stored_file(name, 2).unlink()


def forget_digest(name: str) -> None:
    connect().delete_model_version_tag(name, "2", "hallmark.onnx_sha256")


def forget_proof(name: str) -> None:
    connect().delete_model_version_tag(name, "2", "hallmark.parity")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage_file, "the stored file is not the one that was registered"),
        (remove_file, "cannot be fetched"),
        (forget_digest, "was not registered by Hallmark"),
        (forget_proof, "its proof is missing"),
    ],
)
@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_a_version_that_cannot_be_verified_is_not_made_champion(
    name: str, console: Call, command: str, change: Callable[[str], None], message: str
) -> None:
    if command == "rollback":
        champions.promote(name, 2, "a try")
        champions.promote(name, 3, "another")
    model_registry.fetch(f"models:/{name}/2")  # a valid local copy must not hide the fault of the stored file
    change(name)
    before = registry_state(name)
    tokens = ["promote", name, "2", "--reason", "x"] if command == "promote" else ["rollback", name]
    code, out, error = console(*tokens)
    assert (code, out) == (2, "")
    assert message in error
    assert error.count("\n") == 1
    assert registry_state(name) == before


def test_a_model_with_unknown_training_rows_is_not_judged(name: str, console: Call) -> None:
    client = connect()
    path = stored_file(name, 2)
    client.create_model_version(name, path.parent.as_uri(), tags=client.get_model_version(name, "2").tags)
    code, _, error = console("judge", name, "4")
    assert code == 2
    assert "version 4: has no MLflow run, so its experiment is unknown" in error


def test_a_version_whose_experiment_cannot_be_read_is_not_judged(name: str, console: Call, tmp_path: Path) -> None:
    client, path = connect(), stored_file(name, 2)
    version = client.get_model_version(name, "2")
    run = client.get_run(version.run_id)
    run_id = client.create_run(run.info.experiment_id, tags=run.data.tags).info.run_id
    client.create_model_version(name, path.parent.as_uri(), run_id, tags=version.tags)
    code, out, error = console("judge", name, "4")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert f"run {run_id[:8]}: its experiment.toml is not in the store" in error
    (tmp_path / "experiment.toml").write_text("[training]\nwarp = 9\n")
    client.log_artifact(run_id, tmp_path / "experiment.toml")
    code, out, error = console("judge", name, "4", "--json")
    assert (code, json.loads(out)["status"], error.count("\n")) == (2, "refused", 1)
    assert f"run {run_id[:8]}: its experiment was recorded by another version of Hallmark: " in error
