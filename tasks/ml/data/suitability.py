"""Reject experiments that cannot work with the rows of their source."""

import math
from collections.abc import Mapping

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import SplitName
from hallmark.tasks.ml.config.experiment import Augmentation, OneCycle, Training
from hallmark.tasks.ml.config.losses import Loss
from hallmark.tasks.ml.config.models import Model, output_units
from hallmark.tasks.ml.data.source_rows import SourceRows
from hallmark.tasks.ml.data.splits import Indices


def refuse_impossible(
    source: SourceRows, divided: Mapping[SplitName, Indices], model: Model, training: Training
) -> None:
    """Reject an experiment that cannot work with these rows, before anything is written.

    Args:
        source: all rows, as returned by `sources.read`.
        divided: row indices of each split, as returned by `splits.divide`.
        model: the architecture.
        training: how it is trained.

    Raises:
        InputError: early stopping has no validation rows, a batch is larger than the training split, a schedule has
            too few updates, the images are too small for the network or the augmentation, or the loss has the wrong
            number of factors.
    """
    if training.patience and training.monitor == "validation" and not len(divided["validation"]):
        raise InputError(
            f"training.patience: {training.patience} needs a validation split with rows: add validation "
            "rows, or use --training.patience 0"
        )
    _refuse_batch_and_schedule(training, len(divided["train"]))
    model.refuse_shape(source.x.shape[1:])
    _refuse_factors(model, training.loss, len(source.classes))
    _refuse_augmentation(training.augmentation, source.x.shape[1:])


def _refuse_batch_and_schedule(training: Training, rows: int) -> None:
    size = training.rows_in_batch(rows)
    if size > rows:
        raise InputError(
            f"training.batch_size: {size} is more than the {rows} rows of the training split: "
            f"choose at most {rows}, or 'full'"
        )
    updates = training.epochs * math.ceil(rows / size)
    if isinstance(training.schedule, OneCycle) and training.schedule.warmup * (updates + 1) <= 1:
        raise InputError(
            f"training.schedule.warmup: {training.schedule.warmup} of {updates} updates leaves no update in which "
            "the learning rate increases: use a larger fraction or more epochs"
        )


def _refuse_factors(model: Model, loss: Loss, classes: int) -> None:
    expected = output_units(model, loss, classes)
    for name in ("weight", "pos_weight"):
        factors = getattr(loss, name, None)
        if factors is not None and len(factors) != expected:
            raise InputError(
                f"training.loss.{name}: expected {expected} factors, one for each output of the network, "
                f"found {len(factors)}"
            )
    ignored = getattr(loss, "ignore_index", None)
    if ignored is not None and ignored >= classes:
        raise InputError(f"training.loss.ignore_index: there is no class {ignored}: use 0 to {classes - 1}")


def _refuse_augmentation(augmentation: Augmentation, shape: tuple[int, ...]) -> None:
    for name in ("saturation", "hue"):
        if getattr(augmentation, name) and len(shape) == 2:
            raise InputError(
                f"training.augmentation.{name}: {getattr(augmentation, name)} needs colour images, found grey: use 0"
            )
    if augmentation.shift and augmentation.shift >= min(shape[:2]):
        raise InputError(
            f"training.augmentation.shift: {augmentation.shift} can move images of {shape[0]} x {shape[1]} pixels "
            f"completely out of view: use less than {min(shape[:2])}"
        )
