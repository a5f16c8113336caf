"""Promotion, rejection and rollback of champions, with three trainings on digits per test."""

from hallmark.flows.retrain import retrain
from hallmark.tasks.promotion import champions, decision_log
from tests.pipelines.test_retrain import experiment, new_name
from tests.support.registered import aliases


def test_significantly_better_model_becomes_champion(prefect_server: str) -> None:  # noqa: ARG001
    name = new_name()
    retrain(experiment(name, "digits", epochs=1, lr=1e-6))
    result = retrain(experiment(name, "digits", epochs=5))
    assert (result.verdict, result.champion) == ("PROMOTE", 2)
    assert aliases(name) == {"champion": 2, "previous": 1}
    assert champions.standing(name).why.startswith("PROMOTE: the challenger is ")
    worse = retrain(experiment(name, "digits", epochs=1, lr=1e-6, seed=3))
    assert (worse.verdict, worse.champion) == ("REJECT", 2)
    assert aliases(name) == {"champion": 2, "previous": 1}


def test_rolled_back_model_is_not_promoted_again(prefect_server: str) -> None:  # noqa: ARG001
    name = new_name()
    retrain(experiment(name, "digits", epochs=1, lr=1e-6))
    better = experiment(name, "digits", epochs=3)
    assert retrain(better).verdict == "PROMOTE"
    champions.rollback(name, "it fails at night")
    assert aliases(name) == {"champion": 1}
    again = retrain(better)
    assert (again.verdict, again.champion) == ("REJECT", 1)
    assert "not rolled back" in again.reason
    assert aliases(name) == {"champion": 1}
    assert [decision.verdict for decision in decision_log.history(name)] == ["FIRST", "PROMOTE", "ROLLBACK", "REJECT"]
