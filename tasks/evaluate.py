"""Step 4: look at the test split, once."""

from dataclasses import replace

from prefect import task

from hallmark.tasks.common.records import Dataset, Evaluation, Fit, Run
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation import evaluator
from hallmark.tasks.ml.models import networks
from hallmark.tasks.ml.reports.plots import evaluation_plots
from hallmark.tasks.ml.training.history import TimestampLog
from hallmark.tasks.runtime import progress
from hallmark.tasks.tracking import run_logger


@task(task_run_name="evaluate {experiment.name}")
def evaluate(experiment: Experiment, dataset: Dataset, fit: Fit, run: Run) -> Evaluation:
    """Score and draw; see `hallmark.tasks.ml.evaluation.evaluator.evaluate`."""
    data, folder = experiment.data, fit.weights.parent
    classifier = networks.load(fit, dataset, experiment.model, experiment.training.loss)
    evaluated = evaluator.evaluate(classifier, dataset, data, folder)
    plots = evaluation_plots.draw(evaluated, classifier, dataset, fit, data, folder)
    result = replace(evaluated.record, files=(*evaluated.record.files, *plots))
    timestamps = TimestampLog(run.attempt.folder / "journal")
    clock, _ = timestamps.stamp("evaluation", fit.epochs, result.metrics)
    timestamps.flush()
    run_logger.log_evaluation(run, result, fit, clock)
    progress.say("evaluate", f"test accuracy {result.metrics['test/accuracy']:.3f}")
    return result
