"""Score the trained model on the test split, once."""

from dataclasses import replace

from hallmark.tasks.common.records import Dataset, Evaluation, Fit, Run
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation import evaluator
from hallmark.tasks.ml.models import networks
from hallmark.tasks.ml.reports.plots import evaluation_plots
from hallmark.tasks.ml.training.history import timestamp_of
from hallmark.tasks.runtime import progress
from hallmark.tasks.runtime.steps import step
from hallmark.tasks.tracking import run_logger


@step("evaluate", "{experiment.name}")
def evaluate(experiment: Experiment, dataset: Dataset, fit: Fit, run: Run | None) -> Evaluation:
    """Compute the test metrics, and draw and log them; see `hallmark.tasks.ml.evaluation.evaluator.evaluate`.

    Args:
        experiment: the trained experiment.
        dataset: its data.
        fit: the result of its training.
        run: where the evaluation is logged; None neither draws nor logs.
    """
    data, folder = experiment.data, fit.weights.parent
    classifier = networks.load(fit, dataset, experiment.model, experiment.training.loss)
    evaluated = evaluator.evaluate(classifier, dataset, data, folder)
    result = evaluated.record
    if run:
        plots = evaluation_plots.draw(evaluated, classifier, dataset, fit, data, folder)
        result = replace(result, files=(*result.files, *plots))
        clock = timestamp_of(run.attempt.folder, "evaluation", fit.epochs, result.metrics)
        run_logger.log_evaluation(run, result, fit, clock)
    progress.report(f"test accuracy {result.metrics['test/accuracy']:.3f}")
    return result
