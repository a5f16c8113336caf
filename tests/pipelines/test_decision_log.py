"""Decisions: completed after a kill at any write, and made by one process at a time."""

import json
import threading
import time
import uuid
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from hallmark.tasks.common.results import Decision, Judged, Outcome
from hallmark.tasks.promotion import champions, decision_log
from hallmark.tasks.tracking.client import connect
from tests.support import registered
from tests.support.consoles import Call
from tests.support.registered import aliases, registry_state, run_and_kill_after

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def name(three_seeds: list[Outcome]) -> str:
    return registered.create_model(three_seeds)


def judged(name: str, verdict: str) -> Callable[[], Decision]:
    """Return a function that records a verdict on version 2 against version 1, as retraining does."""

    def act() -> Decision:
        found = Judged(verdict, "as the test says", 1, 2, {}, {"gates": [], "p": 0.5}, 0)  # type: ignore[arg-type]
        with decision_log.exclusive(name):
            decision = decision_log.conclude(name, lambda: champions.decision_from(name, found, "nightly"))
        assert decision
        return decision

    return act


@pytest.mark.parametrize("verdict", ["PROMOTE", "HOLD", "REJECT"])
def test_a_decision_killed_after_any_write_is_completed_by_the_next_reader(
    three_seeds: list[Outcome], verdict: str
) -> None:
    writes = 0
    expected = {"champion": 2, "previous": 1} if verdict == "PROMOTE" else {"champion": 1}
    while True:
        writes += 1
        model = registered.create_model(three_seeds)
        was_killed = run_and_kill_after(writes, judged(model, verdict))
        decision_log.repair_if_idle(model)
        (decision,) = decision_log.history(model)
        assert decision.done
        assert (decision.verdict, decision.before, decision.schedule) == (verdict, 1, "nightly")
        assert aliases(model) == expected
        client = connect()
        for version in "12":
            assert "hallmark.decision.0001" in client.get_model_version(model, version).tags
        artifacts = {file.path for file in client.list_artifacts(three_seeds[1].run.id)}
        assert "decision.json" in artifacts
        decision_log.repair_if_idle(model)
        assert decision_log.history(model) == [decision]
        if not was_killed:
            break
    assert writes >= (7 if verdict == "PROMOTE" else 5)


def test_a_rollback_killed_after_any_write_is_completed_by_the_next_reader(
    three_seeds: list[Outcome],
) -> None:
    writes = 0
    while True:
        writes += 1
        model = registered.create_model(three_seeds)
        judged(model, "PROMOTE")()
        was_killed = run_and_kill_after(writes, lambda model=model: champions.rollback(model, "bad nights"))
        decision_log.repair_if_idle(model)
        assert aliases(model) == {"champion": 1}
        assert [decision.done for decision in decision_log.history(model)] == [True, True]
        assert champions.demoted_version(model, 2) == 2
        if not was_killed:
            break
    assert writes >= 7


def test_a_champion_set_by_hand_after_a_crash_is_kept(name: str) -> None:
    assert run_and_kill_after(1, judged(name, "PROMOTE"))
    connect().set_registered_model_alias(name, "champion", "3")
    decision_log.repair_if_idle(name)
    assert aliases(name) == {"champion": 3}
    (decision,) = decision_log.history(name)
    assert decision.done
    assert "version 3 was made champion meanwhile" in decision.reason
    assert champions.standing(name).why == "set outside Hallmark"


def test_a_long_decision_fits_into_a_tag(name: str) -> None:
    gates = [{"name": f"gate {index}", "passed": False, "found": "x" * 3000} for index in range(9)]
    found = Judged("REJECT", "y" * 9000, 1, 2, {}, {"gates": gates, "reason": "y" * 9000}, 0)
    with decision_log.exclusive(name):
        decision_log.conclude(name, lambda: champions.decision_from(name, found, None))
    (decision,) = decision_log.history(name)
    assert decision.done
    assert decision.judgement is not None
    assert [gate["name"] for gate in decision.judgement["gates"]] == [gate["name"] for gate in gates]


