"""The pipeline: from an experiment to a registered model whose file is proven."""

import prefect.runtime
from prefect import flow

from hallmark.flows.experiments import presets
from hallmark.tasks.card import card
from hallmark.tasks.common.digests import SHOWN
from hallmark.tasks.common.records import Dataset, Outcome
from hallmark.tasks.diagnose import diagnose
from hallmark.tasks.evaluate import evaluate
from hallmark.tasks.examine import examine
from hallmark.tasks.export import export
from hallmark.tasks.fit import fit
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.prepare import prepare
from hallmark.tasks.register import register
from hallmark.tasks.runtime import flow_artifacts
from hallmark.tasks.stamp import stamp
from hallmark.tasks.tracking import resume, run_logger
from hallmark.tasks.verify import verify


def _run_name() -> str:
    return presets.run_name(prefect.runtime.flow_run.parameters["experiment"])


@flow(name="train", flow_run_name=_run_name)
def train(experiment: Experiment, fresh: bool = False) -> Outcome:  # noqa: FBT001, FBT002 - Prefect calls by name
    """Train a classifier, track it in MLflow, export it to ONNX, prove the file and register it.

    Args:
        experiment: data, model, training and export.
        fresh: begin anew, where an interrupted attempt at the same experiment could be resumed.
    """
    return carry_out(experiment, prepare(experiment), fresh=fresh)


def carry_out(experiment: Experiment, dataset: Dataset, *, fresh: bool = False) -> Outcome:
    """All that follows the dataset, as steps of the flow that calls it: this one, or a retraining."""
    tags = {
        "hallmark.preset_kind": presets.kind_of(experiment),
        "hallmark.prefect_flow_run": str(prefect.runtime.flow_run.id),
    }
    with (
        resume.claim([experiment], dataset, fresh=fresh) as attempt,
        run_logger.open_run(experiment, dataset, attempt, presets.run_name(experiment), tags) as run,
    ):
        known = examine(experiment, dataset, run)
        fitted = fit(experiment, dataset, run)
        evaluation = evaluate(experiment, dataset, fitted, run)
        findings = diagnose(experiment, dataset, fitted, evaluation, known, run)
        bare = export(experiment, dataset, fitted)
        proof = verify(experiment, dataset, fitted, bare, run)
        artifact = stamp(experiment, dataset, fitted, evaluation, bare, proof)
        version = register(experiment, dataset, artifact, proof, run)
        outcome = Outcome(dataset, run, fitted, evaluation, findings, artifact, proof, version)
        card(experiment, outcome)
        flow_artifacts.markdown(summary(experiment, outcome), "summary", "What this run produced")
    return outcome


def summary(experiment: Experiment, outcome: Outcome) -> str:
    """The outcome as a markdown table with the findings below it, for the Prefect UI."""
    metrics, version = outcome.evaluation.metrics, outcome.model_version
    rows = {
        "test accuracy": f"{metrics['test/accuracy']:.4f}",
        "test loss": f"{metrics['test/loss']:.4f}",
        "parity": f"passed on {outcome.proof.rows} rows, largest difference {outcome.proof.max_abs_diff:.1e}",
        "file": f"`{outcome.artifact.path}`",
        "sha256": f"`{outcome.artifact.sha256}`",
        "model": f"{version.name} version {version.version}" + ", champion" * version.is_champion,
        "card": f"[card.html]({outcome.run.url}/artifacts/card.html)",
        "MLflow run": f"[{outcome.run.name}]({outcome.run.url})",
        "experiment": f"`{experiment.digest[:SHOWN]}` on dataset `{outcome.dataset.digest[:SHOWN]}`",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    findings = [f"- **{found.code}**: {found.sentence}. Remedy: `{found.remedy}`" for found in outcome.findings]
    told = ["", "## Findings", "", *findings] if findings else []
    return "\n".join([f"# {outcome.run.name}", "", "| what | outcome |", "|---|---|", *lines, *told])
