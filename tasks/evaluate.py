"""Step 4: look at the test split, once."""

from prefect import task

from tasks import progress, tracking
from tasks.ml import evaluation
from tasks.ml.config import Experiment
from tasks.ml.history import Journal
from tasks.ml.records import Dataset, Evaluation, Fit, Run


@task(task_run_name="evaluate {experiment.name}")
def evaluate(experiment: Experiment, dataset: Dataset, fit: Fit, run: Run) -> Evaluation:
    """Score and draw; see `tasks.ml.evaluation.evaluate`."""
    model, loss = experiment.model, experiment.training.loss
    result = evaluation.evaluate(dataset, fit, experiment.data, model, loss, fit.weights.parent)
    journal = Journal(run.attempt.folder / "journal")
    clock, _ = journal.stamp("evaluation", fit.epochs, result.metrics)
    journal.flush()
    tracking.log_evaluation(run, result, fit, clock)
    progress.say("evaluate", f"test accuracy {result.metrics['test/accuracy']:.3f}")
    return result
