"""Who is champion: decisions that are killed between any two steps, by hand, rolled back, and told by the commands."""

import json
import os
import re
import shutil
import signal
import threading
import uuid
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from flows import presets
from flows.__main__ import run
from flows.train import train
from tasks import champions, registry, settings, store
from tasks.ml.records import Decision, Judged, Outcome
from tests import forks

pytestmark = pytest.mark.usefixtures("prefect_server")

Call = Callable[..., tuple[int, str, str]]
WRITES = ("create_", "log_", "set_", "finalize_", "update_", "delete_")
"""How the methods of MLflow's client begin that write."""


class Killed(BaseException):
    """The process is no more."""


@pytest.fixture(scope="module")
def outcomes(prefect_server: str) -> list[Outcome]:  # noqa: ARG001 - the server comes first
    """Three trainings with three seeds; their files are registered again by each test."""
    preset, name = presets.iris(), f"c{uuid.uuid4().hex[:12]}"
    found = []
    for seed in range(3):
        changed = preset.training.model_copy(update={"device": "cpu", "epochs": 20, "seed": seed})
        found.append(train(preset.model_copy(update={"name": name, "training": changed})))
    return found


def registered(outcomes: list[Outcome]) -> str:
    """A model with a version for each outcome, the first of them champion; their files are its own."""
    client, model = store.connect(), f"c{uuid.uuid4().hex[:12]}"
    client.create_registered_model(model)
    for number, outcome in enumerate(outcomes, 1):
        folder = settings.read().home / "stored" / model / str(number)
        folder.mkdir(parents=True)
        shutil.copy(outcome.artifact.path, folder / "model.onnx")
        tags = {"hallmark.onnx_sha256": outcome.artifact.sha256, "hallmark.parity": "passed"}
        client.create_model_version(model, folder.as_uri(), outcome.run.id, tags=tags)
    client.set_registered_model_alias(model, "champion", "1")
    return model


@pytest.fixture
def name(outcomes: list[Outcome]) -> str:
    return registered(outcomes)


