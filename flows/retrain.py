"""Train a challenger, judge it against the champion, and promote it if it is better."""

from typing import TYPE_CHECKING, Any

import prefect.runtime
from prefect import flow

from hallmark.flows.experiments import own_data, presets, retraining_split, taken_names
from hallmark.flows.ship import train_and_ship
from hallmark.tasks.common.records import Dataset
from hallmark.tasks.common.results import Decision, Retrained
from hallmark.tasks.judge import judge
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation.promotion import compare_files, disqualification
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Rule
from hallmark.tasks.ml.reports import flow_pages
from hallmark.tasks.prepare import prepare
from hallmark.tasks.promotion import champions, decision_log
from hallmark.tasks.runtime import flow_artifacts, notification, progress, provenance, scheduled_process
from hallmark.tasks.runtime.running_commands import tag_flow_run
from hallmark.tasks.tracking import resume, run_queries, training_rows
from hallmark.tasks.tracking.registry import model_registry

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
    on_running=[tag_flow_run],
    on_failure=[notification.failed],
    on_crashed=[_close, notification.failed],
)
def retrain(
    experiment: Experiment,
    rule: Rule = Rule(),  # noqa: B008 - immutable
    notify: str | None = None,
    schedule: str | None = None,
    derived_name: bool = False,  # noqa: FBT001, FBT002 - Prefect calls by name
) -> Retrained:
    """Prepare the data, train a challenger, compare its file with the champion's, and decide.

    Nothing is trained if data, experiment and code are those of the champion, or of a version that was held or rejected
    against this champion by the same rule.

    Args:
        experiment: data, model, training and export; see `retraining_split.choose` for its split.
        rule: when a challenger is promoted.
        notify: address that receives failures, HOLD and REJECT.
        schedule: name of the schedule that runs it.
        derived_name: whether the name was derived from a file or folder: it is refused if other data has a model of it.
    """
    scheduled_process.end_with_server()
    resume.close_orphans()
    name = experiment.name
    if derived_name:
        taken_names.refuse_derived(experiment, f"schedule '{schedule}'", "options.name")
    with scheduled_process.turn(name):
        champion = champions.champion(name)
        if champion is not None:
            for decision in decision_log.repair_if_idle(name):
                _show(decision)
            champion = champions.champion(name)
        experiment, dataset = _prepare(experiment, champion)
        result = _retrain(experiment, dataset, champion, rule, schedule)
        _announce(result, dataset, notify, schedule)
    return flow_artifacts.finished(result)


def _retrain(
    experiment: Experiment, dataset: Dataset, champion: int | None, rule: Rule, schedule: str | None
) -> Retrained:
    """Train what was not trained before, and decide what was not decided before."""
    name = experiment.name
    made_from = run_queries.digests_of(dataset.digest, experiment.digest, provenance.code_digest())
    challenger = champions.shipped(name, made_from)
    if champion is not None:
        findings = champions.findings(name, champion)
        is_broken = disqualification.BROKEN_PROOF in findings
        is_champions = challenger == champion or champions.digests(name, champion) == made_from
        if is_champions and not is_broken:
            return _unchanged(name, champion, "data, experiment and code are the champion's", findings)
        if challenger and not is_broken and (said := champions.verdict_on(name, challenger, champion, rule)):
            reason = f"data, experiment and code are those of version {challenger}: {said.verdict} in decision"
            return _unchanged(name, champion, f"{reason} {said.number}: {said.reason}", findings)
    if champion is not None and not disqualification.disqualifying(champions.findings(name, champion)):
        in_service = model_registry.fetch(f"models:/{name}/{champion}")
        compare_files.refuse_others(certificate.read(in_service)[0], dataset, in_service)
    if challenger in (None, champion):
        # --fresh cannot be added to the command of a scheduled run.
        challenger = train_and_ship(experiment, dataset, discard_outdated=True).model_version.version
    if challenger == champion:
        return _unchanged(name, challenger, "the new file is the champion's, byte for byte", findings)
    training_rows.keep(champions.run_of(name, challenger), dataset)
    return _decide(name, challenger, dataset, rule, schedule)


def _unchanged(name: str, champion: int, reason: str, findings: frozenset[str]) -> Retrained:
    words = disqualification.describe(findings)
    remedy = f"; the champion is disqualified: {words}: retrain without this" if words else ""
    return Retrained(name, "UNCHANGED", reason + remedy, champion, None)


def _prepare(experiment: Experiment, champion: int | None) -> tuple[Experiment, Dataset]:
    """Prepare the data with the split that suits a comparison with the champion.

    Returns:
        the experiment with this split, and the dataset.

    Raises:
        InputError: the experiment is tested on its training rows.
    """
    given = experiment.data.split
    before = None if champion is None else champions.experiment(experiment.name, champion)
    if champion and before and before.data.split == given and given.method in own_data.BY_SEED:
        dataset = prepare(experiment)
        if champions.digests(experiment.name, champion).get("dataset_digest") == dataset.digest:
            return experiment, dataset  # the same rows as the champion's: none has changed its split
    experiment = retraining_split.choose(experiment, before)
    if (split := experiment.data.split) != given:
        why = "as the champion" if before and split == before.data.split else "no row changes its split as data grows"
        progress.line(
            "split", f"method {split.method}, seed {split.seed}, not {given.method}, seed {given.seed}: {why}"
        )
    return experiment, prepare(experiment)


def _decide(name: str, challenger: int, dataset: Dataset, rule: Rule, schedule: str | None) -> Retrained:
    """Judge, record the decision, and only then carry it out. Waits for another process that is deciding."""

    def decide() -> Decision | None:
        champion = champions.champion(name)
        if champion is not None and champion != challenger:
            with champions.challenging(name, challenger):
                return champions.decision_from(name, judge(name, champion, challenger, dataset, rule), schedule)
        if champion is not None and champions.standing(name).decision:
            return None  # someone has promoted it meanwhile
        return champions.first_decision(name, challenger, schedule)  # it was registered as champion

    with decision_log.exclusive(name, wait=True):
        decision = decision_log.conclude(name, decide, _show)
    standing = champions.standing(name)
    if decision is None:
        reason = f"version {challenger} was made champion meanwhile: {standing.why}"
        return Retrained(name, "UNCHANGED", reason, standing.version, None)
    return Retrained(name, decision.verdict, decision.reason, standing.version, decision)


def _show(decision: Decision) -> None:
    """Show a decision in the Prefect UI, also one that a killed process could not show."""
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
