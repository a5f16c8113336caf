"""The outcome of a training, as `hallmark train` and `hallmark sweep` print it."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hallmark.flows.cli.shared.printing import command_name, short_path
from hallmark.tasks.common.digests import RUN_ID_DIGITS

if TYPE_CHECKING:
    from hallmark.tasks.common.records import Proof
    from hallmark.tasks.common.results import Outcome


def result(outcome: "Outcome") -> dict[str, Any]:
    """Return the fields of a training in the printed JSON."""
    return {
        "dataset_digest": outcome.dataset.digest,
        "onnx": str(outcome.artifact.path),
        "sha256": outcome.artifact.sha256,
        "metrics": outcome.fit.metrics | outcome.evaluation.metrics,
        "parity": {"passed": True, "max_abs_diff": outcome.proof.max_abs_diff, "rows": outcome.proof.rows},
        "diagnosis": [asdict(finding) for finding in outcome.findings],
        "model_version": outcome.model_version.version,
        "champion": asdict(outcome.model_version.champion),
        "resumed_from": _resumed_from(outcome),
    }


def rows(outcome: "Outcome", again: str) -> dict[str, str]:
    """Return what both commands print about the model.

    Args:
        outcome: the outcome of the training.
        again: source and options of the experiment, as a command takes them.
    """
    same_file = "" if outcome.model_version.is_new else " (its file is the same, so no version was added)"
    return {
        "parity": _describe_proof(outcome.proof),
        "findings": ", ".join(finding.code for finding in outcome.findings) or "none",
        "model": outcome.model_version.title + same_file,
        "champion": _champion(outcome, again),
        "onnx": short_path(outcome.artifact.path),
    }


def _champion(outcome: "Outcome", again: str) -> str:
    """Describe which version answers under the model's name now, and how to change that."""
    version, command = outcome.model_version, command_name()
    name, champion = version.name, version.champion
    accuracy = "" if champion.accuracy is None else f" (accuracy {champion.accuracy:.4f})"
    doubt = f", although it is disqualified: {champion.disqualified}" if champion.disqualified else ""
    shown = f"version {champion.version}{accuracy}"
    if version.is_champion:
        return f"is {shown}: `{command} predict {name}` answers with it{doubt}"
    compared = f"{name}@champion {outcome.run.id[:RUN_ID_DIGITS]}"
    return (
        f"is still {shown}{doubt}: compare, promote or retrain with `{command} compare {compared}`, "
        f"`{command} promote {name} {version.version} --reason WHY` or `{command} retrain {again}`"
    )


def accuracy(outcome: "Outcome") -> str:
    """Return the accuracy on the test split in words."""
    return f"{outcome.evaluation.metrics['test/accuracy']:.4f} on {outcome.proof.rows} test rows"


def _resumed_from(outcome: "Outcome") -> dict[str, int] | None:
    """Return the completed epochs and the updates of the next one; None if the run was not resumed."""
    if not (outcome.run.attempt.is_continued or outcome.fit.resumed_from):
        return None
    epoch, step = outcome.fit.resumed_from or (0, 0)
    return {"epoch": epoch, "step": step}


def _describe_proof(proof: "Proof") -> str:
    """Describe a proof in one line."""
    labels = f"all labels equal except {proof.ties} ties" if proof.ties else "all labels equal"
    return f"passed: maximum deviation {proof.max_abs_diff:.1e}, {labels}"
