"""`hallmark predict`: check the input, score the rows, print a summary."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators

from hallmark.flows.cli.shared.errors import report_errors
from hallmark.flows.cli.shared.printing import Flag, print_json
from hallmark.tasks.common.errors import InputError

if TYPE_CHECKING:
    from hallmark.tasks.common.results import Scored

MAX_CLASSES = 5
"""Maximum number of classes in the summary, the most frequent first. `--json` has all of them."""


def predict(
    model: str,
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    output: Path | None = None,
    form: Annotated[Literal["table", "csv", "parquet", "jsonl"] | None, Parameter(name="--format")] = None,
    overwrite: Flag = False,
    for_spreadsheets: Flag = False,
    unreadable: Annotated[float, Parameter(validator=validators.Number(gte=0, lte=1))] = 1.0,
    json: Flag = False,
) -> None:
    """Predict the class of every row with a model that Hallmark exported.

    Memory stays bounded, however many rows there are.

    Example: hallmark predict iris flowers.csv --output predictions.csv

    Parameters
    ----------
    model
        An .onnx file, a registered name (its champion), models:/NAME@ALIAS or models:/NAME/VERSION.
    source
        A table with the columns of the model, or its address; a .npy file, an image, a folder of images, or - for CSV
        from stdin.
    output
        File to write: .csv, .parquet or .jsonl. Default: stdout. Nothing is written if a row cannot be predicted,
        but one unreadable image of a folder, or 1 % of them, are left out and listed.
    form
        Format of the output. Default: by the name of the file; on stdout, a table on a terminal and CSV elsewhere.
        Columns are the number of the `row` (or the `file` of an image), its `class`, and `p_<class>`, the probability
        of each class.
    overwrite
        Replace an existing output file.
    for_spreadsheets
        In CSV, put an apostrophe in front of names of classes and files that begin with =, +, -, @, a tab or a carriage
        return. A spreadsheet would run them as formulas.
    unreadable
        Largest accepted share of missing, unknown and unreadable values in a column, from 0 to 1. More are refused.
    json
        Print the result as one line of JSON; requires --output.
    """
    from hallmark.tasks.ml.predict import output_files, predictor
    from hallmark.tasks.runtime import progress, signals
    from hallmark.tasks.tracking.registry import model_reference

    with report_errors(as_json=json), signals.as_interrupt():
        if json and output is None:
            raise InputError("--json: stdout is taken by the predictions: add --output FILE")
        form = output_files.choose_format(output, form)
        if output:
            output_files.check_output(output, source, overwrite=overwrite)
        is_file = model_reference.is_file(model)
        if not is_file:
            _warn(model)
        scored = predictor.score(
            *(model_reference.find(model), source, output, form, partial(progress.rows, "predict")),
            apart=is_file,
            unreadable=unreadable,
            for_spreadsheets=for_spreadsheets,
        )
    for reason in scored.unreadable:
        progress.line("left out", reason)
    progress.line("predict", _sentence(scored))
    if scored.gaps:
        progress.line("columns", scored.describe_gaps())
    if json:
        print_json(_result(scored))


def _warn(model: str) -> None:
    """Say that findings disqualify the registered version that is about to predict."""
    from hallmark.tasks.ml.evaluation.promotion import disqualification
    from hallmark.tasks.promotion import champions
    from hallmark.tasks.runtime import progress
    from hallmark.tasks.tracking.registry import model_registry

    name, version = model_registry.resolve(model)
    if words := disqualification.describe(champions.recorded_findings(name, version)):
        progress.line("warning", f"{name} version {version} is disqualified: {words}: train or retrain without this")


def _sentence(scored: "Scored") -> str:
    by_share = sorted(scored.class_shares.items(), key=lambda item: -item[1])
    shares = [f"{name}: {share:.1%} (training {scored.training_class_shares[name]:.1%})" for name, share in by_share]
    more = [f"{len(shares) - MAX_CLASSES} more classes"] if len(shares) > MAX_CLASSES else []
    outside = f"{scored.outside_training_range:,} outside the training range"
    left_out = f"; unused columns: {', '.join(scored.left_out)}" if scored.left_out else ""
    return (
        f"{scored.rows:,} row{'s' * (scored.rows != 1)}, {outside}; {', '.join(shares[:MAX_CLASSES] + more)}{left_out}"
    )


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
        "gaps": [asdict(gaps) for gaps in scored.gaps],
        "unreadable": list(scored.unreadable),
    }
