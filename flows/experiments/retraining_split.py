"""The split of a retraining, chosen so that test rows of the challenger are no training rows of the champion."""

from hallmark.flows.experiments import own_data, presets
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.data import Split
from hallmark.tasks.ml.config.experiment import Experiment


def choose(experiment: Experiment, champion: Experiment | None) -> Experiment:
    """Return the experiment with the split that its retraining uses.

    Data that may grow is split by content, if every split gets rows of every class that way: then no row changes its
    split as the data grows. The rows of a preset stay the same, so it keeps the champion's split, unless another one
    was asked for.

    Args:
        experiment: the experiment to retrain.
        champion: the experiment of the champion; None if there is none, or it cannot be read.

    Raises:
        InputError: the experiment is tested on its training rows.
    """
    split = experiment.data.split
    if split.method == "resubstitution":
        raise InputError(
            f"{experiment.name}: data.split.method 'resubstitution' tests on the training rows, so no challenger can "
            "be judged: add --data.split.method content --data.split.test 0.2"
        )
    if own_data.may_grow(experiment.data):
        content = by_content(experiment)
        return content if own_data.suits(content.data) else experiment
    if champion is None or champion.data.kind != experiment.data.kind or split != presets.default_split(experiment):
        return experiment
    kept = champion.data.split
    return experiment if kept.method == "resubstitution" else _with_split(experiment, kept)


def by_content(experiment: Experiment) -> Experiment:
    """Return the experiment with its rows split by their own digest instead of by a seed."""
    split = experiment.data.split
    if split.method not in own_data.BY_SEED:
        return experiment
    return _with_split(experiment, Split.model_validate(split.model_dump() | {"method": "content"}))


def _with_split(experiment: Experiment, split: Split) -> Experiment:
    tree = experiment.model_dump(mode="json")
    tree["data"]["split"] = split.model_dump(mode="json")
    return Experiment.model_validate(tree)
