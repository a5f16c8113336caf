"""From a trained model to a registered one: the chain that every flow with a training shares."""

import prefect.runtime

from hallmark.flows.experiments import presets
from hallmark.tasks.card import card
from hallmark.tasks.common.records import Artifact, Dataset, Evaluation, Finding, Fit, Proof, Run
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.diagnose import diagnose
from hallmark.tasks.evaluate import evaluate
from hallmark.tasks.examine import examine
from hallmark.tasks.export import export
from hallmark.tasks.fit import fit
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation.findings import before_training
from hallmark.tasks.ml.reports import flow_pages
from hallmark.tasks.register import register
from hallmark.tasks.runtime import flow_artifacts
from hallmark.tasks.stamp import stamp
from hallmark.tasks.tracking import resume, run_lifecycle, tags
from hallmark.tasks.verify import verify


def train_and_ship(
    experiment: Experiment,
    dataset: Dataset,
    *,
    fresh: bool = False,
    discard_outdated: bool = False,
    strict: bool = False,
) -> Outcome:
    """Train one experiment in an MLflow run of its own, and ship the result. Called within a flow.

    Args:
        experiment: the experiment to train.
        dataset: its data.
        fresh: discard an interrupted attempt instead of resuming it.
        discard_outdated: discard an attempt of an older version of Hallmark instead of refusing to go on.
        strict: refuse to train if the experiment or its data has findings.
    """
    origin = tags.origin(str(prefect.runtime.flow_run.id), presets.kind_of(experiment))
    with (
        resume.claim([experiment], dataset, fresh=fresh, discard_outdated=discard_outdated) as attempt,
        run_lifecycle.open_run(experiment, dataset, attempt, presets.run_name(experiment), origin) as run,
    ):
        known = examine(experiment, dataset, run)
        if strict:
            before_training.refuse(known, experiment.name)
        outcome = ship(experiment, dataset, fit(experiment, dataset, run), known, run)
    # After the MLflow run is closed: it does not depend on Prefect.
    flow_artifacts.markdown(flow_pages.training(experiment, outcome), "summary", "What this run produced")
    return outcome


def ship(experiment: Experiment, dataset: Dataset, fitted: Fit, known: tuple[Finding, ...], run: Run) -> Outcome:
    """Evaluate, export, verify, stamp and register a trained model, and write its card.

    Args:
        experiment: the trained experiment.
        dataset: its data.
        fitted: the result of its training.
        known: findings from before the training.
        run: where everything is logged.
    """
    evaluation = evaluate(experiment, dataset, fitted, run)
    findings = diagnose(experiment, dataset, fitted, evaluation, known, run)
    artifact, proof = make_file(experiment, dataset, fitted, evaluation, run)
    version = register(experiment, dataset, artifact, proof, run)
    outcome = Outcome(dataset, run, fitted, evaluation, findings, artifact, proof, version)
    card(experiment, outcome)
    return outcome


def make_file(
    experiment: Experiment, dataset: Dataset, fitted: Fit, evaluation: Evaluation, run: Run | None
) -> tuple[Artifact, Proof]:
    """Export, verify and stamp a trained model. Without a run nothing is logged."""
    bare = export(experiment, dataset, fitted)
    proof = verify(experiment, dataset, fitted, bare, run)
    return stamp(experiment, dataset, fitted, evaluation, bare, proof), proof
