"""Findings that are known from the experiment alone, before anything is trained.

To add a finding, write a function that returns it or None, and list the function in `CHECKS`.
"""

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import Finding
from hallmark.tasks.ml.config.data import Own, Points
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.config.models import Linear


def find(experiment: Experiment) -> tuple[Finding, ...]:
    """Return the known mistakes of an experiment; empty if there are none."""
    return tuple(finding for check in CHECKS if (finding := check(experiment)))


def refuse(findings: tuple[Finding, ...], name: str) -> None:
    """Refuse an experiment that has findings, for `--strict`.

    Raises:
        InputError: there is a finding; the message lists all.
    """
    if findings:
        listed = "; ".join(f"{finding.code}: {finding.sentence} (fix: {finding.remedy})" for finding in findings)
        raise InputError(f"{name}: refused by --strict: {listed}")


def _activation_before_cross_entropy(experiment: Experiment) -> Finding | None:
    output = experiment.model.output
    if experiment.training.loss.kind != "cross_entropy" or output == "logits":
        return None
    return Finding(
        "activation_before_cross_entropy",
        f"cross_entropy expects logits and gets the output of a {output}: it applies softmax to numbers between 0 and "
        "1, so gradients shrink and no probability comes near 1",
        "--model.output logits",
    )


def _loss_on_probabilities(experiment: Experiment) -> Finding | None:
    if experiment.training.loss.kind != "bce":
        return None
    return Finding(
        "loss_on_probabilities",
        "bce takes the logarithm of a sigmoid that may have rounded to 0 or 1; bce_with_logits computes both at once "
        "and stays exact",
        "--training.loss.kind bce_with_logits --model.output logits",
    )


def _mse_for_classification(experiment: Experiment) -> Finding | None:
    if experiment.training.loss.kind != "mse":
        return None
    return Finding(
        "mse_for_classification",
        "the gradient of mse vanishes where the model is confidently wrong, so training can get stuck there",
        "--training.loss.kind cross_entropy --model.output logits",
    )


def _scaling_fitted_beyond_training(experiment: Experiment) -> Finding | None:
    if experiment.data.scaling_fitted_on != "all":
        return None
    return Finding(
        "scaling_fitted_beyond_training",
        "mean and standard deviation are fitted on all rows, including the test rows: the test split is no longer "
        "unseen",
        "--data.scaling_fitted_on train",
    )


def _accuracy_on_training_rows(experiment: Experiment) -> Finding | None:
    data = experiment.data
    if data.split.method != "resubstitution":
        return None
    if isinstance(data, Points):
        remedy = "write out more points, and use --data.split.method stratified --data.split.test 0.2"
    elif data.brings_test and not isinstance(data, Own):
        remedy = "--data.split.method given"
    else:
        remedy = "--data.split.method stratified --data.split.test 0.2"
    return Finding(
        "accuracy_on_training_rows",
        "the model is tested on the rows it was trained on: the accuracy shows how well it remembers them, not how "
        "well it predicts new ones",
        remedy,
    )


def _test_split_watched(experiment: Experiment) -> Finding | None:
    if experiment.training.monitor != "test":
        return None
    return Finding(
        "test_split_watched",
        "the test split is evaluated after every epoch: if anything is chosen by it, test scores are optimistic",
        _watch_validation(experiment),
    )


def _training_loss_as_validation(experiment: Experiment) -> Finding | None:
    if experiment.training.monitor != "train":
        return None
    return Finding(
        "training_loss_as_validation",
        "the training loss is watched in place of a validation loss, so overfitting cannot be seen",
        _watch_validation(experiment),
    )


def _watch_validation(experiment: Experiment) -> str:
    split = experiment.data.split
    if split.method == "resubstitution" and experiment.training.patience:
        return "choose a --data.split.method that leaves rows for a validation split"
    has_validation = split.validation or split.method == "resubstitution"
    return "--training.monitor validation" + ("" if has_validation else " --data.split.validation 0.1")


def _seeded_after_model(experiment: Experiment) -> Finding | None:
    model = experiment.model
    is_given = isinstance(model, Linear) and model.weight is not None and model.bias is not None
    if experiment.training.initial_weights != "unseeded" or is_given:
        return None
    return Finding(
        "seeded_after_model",
        "the seed is set after the model is created: no two runs start from the same weights",
        "--training.initial_weights seeded",
    )


CHECKS = (
    _activation_before_cross_entropy,
    _loss_on_probabilities,
    _mse_for_classification,
    _scaling_fitted_beyond_training,
    _accuracy_on_training_rows,
    _test_split_watched,
    _training_loss_as_validation,
    _seeded_after_model,
)
"""All checks, in the order in which their findings are listed."""
