"""Train one classifier, or several of one shape at once: from a dataset to weights and history."""

import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from hallmark.tasks.common.digests import digest_of
from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.common.records import SPLITS, Dataset, Fit, SplitName
from hallmark.tasks.ml.config.data import Data
from hallmark.tasks.ml.config.experiment import Training
from hallmark.tasks.ml.config.models import Model, output_units, update_multiplications
from hallmark.tasks.ml.data.images import augmentation
from hallmark.tasks.ml.models import networks, preprocessing
from hallmark.tasks.ml.training import batches, devices
from hallmark.tasks.ml.training.checkpoints import Checkpoints
from hallmark.tasks.ml.training.fingerprint import fingerprint
from hallmark.tasks.ml.training.history import Log
from hallmark.tasks.ml.training.loop import CheckpointPolicy, TrainingLoop
from hallmark.tasks.ml.training.optim import gradients, optimizers, update_step

logger = logging.getLogger(__name__)

_SUFFIXES = (".safetensors", ".parquet", ".onnx", ".html")
"""Suffixes of the files that are written into the folder of a fit."""

VERSION = 6
"""Version of the training computations, part of the name under which fits are stored. Increase it when they change."""

MULTITHREADING_THRESHOLD = 4_000_000
"""Multiplications per update above which several CPU threads are faster: handing over work takes microseconds."""


def fit(
    dataset: Dataset,
    data: Data,
    model: Model,
    training: Training,
    folder: Path,
    log: Log,
    policy: CheckpointPolicy | None = None,
) -> Fit:
    """Train a classifier and write its weights and history into `folder`.

    The weights depend on the arguments and the fingerprint alone: not on a global random generator, and not on how
    often the training was interrupted. The exception is `training.initial_weights` 'unseeded', which draws a seed and
    records it.

    Args:
        dataset: the prepared splits; `test` is only read if `training.monitor` is 'test'.
        data: how rows are scaled.
        model: the architecture.
        training: loss, epochs, batch size, optimizer, seed and device.
        folder: where `weights.safetensors` and `history.parquet` are written, whole or not at all.
        log: called during training with the epoch or update, its metrics, and a timestamp.
        policy: where checkpoints are written and when to stop; without it there are none.

    Raises:
        DivergedError: the loss or a weight is not finite; no weights are written.
        InputError: the device does not exist, or a checkpoint belongs to another experiment.
        KeyboardInterrupt: `policy.should_stop` returned true.
    """
    fitted = fit_together(dataset, data, model, [training], [folder], [log], policy)[0]
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
    policy: CheckpointPolicy | None = None,
) -> list[Fit | DivergedError]:
    """Train several classifiers of one shape as one stacked network; see `fit`.

    Args:
        dataset: the prepared splits.
        data: how rows are scaled.
        model: the architecture of all; of a stackable kind, unless there is only one.
        trainings: equal except for lr, momentum, weight_decay and the seeds; without lbfgs and augmentation,
            unless there is only one.
        folders: one for each.
        logs: one for each.
        policy: checkpoints of all of them together.

    Returns:
        One fit for each, or the error if its training diverged.
    """
    first = trainings[0]
    for folder in folders:
        _make_room(folder)
    device = devices.choose(first.device)
    scaling = preprocessing.fit_scaling(dataset, data)
    units = output_units(model, first.loss, len(dataset.classes))
    seeds = [training.seed if first.initial_weights == "seeded" else secrets.randbits(32) for training in trainings]
    built = [_network(model, dataset, units, seed, device) for seed in seeds]
    divisor = batches.pixel_divisor(dataset, scaling, first)
    scaled_before = scaling if divisor is None else None
    augment = augmentation.build(first, dataset)
    splits: tuple[SplitName, ...] = SPLITS if first.monitor == "test" else ("train", "validation")
    rows = {split: batches.load(dataset, split, scaled_before, first.loss, units, device, augment) for split in splits}
    with torch.no_grad(), _threads(len(trainings), model, dataset, first) as count, _deterministic(first):
        marks = fingerprint(device, count)
        step = _update_step(built, model, trainings, divisor or 1.0)
        loop = TrainingLoop(step, rows, model, trainings, units, seeds, logs)
        if policy:
            loop.enable_checkpoints(policy, checkpoint_identity(dataset, data, model, trainings) | marks)
        with torch.no_grad() if step.needs_autograd else torch.inference_mode():
            loop.run()
        classifiers = [networks.Classifier(scaling, network, model, first.loss) for network in built]
        return [loop.result(*pair, marks) for pair in zip(range(len(built)), classifiers, folders, strict=True)]


