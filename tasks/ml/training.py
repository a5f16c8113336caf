"""The training loop: from rows in memory to weights."""

import math
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from tasks.ml import devices, losses, models, optimizers, outputs
from tasks.ml.config import CNN, Model, OneCycle, Training, units
from tasks.ml.config_data import Data
from tasks.ml.data import open_split
from tasks.ml.errors import DivergedError
from tasks.ml.history import History, Log
from tasks.ml.records import Dataset, Fit, SplitName

VERSION = 2
"""Raised by whoever changes what training computes: part of the name under which fits are stored."""

MEASURED: dict[SplitName, str] = {"validation": "val", "test": "test"}
MONITORED = {"validation": "val/loss", "train": "train/loss", "test": "test/loss"}

GRADIENT_TOLERANCE = 1e-4
"""lbfgs has converged where no derivative of the loss per row exceeds this, scikit-learn's default; it goes on while
float32 still finds a lower loss."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows ready for the network, on the training device."""

    x: Tensor
    """`(N, F) float32`, scaled."""
    y: Tensor
    """`(N,) int64` class index."""
    target: Tensor
    """What the loss compares with: see `losses.targets`."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.y)

    def cut(self, size: int, order: Tensor | None = None) -> Iterator["Batch"]:
        """Batches of `size` rows, in `order` if given; the last one is smaller where the rows do not divide."""
        if order is None:
            parts = zip(*(torch.split(tensor, size) for tensor in (self.x, self.y, self.target)), strict=True)
            return (Batch(*part) for part in parts)
        # The small columns are brought into order at once, the wide one batch by batch, which needs no second copy.
        small = (torch.split(tensor.index_select(0, order), size) for tensor in (self.y, self.target))
        parts = zip(torch.split(order, size), *small, strict=True)
        return (Batch(self.x.index_select(0, rows), y, target) for rows, y, target in parts)


@dataclass(frozen=True, slots=True)
class Learner:
    """The network and all that changes it."""

    network: nn.Module
    model: Model
    training: Training
    criterion: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler | None

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss as `training.loss` reduces it."""
        return cast(Tensor, self.criterion(outputs.activate(logits, self.model), target))


def fit(dataset: Dataset, data: Data, model: Model, training: Training, folder: Path, log: Log) -> Fit:
    """Train a classifier and write its weights and history into `folder`.

    The weights are a function of the arguments, the kind of device and the number of threads alone, with no use of
    a global random generator; but for `training.initial_weights` 'unseeded', which draws a seed and records it.

    Args:
        dataset: the prepared splits; `test` is not touched unless `training.monitor` says so.
        data: how rows are scaled.
        model: the architecture.
        training: loss, epochs, batch size, optimizer, seed and device.
        folder: where `weights.safetensors` and `history.parquet` appear, whole or not at all.
        log: called as the training goes on with an epoch and its metrics, or an update and its loss.

    Raises:
        DivergedError: the loss or a weight is not finite; nothing is written.
        InputError: the device does not exist.
    """
    device = devices.choose(training.device)
    seed = training.seed if training.initial_weights == "seeded" else secrets.randbits(32)
    scaling = models.fit_scaling(dataset, data)
    logits = units(model, training.loss, len(dataset.classes))
    network = models.build(model, dataset.shape, logits, seed)
    # Convolutions on a CPU take 0.6 of the time in this layout.
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    splits = {split: _load(dataset, split, scaling, training, logits, device) for split in _read(training)}
    updates = math.ceil(len(splits["train"]) / _rows_a_step(splits["train"], training))
    optimizer = optimizers.build(network, training)
    criterion = losses.build(training.loss).to(device)
    schedule = optimizers.schedule(optimizer, training, updates)
    learner = Learner(network, model, training, criterion, optimizer, schedule)
    history = History(training.epochs * updates, log)
    started = time.perf_counter()
    with threads(model) as count:
        stopped, best = _run_epochs(learner, splits, history)
    seconds = time.perf_counter() - started
    weights = folder / "weights.safetensors"
    network = network.cpu().to(memory_format=torch.contiguous_format)
    classifier = models.Classifier(scaling, network, model, training.loss)
    return Fit(
        weights=weights,
        weights_sha256=models.save(classifier, weights),
        history=history.save(folder / "history.parquet"),
        metrics=history.last,
        epochs=history.epochs,
        best_epoch=best,
        stopped=stopped,
        seconds=seconds,
        device=str(device),
        threads=count,
        initial_seed=seed,
    )


