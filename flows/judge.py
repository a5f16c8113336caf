"""The dry run of a judgement: what would be decided of a version, were it the challenger now."""

from typing import Any

from prefect import flow

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import Judged
from hallmark.tasks.judge import judge as judge_files
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Rule
from hallmark.tasks.prepare import prepare
from hallmark.tasks.promotion import champions
from hallmark.tasks.tracking import model_registry, run_queries


@flow(name="judge", flow_run_name="judge {name} version {version}")
def judge(name: str, version: int, rule: Rule = Rule()) -> Judged:  # noqa: B008 - immutable
    """Compare a registered version with the champion on the test rows of its experiment's data. Nothing is recorded.

    Args:
        name: the registered model.
        version: which of its versions.
        rule: what decides.
    """
    champion, experiment = refuse(name, version)
    return judge_files(name, champion, version, prepare(experiment), rule)


def findings(said: dict[str, Any]) -> dict[str, str]:
    """The numbers and the gates of a judgement, for people: what, and what was found.

    Args:
        said: a `Judgement` as a decision holds it.
    """
    low, high = said["interval"]
    gates = {
        f"gate: {gate['name']}": f"{'passed' if gate['passed'] else 'FAILED'}: {gate['found']}"
        for gate in said["gates"]
    }
    return {
        "test rows": str(said["rows"]),
        "right: challenger alone": str(said["wins"]),
        "right: champion alone": str(said["losses"]),
        "p": f"{said['p']:.4g}",
        "difference in accuracy": f"{said['difference']:+.4f}, between {low:+.4f} and {high:+.4f}",
    } | gates


def refuse(name: str, version: int) -> tuple[int, Experiment]:
    """The champion's version, and what the other was made by.

    Raises:
        InputError: there is no such version or no champion, it is the champion, or its run does not say what it is.
    """
    _, champion = model_registry.resolve(f"models:/{name}@{model_registry.CHAMPION}")
    model_registry.resolve(f"models:/{name}/{version}")
    if version == champion:
        raise InputError(f"{name} version {version}: is the champion: there is nobody to compare it with")
    run_id = champions.run_of(name, version)
    if not run_id:
        raise InputError(f"{name} version {version}: has no run that says what it was trained on")
    return champion, run_queries.recorded(run_id)[1]