@pytest.fixture
def console(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process; exit code, stdout and stderr."""

    def call(*tokens: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(list(tokens))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def aliases(name: str) -> dict[str, int]:
    found = store.connect().get_registered_model(name).aliases
    return {alias: int(version) for alias, version in found.items()}


def everything(name: str) -> tuple[object, ...]:
    """All that a registry says of a model."""
    client = store.connect()
    model = client.get_registered_model(name)
    versions = client.search_model_versions(f"name = '{name}'")
    return model.tags, model.aliases, sorted((int(one.version), tuple(one.tags.items())) for one in versions)


def stored(name: str, version: int) -> Path:
    return settings.read().home / "stored" / name / str(version) / "model.onnx"


def die() -> None:
    raise Killed


def kill_after(writes: int, patch: pytest.MonkeyPatch, how: Callable[[], None] = die) -> None:
    """Let the process end when MLflow has been written to so often."""
    done = iter(range(1, writes))

    def counted(method: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            found = method(*given, **named)
            if next(done, None) is None:
                how()
            return found

        return call

    for method in dir(MlflowClient):
        if method.startswith(WRITES):
            patch.setattr(MlflowClient, method, counted(getattr(MlflowClient, method)))


def killed(writes: int, action: Callable[[], object]) -> bool:
    """Do something, and be killed after so many writes; whether it came so far."""
    with pytest.MonkeyPatch.context() as patch:
        kill_after(writes, patch)
        try:
            action()
        except Killed:
            return True
    return False


def judged(name: str, verdict: str) -> Callable[[], Decision]:
    """What retraining does when the judgement is made, of version 2 against 1."""

    def act() -> Decision:
        with champions.alone(name):
            champions.repair(name)
            found = Judged(verdict, "as the test says", 1, 2, {}, {"gates": [], "p": 0.5}, 0)  # type: ignore[arg-type]
            return champions.finish(champions.record(champions.judged(name, found, "nightly")))

    return act


@pytest.mark.parametrize("verdict", ["PROMOTE", "HOLD", "REJECT"])
def test_a_decision_that_was_killed_after_any_write_is_finished_by_the_next_that_looks(
    outcomes: list[Outcome], verdict: str
) -> None:
    writes = 0
    wanted = {"champion": 2, "previous": 1} if verdict == "PROMOTE" else {"champion": 1}
    while True:
        writes += 1
        model = registered(outcomes)
        was_killed = killed(writes, judged(model, verdict))
        champions.look(model)
        (decision,) = champions.history(model)
        assert decision.done
        assert (decision.verdict, decision.before, decision.schedule) == (verdict, 1, "nightly")
        assert aliases(model) == wanted
        client = store.connect()
        for version in "12":
            assert "hallmark.decision.0001" in client.get_model_version(model, version).tags
        artifacts = {file.path for file in client.list_artifacts(outcomes[1].run.id)}
        assert "decision.json" in artifacts
        champions.look(model)
        assert champions.history(model) == [decision]
        if not was_killed:
            break
    assert writes >= (7 if verdict == "PROMOTE" else 5)


def test_a_rollback_that_was_killed_after_any_write_is_finished_by_the_next_that_looks(outcomes: list[Outcome]) -> None:
    writes = 0
    while True:
        writes += 1
        model = registered(outcomes)
        judged(model, "PROMOTE")()
        was_killed = killed(writes, lambda model=model: champions.rollback(model, "bad nights"))
        champions.look(model)
        assert aliases(model) == {"champion": 1}
        assert [decision.done for decision in champions.history(model)] == [True, True]
        assert champions.is_demoted(model, 2) == 2
        if not was_killed:
            break
    assert writes >= 7


def test_a_champion_that_somebody_made_after_a_crash_stays(name: str) -> None:
    assert killed(1, judged(name, "PROMOTE"))
    store.connect().set_registered_model_alias(name, "champion", "3")
    champions.look(name)
    assert aliases(name) == {"champion": 3}
    (decision,) = champions.history(name)
    assert decision.done
    assert "version 3 was made champion meanwhile" in decision.reason
    assert champions.standing(name).why == "set outside Hallmark"


def test_a_person_promotes_rolls_back_and_the_commands_tell_it(name: str, console: Call) -> None:
    assert console("champion", name)[0] == 0
    code, out, _ = console("promote", name, "2", "--reason", "it is newer", "--json")
    decision = json.loads(out)
    assert (code, decision["verdict"], decision["champion"], decision["previous"]) == (0, "MANUAL", 2, 1)
    assert console("promote", name, "3", "--reason", "newer still")[0] == 0
    assert aliases(name) == {"champion": 3, "previous": 2}
    code, out, _ = console("rollback", name, "--reason", "it was not", "--json")
    assert (code, json.loads(out)["champion"]) == (0, 2)
    assert aliases(name) == {"champion": 2, "previous": 1}
    assert champions.is_demoted(name, 3) == 3
    assert console("rollback", name)[0] == 0
    assert aliases(name) == {"champion": 1}
    code, out, _ = console("champion", name, "--json")
    said = json.loads(out)
    assert (said["version"], said["previous"], said["why"]) == (1, None, "ROLLBACK: rolled back")
    code, out, _ = console("history", name, "--json")
    verdicts = [decision["verdict"] for decision in json.loads(out)["decisions"]]
    assert verdicts == ["MANUAL", "MANUAL", "ROLLBACK", "ROLLBACK"]
    assert "it is newer" in console("history", name)[1]
    assert console("promote", name, "3", "--reason", "after all")[0] == 0  # by hand, what was rolled back may be
    assert aliases(name) == {"champion": 3, "previous": 1}


def test_a_dry_run_records_nothing(name: str, console: Call) -> None:
    before = everything(name)
    code, out, _ = console("judge", name, "2", "--json")
    said = json.loads(out)
    assert (code, said["verdict"], said["champion"], said["challenger"]) == (0, "HOLD", 1, 2)
    assert [gate["name"] for gate in said["judgement"]["gates"]] == [
        "proof holds",
        "same inputs and classes",
        "loss finite",
        "file size",
        "latency of one row",
        "not rolled back",
        "accuracy floor",
        "recall of each class",
    ]
    code, out, _ = console("judge", name, "2", "--rule.size_budget", "100")
    assert code == 0
    assert "REJECT" in out
    assert "FAILED" in out
    assert everything(name) == before


def test_what_was_rolled_back_is_rejected_by_a_schedule(name: str, console: Call) -> None:
    champions.promote(name, 2, "a try")
    champions.rollback(name, "it failed")
    code, out, _ = console("judge", name, "2", "--json")
    said = json.loads(out)
    assert (code, said["verdict"]) == (0, "REJECT")
    assert "not rolled back" in said["reason"]


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
        (["judge", "NAME", "2", "--training.lr", "7"], "'--training.lr': expected an option"),
        (["judge", "NAME", "two"], "(?i)version"),
        (["promote", "NAME", "9", "--reason", "x"], "has no version 9: its versions are 1, 2, 3"),
        (["promote", "NAME", "1", "--reason", "x"], "version 1: is the champion already"),
        (["promote", "NAME", "2"], "(?i)reason"),
        (["promote", "NAME", "2", "--reason", " "], "--reason: expected why"),
        (["rollback", "NAME"], "has no previous version to roll back to"),
        (["retrain", "irsi"], "there is no preset 'irsi': did you mean 'iris'"),
        (["retrain", "iris", "--rule.mode", "best"], "--rule.mode: .*found 'best'"),
        (["retrain", "iris", "--notify", "nowhere"], "--notify: "),
        (["retrain", "iris_softmax"], "'resubstitution' tests on the training rows"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_changed(
    name: str, console: Call, tokens: list[str], message: str
) -> None:
    before = everything(name)
    code, out, error = console(*[name if each == "NAME" else each for each in tokens])
    assert (code, out) == (2, "")
    assert re.search(message, error)
    assert error.startswith("hallmark: ")
    assert error.count("\n") == 1
    assert everything(name) == before


def damage_file(name: str) -> None:
    stored(name, 2).write_bytes(stored(name, 2).read_bytes() + b"x")


def remove_file(name: str) -> None:
    stored(name, 2).unlink()


def forget_digest(name: str) -> None:
    store.connect().delete_model_version_tag(name, "2", "hallmark.onnx_sha256")


def forget_proof(name: str) -> None:
    store.connect().delete_model_version_tag(name, "2", "hallmark.parity")


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
def test_what_does_not_hold_is_not_made_champion(
    name: str, console: Call, command: str, change: Callable[[str], None], message: str
) -> None:
    if command == "rollback":
        champions.promote(name, 2, "a try")
        champions.promote(name, 3, "another")
    registry.fetch(f"models:/{name}/2")  # a good copy on this machine makes the stored file no better
    change(name)
    before = everything(name)
    tokens = ["promote", name, "2", "--reason", "x"] if command == "promote" else ["rollback", name]
    code, out, error = console(*tokens)
    assert (code, out) == (2, "")
    assert message in error
    assert error.count("\n") == 1
    assert everything(name) == before


def test_of_two_at_once_one_wins_and_the_other_says_so(name: str, console: Call) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with champions.alone(name):
            inside.set()
            assert leave.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    try:
        assert inside.wait(60)
        before = everything(name)
        for tokens in (["promote", name, "2", "--reason", "x"], ["rollback", name]):
            code, out, error = console(*tokens)
            assert (code, out) == (2, "")
            assert error == f"hallmark: {name}: another process decides on this model now: try again when it is done\n"
        assert everything(name) == before
    finally:
        leave.set()
        other.join()
    assert console("promote", name, "2", "--reason", "x")[0] == 0


def test_a_model_whose_training_rows_nobody_knows_is_not_judged(name: str, console: Call) -> None:
    client = store.connect()
    path = stored(name, 2)
    client.create_model_version(name, path.parent.as_uri(), tags=client.get_model_version(name, "2").tags)
    code, _, error = console("judge", name, "4")
    assert code == 2
    assert "version 4: has no run that says what it was trained on" in error


def forked(target: Callable[..., object], *given: object) -> BaseProcess:
    """A process of its own, forked from one that has imported everything."""
    process = forks.context().Process(target=target, args=({**os.environ}, *given), daemon=True)
    process.start()
    return process


def promoted(environment: dict[str, str], name: str, writes: int) -> None:
    """In a process of its own: promote version 2, and be killed with -9 after so many writes."""
    os.environ.update(environment)
    with pytest.MonkeyPatch.context() as patch:
        kill_after(writes, patch, lambda: os.kill(os.getpid(), signal.SIGKILL))
        judged(name, "PROMOTE")()


@pytest.fixture
def address(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' Prefect server, for other processes too."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)


@pytest.mark.slow
@pytest.mark.usefixtures("address")
def test_kill_9_between_any_two_steps_leaves_nothing_that_the_next_does_not_finish(outcomes: list[Outcome]) -> None:
    writes = 0
    while True:
        writes += 1
        model = registered(outcomes)
        process = forked(promoted, model, writes)
        process.join(120)
        assert process.exitcode in (0, -signal.SIGKILL)
        assert aliases(model) in ({"champion": 1}, {"champion": 1, "previous": 1}, {"champion": 2, "previous": 1})
        champions.look(model)  # the kernel has released the lock
        assert aliases(model) == {"champion": 2, "previous": 1}
        (decision,) = champions.history(model)
        assert decision.done
        if process.exitcode == 0:
            break
    assert writes >= 7


def one_of_two(environment: dict[str, str], name: str, version: int, folder: str) -> None:
    """In a process of its own: promote a version by the command, and say how it ended."""
    os.environ.update(environment)
    error = Path(folder) / f"{version}.error"
    os.dup2(os.open(error, os.O_WRONLY | os.O_CREAT), 2)
    os._exit(run(["promote", name, str(version), "--reason", "two at once"]))


@pytest.mark.slow
@pytest.mark.usefixtures("address")
def test_of_two_processes_at_once_each_wins_or_says_so(outcomes: list[Outcome], tmp_path: Path) -> None:
    model = registered(outcomes)
    processes = {version: forked(one_of_two, model, version, str(tmp_path)) for version in (2, 3)}
    for process in processes.values():
        process.join(120)
    codes = {version: process.exitcode for version, process in processes.items()}
    assert set(codes.values()) <= {0, 2}
    assert 0 in codes.values()
    for version, code in codes.items():
        said = (tmp_path / f"{version}.error").read_text()
        assert (code == 0) == (said == "")
        assert code == 0 or said.startswith(f"hallmark: {model}: another process decides on this model now")
    decisions = champions.history(model)
    assert sorted(one.version for one in decisions) == sorted(version for version, code in codes.items() if code == 0)
    assert [one.number for one in decisions] == list(range(1, len(decisions) + 1))
    assert aliases(model)["champion"] == decisions[-1].version


def test_a_decision_with_much_to_say_fits_into_a_tag(name: str) -> None:
    gates = [{"name": f"gate {index}", "passed": False, "found": "x" * 3000} for index in range(9)]
    found = Judged("REJECT", "y" * 9000, 1, 2, {}, {"gates": gates, "reason": "y" * 9000}, 0)
    with champions.alone(name):
        champions.finish(champions.record(champions.judged(name, found, None)))
    (decision,) = champions.history(name)
    assert decision.done
    assert decision.judgement is not None
    assert [gate["name"] for gate in decision.judgement["gates"]] == [gate["name"] for gate in gates]
