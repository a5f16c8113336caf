"""Results of flows as Markdown and tables for the Prefect UI."""

from typing import Any

from hallmark.tasks.common.digests import SHOWN
from hallmark.tasks.common.records import CARD, Dataset
from hallmark.tasks.common.results import Decision, Outcome, Retrained, Scored, SweepOutcome
from hallmark.tasks.ml.config.experiment import Experiment


def training(experiment: Experiment, outcome: Outcome) -> str:
    """Return the outcome of a training and its findings as Markdown."""
    metrics, version = outcome.evaluation.metrics, outcome.model_version
    rows = {
        "test accuracy": f"{metrics['test/accuracy']:.4f}",
        "test loss": f"{metrics['test/loss']:.4f}",
        "parity": f"passed on {outcome.proof.rows} rows, largest difference {outcome.proof.max_abs_diff:.1e}",
        "file": f"`{outcome.artifact.path}`",
        "sha256": f"`{outcome.artifact.sha256}`",
        "model": version.title,
        "card": f"[{CARD}]({outcome.run.url}/artifacts/{CARD})",
        "MLflow run": f"[{outcome.run.name}]({outcome.run.url})",
        "experiment": f"`{experiment.digest[:SHOWN]}` on dataset `{outcome.dataset.digest[:SHOWN]}`",
    }
    findings = [finding.markdown for finding in outcome.findings]
    section = ["", "## Findings", "", *findings] if findings else []
    return "\n".join([f"# {outcome.run.name}", "", *_table(rows), *section])


def sweep(result: SweepOutcome) -> str:
    """Return the members of a sweep by validation loss as Markdown."""
    rows = []
    for index in result.by_loss:
        member, mark = result.members[index], "**chosen**" if index == result.chosen else ""
        loss = "diverged" if member.loss is None else f"{member.loss:.4f}"
        cells = [mark, *(str(member.values[axis]) for axis in result.axes), loss, member.way]
        rows.append(f"| {' | '.join(cells)} | [{member.label}]({member.run.url}) |")
    head = f"| | {' | '.join(result.axes)} | validation loss | trained | run |"
    accuracy = result.outcome.evaluation.metrics["test/accuracy"]
    version = result.outcome.model_version
    sentence = f"Chosen by the validation split: test accuracy {accuracy:.4f}, {version.name} version {version.version}"
    return "\n".join([f"# {result.run.name}", "", sentence, "", head, "|" + "---|" * (len(result.axes) + 4), *rows])


def retraining(result: Retrained, dataset: Dataset) -> str:
    """Return the outcome of a retraining as Markdown."""
    rows = {
        "champion": f"{result.name} version {result.champion}",
        "dataset": f"`{dataset.digest[:SHOWN]}`",
    }
    if result.decision:
        rows |= {"challenger": f"version {result.decision.version}", "decision": f"number {result.decision.number}"}
    return "\n".join([f"# {result.name}: {result.verdict}", "", result.reason, "", *_table(rows)])


def scoring(scored: Scored) -> str:
    """Return the predicted shares of the classes beside those of the training rows as Markdown."""
    rows = {
        "rows": f"{scored.rows:,}",
        "outside the training range": f"{scored.outside_training_range:,} rows, "
        f"{scored.outside_training_range / scored.rows:.1%}",
        "not usable": scored.describe_gaps().replace("|", "\\|") or "none",
        **({"left out": "; ".join(scored.unreadable)} if scored.unreadable else {}),
        "source": f"`{scored.source}`",
        "output": f"`{scored.output}`",
        "model": f"`{scored.model}`",
        "sha256": f"`{scored.sha256}`",
    }
    shares = [
        f"| {name} | {share:.1%} | {scored.training_class_shares[name]:.1%} |"
        for name, share in scored.class_shares.items()
    ]
    return "\n".join([*_table(rows), "", "| class | predicted | in training |", "|---|---:|---:|", *shares])


def decision(made: Decision) -> list[dict[str, str]]:
    """Return a decision as the rows of a table."""
    rows = {
        "decision": f"{made.number}: {made.verdict}",
        "version": str(made.version),
        "champion before": str(made.before or "none"),
        "champion after": str(made.champion),
        **(_stored_judgement(made.judgement) if made.judgement else {}),
        **made.digests,
    }
    return [{"what": name, "found": value} for name, value in rows.items()]


def _stored_judgement(values: dict[str, Any]) -> dict[str, str]:
    try:
        return judgement(values)
    except (KeyError, TypeError, ValueError):  # of a decision that another version has recorded
        return {"judgement": "cannot be shown: another version of Hallmark recorded it"}


def judgement(values: dict[str, Any]) -> dict[str, str]:
    """Return the numbers and gates of a judgement in words.

    Args:
        values: a `Judgement` as a `Decision` stores it.
    """
    low, high = values["interval"]
    gates = {
        f"gate: {gate['name']}": f"{'passed' if gate['passed'] else 'FAILED'}: {gate['found']}"
        for gate in values["gates"]
    }
    if values.get("disqualified"):  # decisions of older versions have no such field
        right = f"{values['challenger_accuracy']:.4f}"
        return {"test rows": str(values["rows"]), "accuracy": right, "disqualified": values["disqualified"]} | gates
    return {
        "test rows": str(values["rows"]),
        "only challenger right": str(values["wins"]),
        "only champion right": str(values["losses"]),
        "p": f"{values['p']:.4g}",
        "difference in accuracy": f"{values['difference']:+.4f}, between {low:+.4f} and {high:+.4f}",
    } | gates


def _table(rows: dict[str, str]) -> list[str]:
    return ["| what | outcome |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
