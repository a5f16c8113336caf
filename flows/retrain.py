"""Train a challenger, judge it against the champion, and promote it if it is better."""

from typing import TYPE_CHECKING, Any

import prefect.runtime
from prefect import flow

from hallmark.flows.experiments import presets
from hallmark.flows.ship import train_and_ship
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import Dataset
from hallmark.tasks.common.results import Decision, Retrained
from hallmark.tasks.judge import judge
from hallmark.tasks.ml.config.data import BY_COLUMN
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Rule
from hallmark.tasks.ml.reports import flow_pages
from hallmark.tasks.prepare import prepare
from hallmark.tasks.promotion import champions, decision_log
from hallmark.tasks.runtime import flow_artifacts, notification, progress, provenance, scheduled_process
from hallmark.tasks.tracking import resume, run_queries, training_rows

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State


def _close(flow: "Flow[..., Any]", flow_run: "FlowRun", state: "State[Any]") -> None:  # noqa: ARG001 - Prefect's signature
    """Close the MLflow run of a killed process. Called in the process that serves the schedules."""
    resume.close_orphans()


def _run_name() -> str:
    return presets.run_name(Experiment.model_validate(prefect.runtime.flow_run.parameters["experiment"]))


@flow(
    name="retrain",
    flow_run_name=_run_name,
    on_failure=[notification.failed],
    on_crashed=[_close, notification.failed],
)
def retrain(
    experiment: Experiment,
    rule: Rule = Rule(),  # noqa: B008 - immutable
    notify: str | None = None,
    schedule: str | None = None,
) -> Retrained:
    """Prepare the data, train a challenger, compare its file with the champion's, and decide.

    Nothing is trained if data, experiment and code are those of the champion.

    Args:
        experiment: data, model, training and export; its rows are split by content.
        rule: when a challenger is promoted.
        notify: address that receives failures, HOLD and REJECT.
        schedule: name of the schedule that runs it.
    """
    scheduled_process.end_with_server()
    resume.close_orphans()
    given, experiment = experiment, by_content(experiment)
    if experiment != given:
        progress.line("split", f"by content, not {given.data.split.method}: no row changes its split as data grows")
    name = experiment.name
    with scheduled_process.turn(name):
        if champions.champion(name) is not None:
            _show(decision_log.repair_if_idle(name))
        dataset = prepare(experiment)
        made_from = run_queries.digests_of(dataset.digest, experiment.digest, provenance.code_digest())
        champion = champions.champion(name)
        if champion is not None and champions.digests(name, champion) == made_from:
            result = Retrained(name, "UNCHANGED", "data, experiment and code are the champion's", champion, None)
        else:
            challenger = champion and champions.undecided(name, made_from)
            if not challenger:
                # --fresh cannot be added to the command of a scheduled run.
                challenger = train_and_ship(experiment, dataset, discard_outdated=True).model_version.version
            training_rows.keep(champions.run_of(name, challenger), dataset)
            decision = _decide(name, challenger, dataset, rule, schedule)
            result = Retrained(name, decision.verdict, decision.reason, champions.standing(name).version, decision)
        _announce(result, dataset, notify, schedule)
    return flow_artifacts.finished(result)


def by_content(experiment: Experiment) -> Experiment:
    """Return the experiment with its rows split by their own digest, so that no row changes its split as data grows.

    A test split that comes with the source stays, since its rows are never trained on. So does a split by a column.

    Raises:
        InputError: the experiment is tested on its training rows.
    """
    method = experiment.data.split.method
    if method == "resubstitution":
        raise InputError(
            f"{experiment.name}: data.split.method 'resubstitution' tests on the training rows, so no challenger can "
            "be judged: add --data.split.method content --data.split.test 0.2"
        )
    if method in ("content", "given", *BY_COLUMN):
        return experiment
    tree = experiment.model_dump(mode="json")
    tree["data"]["split"]["method"] = "content"
    return Experiment.model_validate(tree)


def _decide(name: str, challenger: int, dataset: Dataset, rule: Rule, schedule: str | None) -> Decision:
    """Judge, record the decision, and only then carry it out."""
    with decision_log.exclusive(name):
        _show(decision_log.repair(name))
        champion = champions.champion(name)
        if champion is None or champion == challenger:  # the first version was registered as champion
            decision = champions.first_decision(name, challenger, schedule)
        else:
            with champions.challenging(name, challenger):
                decision = champions.decision_from(name, judge(name, champion, challenger, dataset, rule), schedule)
        decision = decision_log.record(decision)
        _show([decision])
        return decision_log.finish(decision)


def _show(decisions: list[Decision]) -> None:
    """Show decisions in the Prefect UI, also those that a killed process could not show."""
    for decision in decisions:
        flow_artifacts.table(flow_pages.decision(decision), "decision", decision.reason)


def _announce(result: Retrained, dataset: Dataset, address: str | None, schedule: str | None) -> None:
    """Report the result in the run's name, its summary, the terminal, and a message for HOLD and REJECT."""
    version = f" version {result.decision.version}" if result.decision else ""
    text = f"{result.name} {result.verdict.lower()}{version}"
    flow_artifacts.rename_run(text)
    flow_artifacts.markdown(flow_pages.retraining(result, dataset), "retraining", "Result of this retraining")
    progress.line("retrain", f"{text}: {result.reason}")
    if result.verdict in ("HOLD", "REJECT"):
        notification.send(address, f"{schedule or 'retraining'} ({result.name}): {result.verdict}", result.reason)
