"""The outcome of a training, as `hallmark train` and `hallmark sweep` print it."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hallmark.flows.cli.shared.printing import short_path

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
        "resumed_from": _resumed_from(outcome),
    }


def rows(outcome: "Outcome") -> dict[str, str]:
    """Return what both commands print about the model."""
    return {
        "parity": _describe_proof(outcome.proof),
        "findings": ", ".join(finding.code for finding in outcome.findings) or "none",
        "model": outcome.model_version.title,
        "onnx": short_path(outcome.artifact.path),
    }


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