def _make_room(folder: Path) -> None:
    """Move away a file that stands where a folder is to be written, and folders that stand where its files are."""
    files = [path for path in (folder.parent, folder) if path.is_file()]
    for path in files or [path for path in folder.glob("*.*") if path.is_dir() and path.suffix in _SUFFIXES]:
        aside = path.rename(path.with_name(f"{path.name}.moved-{secrets.token_hex(4)}"))
        logger.warning("%s stood where the training writes its result: it was moved to %s", path, aside.name)


def fingerprint_of(dataset: Dataset, model: Model, training: Training) -> dict[str, str]:
    """Return the `fingerprint` that `fit` would record for this training on this machine."""
    return fingerprint(devices.choose(training.device), threads(1, model, dataset, training))


def refuse_foreign_checkpoints(dataset: Dataset, data: Data, model: Model, training: Training, folder: Path) -> None:
    """Refuse a folder with checkpoints of another training, or of a machine on which the result would differ.

    Raises:
        InputError: the message names the difference.
    """
    identity = checkpoint_identity(dataset, data, model, [training]) | fingerprint_of(dataset, model, training)
    Checkpoints(folder, identity).load()


def checkpoint_identity(dataset: Dataset, data: Data, model: Model, trainings: Sequence[Training]) -> dict[str, str]:
    """Return the digests that identify the training of a checkpoint."""
    parts = [part.model_dump(mode="json", exclude={"device"}) for part in (data, model, *trainings)]
    return {"experiment": digest_of(parts), "dataset": dataset.digest, "version": str(VERSION)}


@contextmanager
def _threads(count: int, model: Model, dataset: Dataset, training: Training) -> Iterator[int]:
    """Set the number of CPU threads, and restore it afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads(count, model, dataset, training))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def threads(count: int, model: Model, dataset: Dataset, training: Training) -> int:
    """Return the number of CPU threads for training `count` networks together.

    All of torch's threads if an update takes at least `MULTITHREADING_THRESHOLD` multiplications, else one.
    """
    rows = count * training.rows_in_batch(dataset.rows["train"])
    work = rows * update_multiplications(model, training.loss, dataset.shape, len(dataset.classes))
    return torch.get_num_threads() if work >= MULTITHREADING_THRESHOLD else 1


@contextmanager
def _deterministic(training: Training) -> Iterator[None]:
    """Let a GPU compute deterministically, and in full float32 unless `training.tf32` is set."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = training.tf32
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=training.tf32):
            yield
    finally:
        matmul.allow_tf32 = before


def _network(model: Model, dataset: Dataset, units: int, seed: int, device: torch.device) -> nn.Sequential:
    network = networks.build(model, dataset.shape, units, seed)
    # Convolutions on a CPU take 0.6 of the time in this layout.
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _update_step(
    built: Sequence[nn.Sequential], model: Model, trainings: Sequence[Training], divisor: float
) -> update_step.UpdateStep:
    first = trainings[0]
    if first.optimizer == "lbfgs":
        return update_step.LBFGSStep(built[0], model, first)
    network = gradients.single(built[0], divisor) if len(built) == 1 else gradients.StackedPerceptrons(built, divisor)
    lr, momentum, decay = (_per_network(trainings, name, network) for name in ("lr", "momentum", "weight_decay"))
    optimizer = optimizers.build(first, lr, momentum, decay, network.weights, network.gradients)
    return update_step.GradientStep(network, optimizer, model)


def _per_network(
    trainings: Sequence[Training], name: str, network: gradients.DifferentiableNetwork
) -> optimizers.Number:
    """Return the value of a field: a float if all networks share it, else `(M, 1)`."""
    values = [float(getattr(training, name)) for training in trainings]
    if len(set(values)) == 1:
        return values[0]
    return torch.tensor(values, device=network.weights[0].device)[:, None]