def test_a_concurrent_decision_is_refused_with_a_message(name: str, console: Call) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with decision_log.exclusive(name):
            inside.set()
            assert leave.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    try:
        assert inside.wait(60)
        before = registry_state(name)
        for tokens in (["promote", name, "2", "--reason", "x"], ["rollback", name]):
            code, out, error = console(*tokens)
            assert (code, out) == (2, "")
            assert error == f"hallmark: {name}: another process is deciding on this model: try again when it is done\n"
        assert registry_state(name) == before
    finally:
        leave.set()
        other.join()
    assert console("promote", name, "2", "--reason", "x")[0] == 0


UNREADABLE = {
    "hallmark.decision.0002": '{"number": 2, "name": "x", "verdict": "PROM',
    "hallmark.decision.0003": "no JSON",
    "hallmark.decision.0004": '{"number": 4, "verdict": "MERGE"}',
    "hallmark.decision.0005": "[" * 4000,
    "hallmark.decision.last": "{}",
}


def test_decisions_that_cannot_be_read_are_shown_and_skipped(name: str, console: Call) -> None:
    client = connect()
    champions.promote(name, 2, "a try")
    first = json.loads(client.get_registered_model(name).tags["hallmark.decision.0001"])
    newer = first | {"signed_by": {"key": 1}, "done": False}  # a field of a newer version
    client.set_registered_model_tag(name, "hallmark.decision.0001", json.dumps(newer))
    for tag, text in UNREADABLE.items():
        client.set_registered_model_tag(name, tag, text)
    code, out, _ = console("champion", name, "--json")
    assert (code, json.loads(out)["version"], json.loads(out)["previous"]) == (0, 2, 1)
    assert "a decision cannot be read: `hallmark history" in json.loads(out)["why"]
    code, out, _ = console("history", name, "--json")
    result = json.loads(out)
    assert (code, [one["number"] for one in result["decisions"]]) == (0, [1])
    assert result["decisions"][0]["done"]
    assert [one["tag"] for one in result["unreadable"]] == list(UNREADABLE)
    code, out, _ = console("history", name)
    assert (code, out.count("UNREADABLE")) == (0, len(UNREADABLE))
    code, out, _ = console("promote", name, "3", "--reason", "go on", "--json")
    assert (code, json.loads(out)["number"], aliases(name)) == (0, 6, {"champion": 3, "previous": 2})
    code, out, _ = console("champion", name, "--json")
    assert json.loads(out)["why"] == "MANUAL: go on"
    assert {tag: client.get_registered_model(name).tags[tag] for tag in UNREADABLE} == UNREADABLE


def test_a_deleted_run_or_version_does_not_block_decisions(
    name: str, console: Call, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect()
    champions.promote(name, 2, "a try")
    champions.promote(name, 3, "another")
    assert run_and_kill_after(1, lambda: champions.promote(name, 1, "interrupted"))
    client.delete_model_version(name, "1")
    client.create_model_version(name, "file:///nowhere", uuid.uuid4().hex)  # its run was removed for good
    code, out, _ = console("history", name, "--json")
    last = json.loads(out)["decisions"][-1]
    assert (code, last["done"], aliases(name)) == (0, True, {"champion": 3, "previous": 2})
    assert "not done: version 1 was deleted meanwhile" in last["reason"]
    assert f"{name} version 1 does not show the decision" in caplog.text
    assert champions.digests(name, 4) == {}
    assert console("rollback", name)[0] == 0
    assert aliases(name) == {"champion": 2}  # not version 1, which was champion before it


def test_a_decision_that_another_machine_replaced_is_made_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace a decision between its writing and its reading back, as a faster machine on the same server would."""
    client, pauses = connect(), []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            ((tag, text),) = client.get_registered_model(name).tags.items()
            other = json.loads(text) | {"id": "other", "version": 3, "champion": 3}
            client.set_registered_model_tag(name, tag, json.dumps(other))

    monkeypatch.setattr(decision_log, "_is_shared", lambda: True)
    monkeypatch.setattr(decision_log, "ABANDONED_SECONDS", 0.05)
    monkeypatch.setattr(decision_log, "time", SimpleNamespace(sleep=pause, monotonic=time.monotonic))
    decision = champions.promote(name, 2, "slower")
    first, second = decision_log.history(name)
    assert (first.id, first.champion, first.done) == ("other", 3, True)  # the other machine never finished it
    assert (second, second.number, second.before, second.champion) == (decision, 2, 3, 2)
    assert aliases(name) == {"champion": 2, "previous": 3}
