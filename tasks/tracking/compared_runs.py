"""Read the runs of a comparison: what they have recorded, and the predictions of their files."""

from collections.abc import Sequence
from typing import Any

from hallmark.tasks.common.digests import SHOWN
from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.reports.run_comparison import comparison
from hallmark.tasks.ml.reports.run_comparison.comparison import CURVES, ComparedRun, RowResults
from hallmark.tasks.runtime import settings
from hallmark.tasks.tracking import run_lookup, run_queries, tags
from hallmark.tasks.tracking.stored import StoredRun


def gather(references: Sequence[str]) -> list[ComparedRun]:
    """Find runs, read what they have recorded, and predict their test rows with their files.

    Args:
        references: see `run_lookup.find`.

    Raises:
        InputError: a reference means no run or several, two references mean the same run, or a run's experiment cannot
            be read.
    """
    runs: dict[str, tuple[str, StoredRun]] = {}
    for reference in references:
        run = run_lookup.find(reference)
        if earlier := runs.get(run.id):
            raise InputError(f"{reference}: is the same run as {earlier[0]}: expected different ones")
        runs[run.id] = reference, run
    experiments = [run_queries.experiment(run) for _, run in runs.values()]
    return [_compared_run(*each, experiment) for each, experiment in zip(runs.values(), experiments, strict=True)]


def _compared_run(reference: str, run: StoredRun, experiment: Experiment) -> ComparedRun:
    results, missing = None, ""
    try:
        results = _results(run)
    except (InputError, DamagedError) as error:
        missing = str(error)
    curves = {metric: run_queries.curve(run, metric) for metric in CURVES}
    return ComparedRun(
        given=reference,
        run_id=run.id,
        name=run.title,
        status=run.status,
        model=f"{experiment.name} version {run.model_version}" if run.model_version else "",
        dataset=str(run.dataset),
        about=_about(run, experiment),
        metrics={name: value for name, value in run.metrics.items() if name.startswith("test/")},
        curves={metric: curve for metric, curve in curves.items() if curve[0]},
        results=results,
        missing=missing,
    )


def _about(run: StoredRun, experiment: Experiment) -> dict[str, Any]:
    """Return what the result depends on: options, data, code, machine."""
    options = {name: value for name, value in experiment.flat().items() if name != "name"}
    drawn = {"initial seed": int(run.tags[tags.INITIAL_SEED])} if tags.INITIAL_SEED in run.tags else {}
    return options | {"dataset": run.dataset} | drawn | run.conditions


def _results(run: StoredRun) -> RowResults:
    """Return the predictions of the run's file for its test rows.

    Raises:
        InputError: it shipped no file, or its file or rows are not available.
        DamagedError: the file or the rows are not those that were written.
    """
    folder = settings.read().home / "datasets" / str(run.dataset)
    if run.model_version and not (folder / "dataset.json").is_file():
        raise InputError(f"its dataset {str(run.dataset)[:SHOWN]} is not on this machine")
    return comparison.predict_test_rows(run_lookup.shipped(run), folder)
