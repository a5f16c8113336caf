"""Findings that training and evaluation show.

To add a finding, write a function that returns it or None, and list the function in `CHECKS`. Of the learning curves,
only the first finding is reported, because it explains the others: `CURVE_CHECKS` lists those.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import ALL_EPOCHS, Dataset, Evaluation, Finding, Fit
from hallmark.tasks.ml.config.data import Points, Table
from hallmark.tasks.ml.config.experiment import Experiment, Step, Training
from hallmark.tasks.ml.config.models import Linear
from hallmark.tasks.ml.data.dataset_store import Rows, open_split, training_range
from hallmark.tasks.ml.data.tables.wide_numbers import in_words
from hallmark.tasks.ml.evaluation.paired_tests import fewest_disagreements
from hallmark.tasks.ml.training.history import curves

ENOUGH_EPOCHS = 10
"""Shorter curves are not examined."""
TAIL = 0.1
"""Share of the epochs that counts as the end of a curve."""
ANNEALED = 0.1
"""Below this share of its initial value, the learning rate is too small for the loss to fall further."""
STILL_FALLING = 0.01
"""Training has not converged if the end of the curve contributes more than this share of the whole fall of the loss."""
OSCILLATING_TURNS = 0.4
"""A loss oscillates if it changes direction at more than this share of the epochs in its last quarter ..."""
OSCILLATING_SWING = 0.02
"""... by more on average than this share of the log-loss of equal probabilities."""
OVERFITTED = 0.05
"""A validation loss has risen if it ends this share above its lowest value ..."""
OVERFITTED_AT_LEAST = 0.01
"""... and by this share of the log-loss of equal probabilities."""
OUTSIDE = 3.0
"""Report test rows outside the training range if there are more than this many times the number expected by chance: in
one column, a row of the same distribution leaves the range of n others with probability 2 / (n + 1)."""
RELATED = 0.01
"""A column is linearly related to a class if it explains more than this share of its variance ..."""
CHANCE = 4.0
"""... and more than this over the number of rows, because a squared correlation is about 1 / N by chance ..."""
RELATED_AT_MOST = 0.05
"""... but never needs more than this share."""
LOOKED_AT = 5000
"""Evenly spread training rows that are enough to see a linear relation."""
DISCORDANT = fewest_disagreements(0.05)
"""Minimum number of rows on which only one model is right, always the same one, for which the exact McNemar test is
below 0.05: 2 * 0.5**6 = 0.031."""
USEFUL_DIFFERENCE = 0.02
"""A test split that cannot show this difference in accuracy is too small."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained experiment, with its rows."""

    experiment: Experiment
    dataset: Dataset
    fit: Fit
    evaluation: Evaluation
    train: Rows
    test: Rows


def find(experiment: Experiment, dataset: Dataset, fit: Fit, evaluation: Evaluation) -> tuple[Finding, ...]:
    """Return what training and evaluation show; empty if nothing is wrong.

    Args:
        experiment: the configuration that ran.
        dataset: the prepared splits.
        fit: weights and history.
        evaluation: metrics on the test split.
    """
    splits = open_split(dataset, "train"), open_split(dataset, "test")
    trained = Trained(experiment, dataset, fit, evaluation, *splits)
    return tuple(finding for check in CHECKS if (finding := check(trained)))


def _no_better_than_prior(trained: Trained) -> Finding | None:
    train, test, metrics = trained.train, trained.test, trained.evaluation.metrics
    counts = np.bincount(train.y, weights=_class_weights(trained)[train.y])
    shares = counts / counts.sum()
    accuracy, prior = metrics["test/accuracy"], float((test.y == shares.argmax()).mean())
    log_loss, entropy = metrics["test/log_loss"], float(-np.log(shares[test.y]).mean())
    if accuracy > prior or log_loss < entropy:
        return None
    return Finding(
        "no_better_than_prior",
        f"test accuracy {accuracy:.3f} and log-loss {log_loss:.3f} are no better than predicting from class "
        f"frequencies alone, which gives {prior:.3f} and {entropy:.3f}",
        "check data and labels first, then the learning rate and the loss",
    )


def _class_weights(trained: Trained) -> NDArray[np.float64]:
    """Return the weights of the classes in the loss, `(C,)`, which decide what is best without looking at a row."""
    weights, classes = getattr(trained.experiment.training.loss, "weight", None), len(trained.dataset.classes)
    return np.array(weights) if weights is not None and len(weights) == classes else np.ones(classes)


def _no_linear_relation(trained: Trained) -> Finding | None:
    """If no column is correlated with any class, zero weights are best: the loss of a linear model is convex."""
    experiment = trained.experiment
    if not isinstance(experiment.model, Linear):
        return None
    # Columns of a user's table are not numbers yet.
    if isinstance(experiment.data, Table) or has_linear_relation(trained.train):
        return None
    return Finding(
        "no_linear_relation",
        "no column is linearly related to any class, so a single layer can do no better than zero weights",
        f"--model.kind mlp --model.output {experiment.model.output}",
    )


