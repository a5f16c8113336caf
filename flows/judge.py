"""Compare a registered version with the champion, as a retraining would; nothing is recorded."""

from prefect import flow

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.results import Judged
from hallmark.tasks.judge import judge as judge_files
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Rule
from hallmark.tasks.prepare import prepare
from hallmark.tasks.promotion import champions
from hallmark.tasks.runtime import flow_artifacts
from hallmark.tasks.runtime.running_commands import tag_flow_run
from hallmark.tasks.tracking import run_queries
from hallmark.tasks.tracking.registry import model_registry


@flow(name="judge", flow_run_name="judge {name} version {version}", on_running=[tag_flow_run])
def judge(name: str, version: int, rule: Rule = Rule()) -> Judged:  # noqa: B008 - immutable
    """Compare a registered version with the champion on the test rows of its experiment's data. Nothing is recorded.

    Args:
        name: the registered model.
        version: the version to judge.
        rule: the promotion rule.
    """
    champion, experiment = resolve(name, version)
    return flow_artifacts.finished(judge_files(name, champion, version, prepare(experiment), rule))


def resolve(name: str, version: int) -> tuple[int, Experiment]:
    """Return the champion's version and the experiment of the version to judge.

    Raises:
        InputError: the version or a champion does not exist, the version is the champion, or its run is unknown,
            or the experiment of that run cannot be read.
    """
    _, champion = model_registry.resolve(f"models:/{name}@{model_registry.CHAMPION}")
    model_registry.resolve(f"models:/{name}/{version}")
    if version == champion:
        raise InputError(f"{name} version {version}: is the champion: expected another version, to compare with it")
    run_id = champions.run_of(name, version)
    if not run_id:
        raise InputError(f"{name} version {version}: has no MLflow run, so its experiment is unknown")
    return champion, run_queries.recorded(run_id)[1]