def order(seed: int, epoch: int, rows: int) -> Tensor:
    """The order of the rows in an epoch, `(rows,) int64`: a pure function of seed and epoch."""
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(rows))


@contextmanager
def threads(model: Model) -> Iterator[int]:
    """Let torch use as many CPU threads as suit the model: all for convolutions, else one.

    Linear layers this small run fastest on one: handing work over costs more than it saves.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(before if isinstance(model, CNN) else 1)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


class _Best:
    """The lowest monitored loss so far, and the weights that gave it."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._loss = math.inf
        self.epoch = 0
        self._weights: dict[str, Tensor] = {}

    def is_long_ago(self, epoch: int, metrics: dict[str, float]) -> bool:
        """Take note of an epoch, and tell whether `patience` epochs have passed since the best one."""
        training = self._learner.training
        if (loss := metrics[MONITORED[training.monitor]]) < self._loss:
            self._loss, self.epoch = loss, epoch
            self._weights = {name: weight.clone() for name, weight in self._learner.network.state_dict().items()}
        return epoch - self.epoch >= training.patience

    def restore(self) -> None:
        """Put the best weights back."""
        self._learner.network.load_state_dict(self._weights)


def _run_epochs(learner: Learner, splits: dict[SplitName, Batch], history: History) -> tuple[str, int]:
    """Train. Returns why it stopped, and the epoch whose weights were kept."""
    training = learner.training
    best = _Best(learner) if training.patience else None
    stopped = "all epochs done"
    for epoch in range(1, training.epochs + 1):
        started = time.perf_counter()
        metrics, ended = _train(learner, splits["train"], epoch, history)
        metrics["time/epoch_seconds"] = time.perf_counter() - started
        metrics |= _measure(learner, splits)
        for name, value in metrics.items():
            _refuse_infinite(name, value, epoch, history.updates, training)
        history.epoch(epoch, metrics)
        if best and best.is_long_ago(epoch, metrics):
            stopped = f"no lower {training.monitor} loss in {training.patience} epochs"
            break
        if ended:
            stopped = ended
            break
    if best:
        best.restore()
    # The last loss was taken before the last update, so the weights themselves are looked at.
    largest = torch.stack([weight.detach().abs().max() for weight in learner.network.parameters()]).max().item()
    _refuse_infinite("largest weight", largest, history.epochs, history.updates, training)
    return stopped, best.epoch if best else history.epochs


def _train(learner: Learner, train: Batch, epoch: int, history: History) -> tuple[dict[str, float], str]:
    """One epoch. Returns its metrics, as seen before each update, and why lbfgs cannot go on, if so."""
    training = learner.training
    rate = learner.optimizer.param_groups[0]["lr"]
    # Nothing is computed from them, or brought from the device, before the epoch ends.
    seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    stopped = ""
    for batch in _batches(train, training, epoch):
        loss, logits, stopped = _step(learner, batch)
        seen.append((loss, logits, batch.y, batch.target))
        if isinstance(training.schedule, OneCycle):
            learner.schedule.step()  # type: ignore[union-attr]
    if learner.schedule and not isinstance(training.schedule, OneCycle):
        learner.schedule.step()
    losses_seen, logits_seen, truth, targets = zip(*seen, strict=True)
    values = torch.stack(losses_seen).tolist()
    step_losses = [losses.mean(training.loss, *pair) for pair in zip(values, targets, strict=True)]
    masses = [losses.mass(training.loss, target) for target in targets]
    right = outputs.labels(torch.cat(logits_seen)) == torch.cat(truth)
    for loss_of_step in step_losses:
        _refuse_infinite("loss", loss_of_step, epoch, history.updates + 1, training)
        history.update(loss_of_step)
    metrics = {
        "train/loss": float(np.dot(step_losses, masses)) / sum(masses),
        "train/accuracy": int(right.sum()) / len(train),
    }
    if learner.schedule:
        metrics["train/lr"] = rate
    if training.last_batch_loss:
        metrics["train/last_batch_loss"] = step_losses[-1]
    return metrics, stopped


