"""Runs to be compared: found by whatever they are called, with all that the store and this machine have of them."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hallmark.tasks.common.digests import SHOWN
from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.ml.config.experiment import NAME, Experiment
from hallmark.tasks.ml.reports.run_comparison import comparison
from hallmark.tasks.ml.reports.run_comparison.comparison import CURVES, ComparedRun, Curve, RowResults
from hallmark.tasks.runtime import settings
from hallmark.tasks.tracking import model_registry, run_queries
from hallmark.tasks.tracking.client import connect

if TYPE_CHECKING:
    from mlflow.entities import Run


def gather(references: Sequence[str]) -> list[ComparedRun]:
    """Find runs and read what they have recorded; then let their files predict their test rows.

    Args:
        references: of each the first digits of its id, the name of its experiment, whose newest finished run is meant,
            `MODEL@ALIAS` or `models:/MODEL/VERSION`. A sweep means the member that it chose.

    Raises:
        InputError: one of them means no run or several, or two mean the same.
    """
    found: dict[str, tuple[str, Run]] = {}
    for reference in references:
        run = find(reference)
        if known := found.get(run.info.run_id):
            raise InputError(f"{reference}: is the same run as {known[0]}: expected different ones")
        found[run.info.run_id] = reference, run
    experiments = [_experiment(*each) for each in found.values()]
    return [_compared_run(*each, experiment) for each, experiment in zip(found.values(), experiments, strict=True)]


def find(reference: str) -> "Run":
    """The run that is meant; see `gather`.

    Raises:
        InputError: there is none, or there are several.
    """
    run = _of_version(reference) if "@" in reference or reference.startswith("models:") else _of_name(reference)
    tags = run.data.tags
    if "hallmark.sweep" in tags:
        if "hallmark.chosen_run" not in tags:
            raise InputError(f"{reference}: is a sweep in which no member was chosen: name one of them by its id")
        return run_queries.find(tags["hallmark.chosen_run"])
    if "hallmark.experiment_digest" not in tags:
        raise InputError(f"{reference}: is no run of Hallmark's: it has no experiment")
    return run


def _of_version(reference: str) -> "Run":
    uri = reference if reference.startswith("models:") else f"models:/{reference}"
    if found := re.fullmatch(r"models:/([^/@]+)[/@].+", uri):
        model_registry.known(found[1])
    name, number = model_registry.resolve(uri)
    run_id = model_registry.entry(name, number).run_id
    if not run_id:
        raise InputError(f"{reference}: {name} version {number} has no run")
    return run_queries.find(run_id)


def _of_name(reference: str) -> "Run":
    """By the name of an experiment, or the first digits of an id."""
    newest = _newest(reference) if re.fullmatch(NAME, reference) else []
    if re.fullmatch("[0-9a-f]{4,32}", reference):
        if not newest:
            return run_queries.find(reference)
        if _starting(reference):
            raise InputError(f"{reference}: is an experiment's name, and a run's id begins so: give more of the id")
    if not newest:
        raise InputError(f"there is no run '{reference}': {_hint(reference)}")
    finished = [run for run in newest if run.info.status == "FINISHED"]
    if not finished:
        raise InputError(f"no run of '{reference}' has finished: `hallmark runs {reference}` lists them")
    return finished[0]


def _newest(name: str) -> "list[Run]":
    """The newest run of a name, and the newest that has finished."""
    mine = f"tags.`hallmark.name` = '{name}' AND tags.`mlflow.parentRunId` IS NULL"
    return [run for more in ("", " AND attributes.status = 'FINISHED'") for run in _search(mine + more)]


def _starting(digits: str) -> "list[Run]":
    return _search(f"attributes.run_id LIKE '{digits}%'")


def _search(wanted: str) -> "list[Run]":
    client = connect()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, wanted, max_results=1, order_by=["attributes.start_time DESC"]))


def _hint(reference: str) -> str:
    names = sorted({run.experiment for run in run_queries.recent_runs(None, 1000)})
    if near := difflib.get_close_matches(reference, names, n=3, cutoff=0.5):
        return f"did you mean {' or '.join(repr(name) for name in near)}?"
    said = f"experiments are {', '.join(names)}" if names else "there are none at all yet"
    return f"expected the name of an experiment, at least 4 digits of an id, or MODEL@ALIAS: {said}"


def _experiment(reference: str, run: "Run") -> Experiment:
    try:
        stored = [file.path for file in connect().list_artifacts(run.info.run_id)]
        if "experiment.toml" in stored:
            return run_queries.experiment(run)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise InputError(f"{reference}: its experiment is of another Hallmark: {where}: {problem['msg']}") from error
    raise InputError(f"{reference}: its experiment.toml is not in the store")


def _compared_run(reference: str, run: "Run", experiment: Experiment) -> ComparedRun:
    results, missing = None, ""
    try:
        results = _results(run)
    except (InputError, DamagedError) as error:
        missing = str(error)
    tags = run.data.tags
    version = tags.get("hallmark.model_version")
    return ComparedRun(
        given=reference,
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        model=f"{experiment.name} version {version}" if version else "",
        dataset=tags["hallmark.dataset_digest"],
        about=_about(run, experiment),
        metrics={name: value for name, value in run.data.metrics.items() if name.startswith("test/")},
        curves={metric: curve for metric in CURVES if (curve := _curve(run, metric))[0]},
        results=results,
        missing=missing,
    )


def _about(run: "Run", experiment: Experiment) -> dict[str, Any]:
    """What the result depends on: options, data, code, machine. A name is nobody's."""
    tags = run.data.tags
    options = {name: value for name, value in experiment.flat().items() if name != "name"}
    drawn = {"initial seed": int(tags["hallmark.initial_seed"])} if "hallmark.initial_seed" in tags else {}
    return options | {"dataset": tags["hallmark.dataset_digest"]} | drawn | run_queries.marks(run)


def _curve(run: "Run", metric: str) -> Curve:
    points = {point.step: point.value for point in connect().get_metric_history(run.info.run_id, metric)}
    return sorted(points), [points[step] for step in sorted(points)]


def _results(run: "Run") -> RowResults:
    """What its file says of its test rows.

    Raises:
        InputError: it shipped none, or its file or its rows are not to be had.
        DamagedError: they are not those that were written.
    """
    digest = run.data.tags["hallmark.dataset_digest"]
    folder = settings.read().home / "datasets" / digest
    if "hallmark.model_version" in run.data.tags and not (folder / "dataset.json").is_file():
        raise InputError(f"its dataset {digest[:SHOWN]} is not on this machine")
    return comparison.predict_test_rows(shipped(run), folder)


def shipped(run: "Run") -> Path:
    """The file that a run has shipped, on this machine.

    Raises:
        InputError: it shipped none, or its file is not to be had.
        DamagedError: it is not the one that was registered.
    """
    tags = run.data.tags
    name, version = (tags.get(f"hallmark.{tag}", "") for tag in ("name", "model_version"))
    if not version:
        raise InputError("it shipped no file")
    file = model_registry.fetch(f"models:/{name}/{version}")
    # Where a model was deleted and made again, its versions are counted anew.
    if model_registry.entry(name, int(version)).tags[model_registry.SHA256] != tags.get(model_registry.SHA256):
        raise InputError(f"its file is gone from the registry: {name} version {version} is another now")
    return file
