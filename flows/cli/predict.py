"""`hallmark predict`: refuse what cannot be done, score the rows, say what came out."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from hallmark.flows.cli import execution
from hallmark.flows.cli.printing import Flag, print_json
from hallmark.tasks.common.errors import InputError

if TYPE_CHECKING:
    from hallmark.tasks.common.records import Scored

SAID = 5
"""So many classes are in the last line, the most frequent first; all are in --json."""


def predict(
    model: str,
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    output: Path | None = None,
    form: Annotated[Literal["table", "csv", "parquet", "jsonl"] | None, Parameter(name="--format")] = None,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Predict the class of every row, whatever their number, with a file that Hallmark shipped.

    Example: hallmark predict iris flowers.csv --output said.csv

    Parameters
    ----------
    model
        An .onnx file, a registered name (its champion), models:/NAME@ALIAS or models:/NAME/VERSION.
    source
        CSV, Parquet or .npy, an image, a folder of images, or - for CSV from stdin.
    output
        File to write, which appears whole or not at all; .csv, .parquet or .jsonl. Otherwise stdout.
    form
        By the name of the file if not given, else a table on a terminal and CSV elsewhere. Each row has its number
        `row` (an image its `file`), its `class`, and a probability `p_<class>` for each class.
    overwrite
        Replace the output file if it exists.
    json
        End with one line of JSON on stdout; with --output only.
    """
    from hallmark.tasks.ml.predict import output_files, predictor
    from hallmark.tasks.runtime import progress, signals
    from hallmark.tasks.tracking import model_reference

    with execution.report_errors(as_json=json), signals.as_interrupt():
        if json and output is None:
            raise InputError("--json: the predictions themselves go to stdout: add --output FILE")
        form = output_files.choose(output, form)
        if output:
            output_files.refuse(output, source, overwrite=overwrite)
        scored = predictor.score(model_reference.find(model), source, output, form, partial(progress.rows, "predict"))
    progress.say("predict", _sentence(scored))
    if json:
        print_json(_result(scored))


def _sentence(scored: "Scored") -> str:
    by_share = sorted(scored.class_shares.items(), key=lambda item: -item[1])
    said = [f"{name}: {share:.1%} (training {scored.training_class_shares[name]:.1%})" for name, share in by_share]
    more = [f"{len(said) - SAID} more classes"] if len(said) > SAID else []
    outside = f"{scored.outside_training_range:,} outside the training range"
    left_out = f"; columns left out: {', '.join(scored.left_out)}" if scored.left_out else ""
    return f"{scored.rows:,} row{'s' * (scored.rows != 1)}, {outside}; {', '.join(said[:SAID] + more)}{left_out}"


def _result(scored: "Scored") -> dict[str, Any]:
    return {
        "status": "finished",
        "onnx": str(scored.model),
        "sha256": scored.sha256,
        "source": scored.source,
        "output": str(scored.output),
        "rows": scored.rows,
        "class_shares": scored.class_shares,
        "training_class_shares": scored.training_class_shares,
        "outside_training_range": scored.outside_training_range,
        "left_out": list(scored.left_out),
    }
