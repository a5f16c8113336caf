"""First step of a reproduction: train again as an earlier run was trained."""

from pathlib import Path

from hallmark.tasks.common.records import Dataset, Fit
from hallmark.tasks.common.results import Recorded
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import trainer
from hallmark.tasks.runtime import progress
from hallmark.tasks.runtime.steps import step


@step("fit", "{experiment.name} again")
def refit(recorded: Recorded, experiment: Experiment, dataset: Dataset, folder: Path) -> Fit:
    """Train with the initial weights of an earlier run. Nothing is logged, and no checkpoint is written.

    Args:
        recorded: the earlier run; its recorded seed is used, because an unseeded experiment has none.
        experiment: its experiment, on a device of this machine.
        dataset: its data.
        folder: where weights and history appear.
    """
    training = experiment.training
    seeds = {"initial_weights": "seeded", "seed": recorded.initial_seed, "shuffle_seed": training.order_seed}
    with progress.epochs(training.epochs) as show:

        def report(step: int, metrics: dict[str, float], clock: int) -> None:  # noqa: ARG001 - nothing is logged
            if "train/loss" in metrics:
                show(step, metrics)

        seeded = training.model_copy(update=seeds)
        return trainer.fit(dataset, experiment.data, experiment.model, seeded, folder, report)
