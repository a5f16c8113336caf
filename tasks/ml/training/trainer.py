"""The training loop: from rows in memory to weights, of one network or of several in one."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from hallmark.tasks.common.digests import digest_of
from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.common.records import Dataset, Fit, SplitName
from hallmark.tasks.ml.config.data import Data
from hallmark.tasks.ml.config.experiment import Training
from hallmark.tasks.ml.config.models import Model, output_units
from hallmark.tasks.ml.data.images import augmentation
from hallmark.tasks.ml.models import networks as models
from hallmark.tasks.ml.models import preprocessing
from hallmark.tasks.ml.training import batches, devices
from hallmark.tasks.ml.training.checkpoints import Checkpoints
from hallmark.tasks.ml.training.fingerprint import fingerprint
from hallmark.tasks.ml.training.history import Log
from hallmark.tasks.ml.training.loop import Course, Survival
from hallmark.tasks.ml.training.optim import gradients, optimizers, update_step

VERSION = 6
"""Raised by whoever changes what training computes: part of the name under which fits are stored."""

THREADING = 4_000_000
"""Multiplications in a step from which more than one CPU thread pays: handing work over costs some microseconds."""


def fit(
    dataset: Dataset,
    data: Data,
    model: Model,
    training: Training,
    folder: Path,
    log: Log,
    survival: Survival | None = None,
) -> Fit:
    """Train a classifier and write its weights and history into `folder`.

    The weights are a function of the arguments and of the fingerprint alone, with no use of a global random generator,
    and however often the training was interrupted; but for `training.initial_weights` 'unseeded', which draws a seed
    and records it.

    Args:
        dataset: the prepared splits; `test` is not touched unless `training.monitor` says so.
        data: how rows are scaled.
        model: the architecture.
        training: loss, epochs, batch size, optimizer, seed and device.
        folder: where `weights.safetensors` and `history.parquet` appear, whole or not at all.
        log: called as the training goes on with an epoch or an update, its metrics, and a clock.
        survival: how it outlives its process; it does not if not given.

    Raises:
        DivergedError: the loss or a weight is not finite; no weights are written.
        InputError: the device does not exist, or a checkpoint is of another experiment.
        KeyboardInterrupt: `survival.stop` said so.
    """
    fitted = fit_together(dataset, data, model, [training], [folder], [log], survival)[0]
    if isinstance(fitted, DivergedError):
        raise fitted
    return fitted


def fit_together(
    dataset: Dataset,
    data: Data,
    model: Model,
    trainings: Sequence[Training],
    folders: Sequence[Path],
    logs: Sequence[Log],
    survival: Survival | None = None,
) -> list[Fit | DivergedError]:
    """Train several classifiers of one shape at once, each as `fit` would: see there.

    Args:
        dataset: the prepared splits.
        data: how rows are scaled.
        model: the architecture of all; not a CNN, unless there is only one.
        trainings: equal but for lr, momentum, weight_decay and the seeds; not lbfgs and not augmented,
            unless there is only one.
        folders: one for each.
        logs: one for each.
        survival: of all together.

    Returns:
        For each its fit, or why there is none.
    """
    first = trainings[0]
    device = devices.choose(first.device)
    scaling = preprocessing.fit_scaling(dataset, data)
    logits = output_units(model, first.loss, len(dataset.classes))
    seeds = [training.seed if first.initial_weights == "seeded" else secrets.randbits(32) for training in trainings]
    networks = [_network(model, dataset, logits, seed, device) for seed in seeds]
    unit = batches.unit(dataset, scaling, first)
    before = scaling if unit is None else None
    augment = augmentation.of(first, dataset)
    rows = {split: batches.load(dataset, split, before, first.loss, logits, device, augment) for split in _read(first)}
    with torch.no_grad(), _threads(len(trainings), model, dataset, first) as count, _exact(first):
        found = fingerprint(device, count)
        learner = _learner(networks, model, trainings, unit or 1.0)
        course = Course(learner, rows, model, trainings, logits, seeds, logs)
        if survival:
            course.survive(survival, identity(dataset, data, model, trainings) | found)
        with torch.no_grad() if learner.needs_autograd else torch.inference_mode():
            course.run()
        classifiers = [models.Classifier(scaling, network, model, first.loss) for network in networks]
        return [course.result(*pair, found) for pair in zip(range(len(networks)), classifiers, folders, strict=True)]


def marks(dataset: Dataset, model: Model, training: Training) -> dict[str, str]:
    """What the bits of a fit depend on beside its arguments: see `hallmark.tasks.ml.training.fingerprint`."""
    return fingerprint(devices.choose(training.device), threads(1, model, dataset, training))


def refuse_stranger(dataset: Dataset, data: Data, model: Model, training: Training, folder: Path) -> None:
    """Refuse a folder of checkpoints that are not of this training, or were made where another result would come out.

    Raises:
        InputError: the message says what differs.
    """
    Checkpoints(folder, identity(dataset, data, model, [training]) | marks(dataset, model, training)).load()


def identity(dataset: Dataset, data: Data, model: Model, trainings: Sequence[Training]) -> dict[str, str]:
    """What a checkpoint is of."""
    parts = [part.model_dump(mode="json", exclude={"device"}) for part in (data, model, *trainings)]
    return {"experiment": digest_of(parts), "dataset": dataset.digest, "version": str(VERSION)}


@contextmanager
def _threads(networks: int, model: Model, dataset: Dataset, training: Training) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads(networks, model, dataset, training))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def threads(networks: int, model: Model, dataset: Dataset, training: Training) -> int:
    """CPU threads that suit the shapes: all that torch has if a step takes `THREADING` multiplications, else one.

    A step is, for every network, one product forward and two backward for each row of a batch.
    """
    rows = dataset.rows["train"] if training.batch_size == "full" else training.batch_size
    logits = output_units(model, training.loss, len(dataset.classes))
    work = 3 * networks * rows * model.multiplications(dataset.shape, logits)
    return torch.get_num_threads() if work >= THREADING else 1


@contextmanager
def _exact(training: Training) -> Iterator[None]:
    """Let a GPU round as float32 does, unless asked otherwise, and the same way every time."""
    products = torch.backends.cuda.matmul
    before = products.allow_tf32
    products.allow_tf32 = training.tf32
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=training.tf32):
            yield
    finally:
        products.allow_tf32 = before


def _network(model: Model, dataset: Dataset, logits: int, seed: int, device: torch.device) -> nn.Sequential:
    network = models.build(model, dataset.shape, logits, seed)
    # Convolutions on a CPU take 0.6 of the time in this layout.
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _learner(
    networks: Sequence[nn.Sequential], model: Model, trainings: Sequence[Training], unit: float
) -> update_step.Learner:
    first = trainings[0]
    if first.optimizer == "lbfgs":
        return update_step.ByLineSearch(networks[0], model, first)
    if len(networks) == 1:
        gradient: gradients.Gradient = gradients.of(networks[0], unit)
    else:
        gradient = gradients.Perceptrons(networks, unit)
    lr, momentum, decay = (_column(trainings, name, gradient) for name in ("lr", "momentum", "weight_decay"))
    rule = optimizers.build(first, lr, momentum, decay, gradient.weights, gradient.gradients)
    return update_step.ByGradient(gradient, rule, model)


def _column(trainings: Sequence[Training], name: str, gradient: gradients.Gradient) -> optimizers.Number:
    """One number where all networks share it, else one each."""
    values = [float(getattr(training, name)) for training in trainings]
    if len(set(values)) == 1:
        return values[0]
    return torch.tensor(values, device=gradient.weights[0].device)[:, None]


def _read(training: Training) -> tuple[SplitName, ...]:
    """The splits that the training may see."""
    return ("train", "validation", "test") if training.monitor == "test" else ("train", "validation")
