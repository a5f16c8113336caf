"""Retraining that may run while everybody sleeps: train a challenger, judge it, and let a better one be champion."""

from typing import TYPE_CHECKING, Any

import prefect.runtime
from prefect import flow

from hallmark.flows.experiments import presets
from hallmark.flows.judge import findings
from hallmark.flows.train import carry_out
from hallmark.tasks.common.digests import SHOWN
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import Dataset, Decision, Retrained
from hallmark.tasks.judge import judge
from hallmark.tasks.ml.config.data import BY_COLUMN
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Rule
from hallmark.tasks.prepare import prepare
from hallmark.tasks.promotion import champions, decision_log
from hallmark.tasks.runtime import flow_artifacts, progress, provenance, scheduled_process
from hallmark.tasks.runtime import notification as messages
from hallmark.tasks.tracking import resume, training_rows

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State


def _close(flow: "Flow[..., Any]", flow_run: "FlowRun", state: "State[Any]") -> None:  # noqa: ARG001 - Prefect's shape
    """Close the MLflow run of a process that was killed. Called by the process that served it."""
    resume.close_orphans()


def _run_name() -> str:
    return presets.run_name(Experiment.model_validate(prefect.runtime.flow_run.parameters["experiment"]))


@flow(name="retrain", flow_run_name=_run_name, on_failure=[messages.failed], on_crashed=[_close, messages.failed])
def retrain(
    experiment: Experiment,
    rule: Rule = Rule(),  # noqa: B008 - immutable
    notify: str | None = None,
    schedule: str | None = None,
) -> Retrained:
    """Prepare the data anew, train a challenger, judge it against the champion as files, and decide.

    Where data, experiment and code are those of the champion, nothing is trained.

    Args:
        experiment: data, model, training and export; its rows are divided by content.
        rule: when a challenger becomes champion.
        notify: address that hears of failures, HOLD and REJECT.
        schedule: which schedule runs it.
    """
    scheduled_process.end_with_server()
    resume.close_orphans()
    asked, experiment = experiment, by_content(experiment)
    if experiment != asked:
        progress.say("split", f"by content, not {asked.data.split.method}: no row changes its split as data grows")
    name = experiment.name
    with scheduled_process.turn(name):
        if champions.champion(name) is not None:
            _show(decision_log.look(name))
        dataset = prepare(experiment)
        made_from = _made_from(experiment, dataset)
        champion = champions.champion(name)
        if champion is not None and champions.digests(name, champion) == made_from:
            result = Retrained(name, "UNCHANGED", "data, experiment and code are the champion's", champion, None)
        else:
            challenger = champion and champions.undecided(name, made_from)
            challenger = challenger or carry_out(experiment, dataset).model_version.version
            training_rows.keep(champions.run_of(name, challenger), dataset)
            decision = _decide(name, challenger, dataset, rule, schedule)
            result = Retrained(name, decision.verdict, decision.reason, champions.standing(name).version, decision)
        _tell(result, dataset, notify, schedule)
    return result


def by_content(experiment: Experiment) -> Experiment:
    """The same, its rows divided by their own digest: none ever changes its split as data grows.

    A test split that the source itself brings stays: its rows are never trained on. So does a division by a column.

    Raises:
        InputError: it is tested on the rows that it was trained on.
    """
    method = experiment.data.split.method
    if method == "resubstitution":
        raise InputError(
            f"{experiment.name}: data.split.method 'resubstitution' tests on the training rows, where nothing can be "
            "judged: add --data.split.method content --data.split.test 0.2"
        )
    if method in ("content", "given", *BY_COLUMN):
        return experiment
    tree = experiment.model_dump(mode="json")
    tree["data"]["split"]["method"] = "content"
    return Experiment.model_validate(tree)


def summary(result: Retrained, dataset: Dataset) -> str:
    """What came of it as markdown, for the Prefect UI."""
    rows = {
        "champion": f"{result.name} version {result.champion}",
        "dataset": f"`{dataset.digest[:SHOWN]}`",
    }
    if result.decision:
        rows |= {"challenger": f"version {result.decision.version}", "decision": f"number {result.decision.number}"}
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    title = f"# {result.name}: {result.verdict}"
    return "\n".join([title, "", result.reason, "", "| what | outcome |", "|---|---|", *lines])


def table(decision: Decision) -> list[dict[str, str]]:
    """A decision as the rows of a table."""
    rows = {
        "decision": f"{decision.number}: {decision.verdict}",
        "version": str(decision.version),
        "champion before": str(decision.before or "none"),
        "champion after": str(decision.champion),
        **(findings(decision.judgement) if decision.judgement else {}),
        **decision.digests,
    }
    return [{"what": name, "found": value} for name, value in rows.items()]


def _made_from(experiment: Experiment, dataset: Dataset) -> dict[str, str]:
    found = (dataset.digest, experiment.digest, provenance.tags()["hallmark.code_digest"])
    return dict(zip(champions.COMPARED, found, strict=True))


def _decide(name: str, challenger: int, dataset: Dataset, rule: Rule, schedule: str | None) -> Decision:
    """Judge, record the decision, and only then do what it says."""
    with decision_log.alone(name):
        _show(decision_log.repair(name))
        champion = champions.champion(name)
        if champion is None or champion == challenger:  # it came first, and was registered as champion
            decision = champions.first(name, challenger, schedule)
        else:
            with champions.challenging(name, challenger):
                decision = champions.judged(name, judge(name, champion, challenger, dataset, rule), schedule)
        decision = decision_log.record(decision)
        _show([decision])
        return decision_log.finish(decision)


def _show(made: list[Decision]) -> None:
    """Show what is decided in the Prefect UI, also where a process was killed before it could."""
    for decision in made:
        flow_artifacts.table(table(decision), "decision", decision.reason)


def _tell(result: Retrained, dataset: Dataset, address: str | None, schedule: str | None) -> None:
    """Say in the run's name, its summary, and to whoever wants to hear, what came of it."""
    version = f" version {result.decision.version}" if result.decision else ""
    text = f"{result.name} {result.verdict.lower()}{version}"
    flow_artifacts.rename_run(text)
    flow_artifacts.markdown(summary(result, dataset), "retraining", "What came of this retraining")
    progress.say("retrain", f"{text}: {result.reason}")
    if result.verdict in ("HOLD", "REJECT"):
        messages.send(address, f"{schedule or 'retraining'} ({result.name}): {result.verdict}", result.reason)
