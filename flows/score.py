"""The flow `score`: predictions of a registered model for the rows of a file, for example on a schedule."""

from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.results import Scored
from hallmark.tasks.ml.predict import input_rows, output_files
from hallmark.tasks.ml.reports import flow_pages
from hallmark.tasks.runtime import flow_artifacts
from hallmark.tasks.score import score as score_rows
from hallmark.tasks.tracking.registry import model_reference


@flow(name="score", flow_run_name="{model} on {source}")
def score(
    model: str,
    source: str,
    output: Path,
    overwrite: bool = False,  # noqa: FBT001, FBT002 - Prefect calls by name
    unreadable: Annotated[float, Field(ge=0, le=1)] = 1.0,
) -> Scored:
    """Predict the class of every row of a file, write the predictions, and compare the rows with the training rows.

    Args:
        model: an .onnx file, a registered name (its champion), `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        source: a table with the columns of the model, or its address; a .npy file, an image, or a folder of images.
        output: file to write, .csv, .parquet or .jsonl; nothing is written if scoring fails.
        overwrite: whether to replace the output if it exists.
        unreadable: largest accepted share of missing, unknown and unreadable values in a column.
    """
    if source == input_rows.STDIN:
        raise InputError("source: a flow run cannot read stdin ('-'): give a file or a folder")
    output_files.choose_format(output, None)
    output_files.check_output(output, source, overwrite=overwrite)
    scored = score_rows(model_reference.find(model), source, output, unreadable, apart=model_reference.is_file(model))
    flow_artifacts.markdown(flow_pages.scoring(scored), "scoring", "Predictions")
    return flow_artifacts.finished(scored)
