"""Scoring on a schedule: the predictions of a registered model for the rows of a file, and how those rows compare."""

from pathlib import Path

from prefect import flow

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import Scored
from hallmark.tasks.ml.predict import input_rows, output_files
from hallmark.tasks.runtime import flow_artifacts
from hallmark.tasks.score import score as score_rows
from hallmark.tasks.tracking import model_reference


@flow(name="score", flow_run_name="{model} on {source}")
def score(model: str, source: str, output: Path, overwrite: bool = False) -> Scored:  # noqa: FBT001, FBT002 - Prefect calls by name
    """Predict the class of every row of a file, write the predictions, and compare the rows with those of training.

    Args:
        model: an .onnx file, a registered name (its champion), `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        source: CSV, Parquet or .npy, an image, or a folder of images.
        output: .csv, .parquet or .jsonl; appears whole or not at all.
        overwrite: replace the output if it exists.
    """
    if source == input_rows.STDIN:
        raise InputError("source: a scheduled run has no stdin: give a file or a folder")
    output_files.choose(output, None)
    output_files.refuse(output, source, overwrite=overwrite)
    scored = score_rows(model_reference.find(model), source, output)
    flow_artifacts.markdown(summary(scored), "scoring", "What was predicted")
    return scored


def summary(scored: Scored) -> str:
    """Shares of the predicted classes against those of training, as markdown for the Prefect UI."""
    rows = {
        "rows": f"{scored.rows:,}",
        "outside the training range": f"{scored.outside_training_range:,} rows, "
        f"{scored.outside_training_range / scored.rows:.1%}",
        "source": f"`{scored.source}`",
        "output": f"`{scored.output}`",
        "model": f"`{scored.model}`",
        "sha256": f"`{scored.sha256}`",
    }
    shares = [
        f"| {name} | {share:.1%} | {scored.training_class_shares[name]:.1%} |"
        for name, share in scored.class_shares.items()
    ]
    return "\n".join(
        [
            "| what | outcome |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in rows.items()),
            "",
            "| class | predicted | in training |",
            "|---|---:|---:|",
            *shares,
        ]
    )