def _step(learner: Learner, batch: Batch) -> tuple[Tensor, Tensor, str]:
    """One update. Returns loss and logits as seen before it, and why lbfgs cannot go on, if so."""
    if learner.training.optimizer == "lbfgs":
        return _iterate(learner, batch)
    logits = learner.network(batch.x)
    loss = learner.loss(logits, batch.target)
    parameters = learner.optimizer.param_groups[0]["params"]
    # Gradients that are not added to old ones need no zeros before them: a tenth of a small step.
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    learner.optimizer.step()
    return loss.detach(), logits.detach(), ""


def _iterate(learner: Learner, batch: Batch) -> tuple[Tensor, Tensor, str]:
    """One iteration of lbfgs, which evaluates loss and gradient as often as its line search needs."""
    training, parameters = learner.training, list(learner.network.parameters())
    first: list[tuple[Tensor, Tensor, float]] = []

    def closure() -> Tensor:
        logits = learner.network(batch.x)
        loss = learner.loss(logits, batch.target)
        objective = loss + optimizers.penalty(learner.network, training.l2)
        learner.optimizer.zero_grad()
        objective.backward()  # type: ignore[no-untyped-call]
        if not first:
            slope = max(cast(Tensor, parameter.grad).abs().max().item() for parameter in parameters)
            first.append((loss.detach(), logits.detach(), losses.mean(training.loss, slope, batch.target)))
        return objective

    before = [parameter.detach().clone() for parameter in parameters]
    learner.optimizer.step(closure)  # type: ignore[arg-type]
    loss, logits, slope = first[0]
    if not all(torch.equal(*pair) for pair in zip(before, parameters, strict=True)):
        return loss, logits, ""
    return loss, logits, "converged" if slope <= GRADIENT_TOLERANCE else "no step lowers the loss"


def _measure(learner: Learner, splits: dict[SplitName, Batch]) -> dict[str, float]:
    """Loss and accuracy of every split that is not trained on, at the end of an epoch."""
    metrics = {}
    for split, name in MEASURED.items():
        if split in splits and len(rows := splits[split]):
            with torch.no_grad():
                logits = torch.cat([learner.network(batch.x) for batch in rows.cut(models.ROWS_AT_ONCE)])
                loss = learner.loss(logits, rows.target).item()
            metrics[f"{name}/loss"] = losses.mean(learner.training.loss, loss, rows.target)
            metrics[f"{name}/accuracy"] = int((outputs.labels(logits) == rows.y).sum()) / len(rows)
    return metrics


def _batches(train: Batch, training: Training, epoch: int) -> Iterator[Batch]:
    """The batches of an epoch; the last one is smaller where the rows do not divide."""
    if training.batch_size == "full":
        yield train
    elif not training.shuffle:
        yield from train.cut(training.batch_size)
    else:
        yield from train.cut(training.batch_size, order(training.seed, epoch, len(train)).to(train.y.device))


def _rows_a_step(train: Batch, training: Training) -> int:
    return len(train) if training.batch_size == "full" else training.batch_size


def _read(training: Training) -> tuple[SplitName, ...]:
    """The splits that the training may see."""
    return ("train", "validation", "test") if training.monitor == "test" else ("train", "validation")


def _load(
    dataset: Dataset,
    split: SplitName,
    scaling: models.Scaling,
    training: Training,
    logits: int,
    device: torch.device,
) -> Batch:
    rows = open_split(dataset, split)
    # Copied: torch tensors must be writable, and the file is not.
    y = torch.tensor(rows.y)
    target = losses.targets(training.loss, y, logits)
    return Batch(scaling(torch.tensor(rows.x)).to(device), y.to(device), target.to(device))


def _refuse_infinite(what: str, value: float, epoch: int, update: int, training: Training) -> None:
    if not math.isfinite(value):
        remedy = "try a smaller --training.lr"
        is_small = training.batch_size != "full" and math.isnan(value)
        weights = getattr(training.loss, "weight", None) or ()
        if is_small and (getattr(training.loss, "ignore_index", None) is not None or 0 in weights):
            remedy = "if all rows of a batch count nothing, its mean is none: try a larger --training.batch_size"
        raise DivergedError(
            f"training diverged: the {what} is {value} at epoch {epoch}, step {update}, "
            f"learning rate {training.lr:g}: {remedy}"
        )
