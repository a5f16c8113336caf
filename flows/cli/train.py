"""`hallmark train`: check the input, run the flow, print the result."""

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cyclopts import App

from hallmark.flows.cli.shared import execution, outcomes
from hallmark.flows.cli.shared.errors import report_errors
from hallmark.flows.cli.shared.experiment_source import ExperimentSource
from hallmark.flows.cli.shared.printing import Flag, Token, command_name, print_json, print_rows
from hallmark.flows.experiments import options, taken_names
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.experiment import Experiment

if TYPE_CHECKING:
    from hallmark.tasks.common.results import Outcome

command = App(name="train", help_epilogue=options.describe())


@command.default
def train(
    source: ExperimentSource,
    /,
    *tokens: Token,
    strict: Flag = False,
    fresh: Flag = False,
    json: Flag = False,
) -> None:
    """Train, evaluate, export, verify and register a model, as a Prefect flow tracked in MLflow.

    If a run is interrupted, even by kill -9, the same command resumes it where it stopped.

    Example: hallmark train iris --training.epochs 20 --data.split.seed 1

    Parameters
    ----------
    strict
        Refuse the experiment if it contains a known mistake.
    fresh
        Start from the beginning instead of resuming an interrupted run.
    json
        Print the result as one line of JSON instead of a table.
    """

    def load() -> "Callable[[], Outcome]":
        from hallmark.flows.train import train as flow

        execution.refuse_impossible(experiment)
        taken_names.refuse(source, tokens, experiment)
        return lambda: flow(experiment, fresh=fresh)

    with report_errors(as_json=json):
        experiment = options.experiment(source, tokens)
        if strict:
            _refuse_mistakes(experiment)
        outcome = execution.execute("train", experiment.name, load)
    if json:
        print_json(_result(experiment, outcome))
    else:
        _print_table(outcome, shlex.join([source, *tokens]))


def _refuse_mistakes(experiment: Experiment) -> None:
    from hallmark.tasks.ml.evaluation.findings import before_training

    if known := before_training.find(experiment):
        listed = "; ".join(f"{finding.code}: {finding.sentence} (fix: {finding.remedy})" for finding in known)
        raise InputError(f"{experiment.name}: refused by --strict: {listed}")


def _result(experiment: Experiment, outcome: "Outcome") -> dict[str, Any]:
    return {
        "status": "finished",
        "name": experiment.name,
        "run_id": outcome.run.id,
        "experiment_digest": experiment.digest,
        **outcomes.result(outcome),
    }


def _print_table(outcome: "Outcome", again: str) -> None:
    metrics = outcome.evaluation.metrics
    rows = {
        "accuracy": outcomes.accuracy(outcome),
        "loss": f"{metrics['test/loss']:.4f}",
        "unit": ", ".join(f"{name[6:]} {value:.4f}" for name, value in metrics.items() if name.startswith("model/")),
        **outcomes.rows(outcome, again),
        "run": outcome.run.url,
        "next": f"{command_name()} ui",
    }
    print_rows({name: value for name, value in rows.items() if value})
