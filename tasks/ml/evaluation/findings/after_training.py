"""What is wrong with an experiment: mistakes known beforehand, and what its training shows afterwards."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import Dataset, Evaluation, Finding, Fit
from hallmark.tasks.ml.artifact.proof import probe_rows
from hallmark.tasks.ml.config.data import Data, Points, Table
from hallmark.tasks.ml.config.experiment import Experiment, Step, Training
from hallmark.tasks.ml.config.models import Linear
from hallmark.tasks.ml.data.dataset_store import Rows, open_split
from hallmark.tasks.ml.evaluation.paired_tests import fewest_disagreements
from hallmark.tasks.ml.training.history import curves

ENOUGH_EPOCHS = 10
"""Of a shorter curve nothing is said."""
TAIL = 0.1
"""The last tenth of the epochs is the end of a curve."""
ANNEALED = 0.1
"""Below this share of its start, a learning rate has ended the training by itself."""
STILL_FALLING = 0.01
"""A training has not converged if its end brought more than this share of all that the loss fell."""
OSCILLATING_TURNS = 0.4
"""A loss oscillates if it turns at more than this share of the epochs of its last quarter ..."""
OSCILLATING_SWING = 0.02
"""... by more on average than this share of the log-loss of a model that knows nothing."""
OVERFITTED = 0.05
"""A validation loss has risen if it ends this share above its lowest value ..."""
OVERFITTED_AT_LEAST = 0.01
"""... and by this share of the log-loss of a model that knows nothing: less is no matter."""
OUTSIDE = 3.0
"""Test rows lie outside the training range if so many times more do than chance lets: a row of an honest sample leaves
the range of n others in one column with probability 2 / (n + 1)."""
RELATED = 0.01
"""A column says nothing about a class linearly if it explains less than this share of its variance ..."""
CHANCE = 4.0
"""... or less than this over the number of rows, since a squared correlation is about 1 / N by chance ..."""
RELATED_AT_MOST = 0.05
"""... but of a handful of rows, any that shows counts."""
ROWS_LOOKED_AT = 5000
"""Of more rows, so many evenly spread ones tell as much about a relation."""
DISCORDANT = fewest_disagreements(0.05)
"""So many rows must be right under one model and wrong under the other, and none the other way round, before the exact
two-sided McNemar test is below 0.05: 2 * 0.5**6 = 0.031."""
USEFUL_DIFFERENCE = 0.02
"""A test split that cannot show this difference in accuracy is too small."""


def beforehand(experiment: Experiment) -> tuple[Finding, ...]:
    """Examine an experiment before anything runs. Empty if nothing is known to be wrong with it."""
    return tuple(finding for made, finding in _mistakes(experiment) if made)


def afterwards(experiment: Experiment, dataset: Dataset, fit: Fit, evaluation: Evaluation) -> tuple[Finding, ...]:
    """Examine what training and evaluation showed. Empty if nothing is to be seen.

    Args:
        experiment: what ran.
        dataset: the rows.
        fit: weights and history.
        evaluation: metrics on the test split.
    """
    train, test = open_split(dataset, "train"), open_split(dataset, "test")
    found = [
        _no_better_than_prior(train, test, evaluation),
        _not_linear(experiment, train),
        _curves(experiment, dataset, fit),
        _outside(experiment, dataset, train, test),
        _too_small(test),
    ]
    return tuple(finding for finding in found if finding)


def _mistakes(experiment: Experiment) -> Iterator[tuple[bool, Finding]]:
    """Every mistake that can be known beforehand, and whether it was made."""
    data, training = experiment.data, experiment.training
    loss, output, model = training.loss.kind, experiment.model.output, experiment.model
    is_given = isinstance(model, Linear) and model.weight is not None and model.bias is not None
    yield (
        loss == "cross_entropy" and output != "logits",
        Finding(
            "activation_before_cross_entropy",
            f"cross_entropy takes logits and is given a {output}: it applies its softmax to numbers between 0 and 1, "
            "so that its gradient shrinks and no probability comes near 1",
            "--model.output logits",
        ),
    )
    yield (
        loss == "bce",
        Finding(
            "loss_on_probabilities",
            "bce takes the logarithm of a sigmoid that may have rounded to 0 or 1; "
            "bce_with_logits computes both in one, and stays exact",
            "--training.loss.kind bce_with_logits --model.output logits",
        ),
    )
    yield (
        loss == "mse",
        Finding(
            "mse_for_classification",
            "the gradient of mse vanishes where the model is confidently wrong, so that it may never leave there",
            "--training.loss.kind cross_entropy --model.output logits",
        ),
    )
    yield (
        data.scaling_fitted_on == "all",
        Finding(
            "scaling_fitted_beyond_training",
            "mean and deviation are fitted on all rows, the test rows among them: the test split is no longer unseen",
            "--data.scaling_fitted_on train",
        ),
    )
    yield (
        data.split.method == "resubstitution",
        Finding(
            "accuracy_on_training_rows",
            "the model is tested on the rows it was trained on: the accuracy says how well it remembers",
            _test_rows(data),
        ),
    )
    yield (
        training.monitor == "test",
        Finding(
            "test_split_watched",
            "the test split is looked at after every epoch: whoever chooses by it, chooses what suits it",
            _watch_validation(experiment),
        ),
    )
    yield (
        training.monitor == "train",
        Finding(
            "training_loss_as_validation",
            "what is watched as validation is the training loss, which cannot show overfitting",
            _watch_validation(experiment),
        ),
    )
    yield (
        training.initial_weights == "unseeded" and not is_given,
        Finding(
            "seeded_after_model",
            "the seed is set after the model is made: no two runs start from the same weights",
            "--training.initial_weights seeded",
        ),
    )


def _test_rows(data: Data) -> str:
    """How to come by test rows that were not trained on."""
    if isinstance(data, Points):
        return "write out more points, and use --data.split.method stratified --data.split.test 0.2"
    return "--data.split.method given" if data.brings_test else "--data.split.method stratified --data.split.test 0.2"


def _watch_validation(experiment: Experiment) -> str:
    split = experiment.data.split
    if split.method == "resubstitution" and experiment.training.patience:
        return "choose a --data.split.method that leaves rows for a validation split"
    has_one = split.validation or split.method == "resubstitution"
    return "--training.monitor validation" + ("" if has_one else " --data.split.validation 0.1")


def _no_better_than_prior(train: Rows, test: Rows, evaluation: Evaluation) -> Finding | None:
    shares = np.bincount(train.y) / len(train.y)
    accuracy, prior = evaluation.metrics["test/accuracy"], float((test.y == shares.argmax()).mean())
    log_loss, entropy = evaluation.metrics["test/log_loss"], float(-np.log(shares[test.y]).mean())
    if accuracy > prior or log_loss < entropy:
        return None
    return Finding(
        "no_better_than_prior",
        f"test accuracy {accuracy:.3f} and log-loss {log_loss:.3f}; who knows only how frequent the classes are, "
        f"and never looks at a row, gets {prior:.3f} and {entropy:.3f}",
        "look at data and labels first, then at the learning rate and the loss",
    )


def _not_linear(experiment: Experiment, train: Rows) -> Finding | None:
    """Where no column is correlated with any class, zero weights are the best of a linear model: its loss is convex."""
    # The fields of a table of one's own are no numbers yet.
    if not isinstance(experiment.model, Linear) or isinstance(experiment.data, Table) or has_linear_relation(train):
        return None
    return Finding(
        "no_linear_relation",
        "no column is linearly related to any class, so that zero weights are the best a single layer can find: "
        "these rows cannot be fitted by it",
        f"--model.kind mlp --model.output {experiment.model.output}",
    )


def has_linear_relation(train: Rows) -> bool:
    """Whether some column explains more of some class's variance, by squared correlation, than chance would."""
    some = slice(None, None, max(1, len(train.y) // ROWS_LOOKED_AT))
    y = train.y[some]
    x = train.x[some].reshape(len(y), -1).astype(np.float64)
    truth = (y[:, None] == np.unique(y)).astype(np.float64)
    x, truth = x - x.mean(axis=0), truth - truth.mean(axis=0)
    spread = np.outer(np.square(x).sum(axis=0), np.square(truth).sum(axis=0))
    squared = np.divide(np.square(x.T @ truth), spread, out=np.zeros_like(spread), where=spread > 0)
    by_chance = min(CHANCE / len(y), RELATED_AT_MOST)
    return float(squared.max()) > max(RELATED, by_chance)


def _curves(experiment: Experiment, dataset: Dataset, fit: Fit) -> Finding | None:
    """One sentence on the learning curves: what they show first hides what they would show next."""
    if fit.epochs < ENOUGH_EPOCHS:
        return None
    read = {name: np.array(values) for name, (_, values) in curves(fit.history).items()}
    train, lr = read["train/loss"], experiment.training.lr
    if _oscillates(train, len(dataset.classes)):
        return Finding(
            "loss_oscillates",
            f"the training loss goes up and down until the end: steps of learning rate {lr:g} are too large",
            f"--training.lr {lr / 10:g}",
        )
    validation = read.get("val/loss")
    if validation is not None and _overfits(train, validation, len(dataset.classes), fit):
        best = int(validation.argmin()) + 1
        return Finding(
            "overfits",
            f"the validation loss rises after epoch {best}, from {validation.min():.4f} to {validation[-1]:.4f}, "
            "while the training loss falls: with patience, the best weights are kept",
            "--training.patience 10" + " --training.monitor validation" * (experiment.training.monitor != "validation"),
        )
    if fit.stopped == "all epochs done" and not _anneals(experiment.training) and _is_falling(train):
        return Finding(
            "not_converged",
            f"the training loss is still falling after {fit.epochs} epochs: they are too few, or their steps too small",
            f"--training.epochs {fit.epochs * 4}",
        )
    return None


def _anneals(training: Training) -> bool:
    """Whether the learning rate ends so low that the loss falls no more, converged or not."""
    match training.schedule:
        case Step() as steps:
            return steps.factor ** ((training.epochs - 1) // steps.every) < ANNEALED
        case schedule:
            return schedule.kind != "constant"


def _oscillates(loss: NDArray[np.float64], classes: int) -> bool:
    steps = np.diff(loss[-max(len(loss) // 4, ENOUGH_EPOCHS) :])
    turns = np.mean(np.sign(steps[1:]) * np.sign(steps[:-1]) < 0)
    return bool(turns > OSCILLATING_TURNS and np.abs(steps).mean() > OSCILLATING_SWING * np.log(classes))


def _overfits(train: NDArray[np.float64], validation: NDArray[np.float64], classes: int, fit: Fit) -> bool:
    if fit.best_epoch != fit.epochs:
        return False  # the best weights were kept
    best = int(validation.argmin())
    rise = validation[-1] - validation[best]
    enough = max(OVERFITTED * validation[best], OVERFITTED_AT_LEAST * np.log(classes))
    return bool(rise > enough and train[-1] < train[best])


def _is_falling(loss: NDArray[np.float64]) -> bool:
    tail = max(1, round(TAIL * len(loss)))
    fall = float(loss[0] - loss[-1])
    return bool(loss[-1 - tail] - loss[-1] > STILL_FALLING * fall > 0)


def _outside(experiment: Experiment, dataset: Dataset, train: Rows, test: Rows) -> Finding | None:
    if not dataset.columns:
        return None  # a pixel that was never dark in training is nothing remarkable
    low, high = (np.asarray(bound, np.float64) for bound in probe_rows.seen(dataset))
    asked = np.array(experiment.data.asked if isinstance(experiment.data, Points) else ()).reshape(-1, 1)
    by_chance = len(test.x) * min(1.0, 2 * test.x.shape[1] / (len(train.x) + 1))
    for rows, what, allowed in ((asked, "points asked", 0.0), (test.x, "test rows", OUTSIDE * by_chance)):
        beyond = (rows < low) | (rows > high)
        if beyond.any(axis=1).sum() > allowed:
            row, column = np.argwhere(beyond)[0]
            return Finding(
                "outside_training_range",
                f"{beyond.any(axis=1).sum()} of {len(rows)} {what} lie outside the training range: "
                f"{dataset.columns[column]} {rows[row, column]:g}, trained on {low[column]:g} to {high[column]:g}",
                "trust no answer there; train on rows from there",
            )
    return None


def _too_small(test: Rows) -> Finding | None:
    smallest = DISCORDANT / len(test.y)
    if smallest <= USEFUL_DIFFERENCE:
        return None
    shown = f"the smallest it can show is {smallest:.1%}" if smallest <= 1 else "it can show none at all"
    return Finding(
        "test_split_too_small",
        f"{len(test.y)} test rows cannot tell two models apart that differ little in accuracy: {shown}",
        f"test on at least {round(DISCORDANT / USEFUL_DIFFERENCE)} rows, or compare over several seeds",
    )