def has_linear_relation(train: Rows) -> bool:
    """Return whether a column explains more of a class's variance, by squared correlation, than chance would."""
    some = slice(None, None, max(1, len(train.y) // LOOKED_AT))
    y = train.y[some]
    x = train.x[some].reshape(len(y), -1).astype(np.float64)
    truth = (y[:, None] == np.unique(y)).astype(np.float64)
    x, truth = x - x.mean(axis=0), truth - truth.mean(axis=0)
    spread = np.outer(np.square(x).sum(axis=0), np.square(truth).sum(axis=0))
    squared = np.divide(np.square(x.T @ truth), spread, out=np.zeros_like(spread), where=spread > 0)
    by_chance = min(CHANCE / len(y), RELATED_AT_MOST)
    return float(squared.max()) > max(RELATED, by_chance)


def _learning_curves(trained: Trained) -> Finding | None:
    if trained.fit.epochs < ENOUGH_EPOCHS:
        return None
    recorded = {name: np.array(values) for name, (_, values) in curves(trained.fit.history).items()}
    findings = (check(trained, recorded["train/loss"], recorded.get("val/loss")) for check in CURVE_CHECKS)
    return next((finding for finding in findings if finding), None)


def _loss_oscillates(trained: Trained, train: NDArray[np.float64], _: NDArray[np.float64] | None) -> Finding | None:
    steps = np.diff(train[-max(len(train) // 4, ENOUGH_EPOCHS) :])
    turns = np.mean(np.sign(steps[1:]) * np.sign(steps[:-1]) < 0)
    swing = OSCILLATING_SWING * np.log(len(trained.dataset.classes))
    if not (turns > OSCILLATING_TURNS and np.abs(steps).mean() > swing):
        return None
    lr = trained.experiment.training.lr
    return Finding(
        "loss_oscillates",
        f"the training loss oscillates until the end: the learning rate {lr:g} is too large",
        f"--training.lr {lr / 10:g}",
    )


def _overfits(trained: Trained, train: NDArray[np.float64], validation: NDArray[np.float64] | None) -> Finding | None:
    fit = trained.fit
    if validation is None or fit.best_epoch != fit.epochs:  # in the second case the best weights were kept
        return None
    best = int(validation.argmin())
    rise = validation[-1] - validation[best]
    enough = max(OVERFITTED * validation[best], OVERFITTED_AT_LEAST * np.log(len(trained.dataset.classes)))
    if not (rise > enough and train[-1] < train[best]):
        return None
    watches_validation = trained.experiment.training.monitor == "validation"
    return Finding(
        "overfits",
        f"the validation loss rises after epoch {best + 1}, from {validation.min():.4f} to {validation[-1]:.4f}, while "
        "the training loss falls; with patience, the best weights are kept",
        "--training.patience 10" + " --training.monitor validation" * (not watches_validation),
    )


def _not_converged(trained: Trained, train: NDArray[np.float64], _: NDArray[np.float64] | None) -> Finding | None:
    fit = trained.fit
    tail = max(1, round(TAIL * len(train)))
    fall = float(train[0] - train[-1])
    is_falling = bool(train[-1 - tail] - train[-1] > STILL_FALLING * fall > 0)
    if fit.stopped != ALL_EPOCHS or _anneals(trained.experiment.training) or not is_falling:
        return None
    return Finding(
        "not_converged",
        f"the training loss is still falling after {fit.epochs} epochs: too few epochs, or too small a learning rate",
        f"--training.epochs {fit.epochs * 4}",
    )


def _anneals(training: Training) -> bool:
    """Return whether the learning rate ends so low that the loss stops falling, converged or not."""
    match training.schedule:
        case Step() as steps:
            return steps.factor ** ((training.epochs - 1) // steps.every) < ANNEALED
        case schedule:
            return schedule.kind != "constant"


def _outside_training_range(trained: Trained) -> Finding | None:
    dataset, data, train, test = trained.dataset, trained.experiment.data, trained.train, trained.test
    if not dataset.columns:
        return None  # pixels that were never dark in training are normal
    low, high = (np.asarray(bound, np.float64) for bound in training_range(dataset))
    points = np.array(data.asked if isinstance(data, Points) else ()).reshape(-1, 1)
    by_chance = len(test.x) * min(1.0, 2 * test.x.shape[1] / (len(train.x) + 1))
    for rows, name, allowed in ((points, "extra points", 0.0), (test.x, "test rows", OUTSIDE * by_chance)):
        is_outside = (rows < low) | (rows > high)
        if (count := is_outside.any(axis=1).sum()) > allowed:
            row, column = np.argwhere(is_outside)[0]
            show = in_words if dataset.columns[column] in dataset.wide else "{:g}".format
            return Finding(
                "outside_training_range",
                f"{count} of {len(rows)} {name} are outside the training range, for example "
                f"{dataset.columns[column]} = {show(rows[row, column])} (training range {show(low[column])} to "
                f"{show(high[column])})",
                "do not trust predictions there, or train on rows from that range",
            )
    return None


def _test_split_too_small(trained: Trained) -> Finding | None:
    rows = len(trained.test.y)
    smallest = DISCORDANT / rows
    if smallest <= USEFUL_DIFFERENCE:
        return None
    limit = (
        "no difference in accuracy is" if smallest > 1 else f"accuracy gaps under {100 * smallest:.3g} points are not"
    )
    return Finding(
        "test_split_too_small",
        f"with {rows} test rows, {limit} significant",
        f"test on at least {round(DISCORDANT / USEFUL_DIFFERENCE)} rows, or compare over several seeds",
    )


CHECKS: tuple[Callable[[Trained], Finding | None], ...] = (
    _no_better_than_prior,
    _no_linear_relation,
    _learning_curves,
    _outside_training_range,
    _test_split_too_small,
)
"""All checks, in the order in which their findings are listed."""
CURVE_CHECKS = (_loss_oscillates, _overfits, _not_converged)
"""Checks of the learning curves: training loss and validation loss by epoch."""
