"""The training loop: from rows in memory to weights."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.ml import devices, models
from tasks.ml.config import Data, Model, Training
from tasks.ml.data import open_split
from tasks.ml.errors import DivergedError
from tasks.ml.history import History, Log
from tasks.ml.records import Dataset, Fit, SplitName

VERSION = 1
"""Raised by whoever changes what training computes: part of the name under which fits are stored."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows ready for the network, on the training device."""

    x: Tensor
    """`(N, F) float32`, scaled."""
    y: Tensor
    """`(N,) int64` class index."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.y)


def fit(dataset: Dataset, data: Data, model: Model, training: Training, folder: Path, log: Log) -> Fit:
    """Train a classifier and write its weights and history into `folder`.

    The weights are a function of the arguments and the kind of device alone: one CPU thread (on which models
    this small run fastest), and no use of a global random generator.

    Args:
        dataset: the prepared splits; `test` is not touched.
        data: how rows are scaled.
        model: the architecture.
        training: epochs, batch size, optimizer, seed and device.
        folder: where `weights.safetensors` and `history.parquet` appear, whole or not at all.
        log: called as the training goes on with an epoch and its metrics, or an update and its loss.

    Raises:
        DivergedError: the loss or a weight is not finite; nothing is written.
        InputError: the device does not exist.
    """
    device = devices.choose(training.device)
    scaling = models.fit_scaling(dataset, data)
    network = models.build(model, math.prod(dataset.shape), len(dataset.classes), training.seed).to(device)
    train = _load(dataset, "train", scaling, device)
    validation = _load(dataset, "validation", scaling, device)
    history = History(training.epochs * math.ceil(len(train) / _rows_a_step(train, training)), log)
    optimizer = _optimizer(network, training)
    started = time.perf_counter()
    with _one_thread():
        _run_epochs(network, optimizer, train, validation, training, history)
    seconds = time.perf_counter() - started
    weights = folder / "weights.safetensors"
    return Fit(
        weights=weights,
        weights_sha256=models.save(models.Classifier(scaling, network.cpu()), weights),
        history=history.save(folder / "history.parquet"),
        metrics=history.last,
        epochs=training.epochs,
        stopped="all epochs done",
        seconds=seconds,
        device=str(device),
    )


def order(seed: int, epoch: int, rows: int) -> Tensor:
    """The order of the rows in an epoch, `(rows,) int64`: a pure function of seed and epoch."""
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(rows))


def _run_epochs(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Batch,
    validation: Batch,
    training: Training,
    history: History,
) -> None:
    update = 0
    for epoch in range(1, training.epochs + 1):
        started = time.perf_counter()
        total, correct = 0.0, 0
        for batch in _batches(train, training, epoch):
            update += 1
            loss, hits = _step(network, optimizer, batch)
            _refuse_infinite("loss", loss, epoch, update, training)
            history.update(update, loss)
            total += loss * len(batch)
            correct += hits
        metrics = {"train/loss": total / len(train), "train/accuracy": correct / len(train)}
        metrics["time/epoch_seconds"] = time.perf_counter() - started
        if len(validation):
            metrics |= _validate(network, validation)
            _refuse_infinite("validation loss", metrics["val/loss"], epoch, update, training)
        history.epoch(epoch, metrics)
    # The last loss was taken before the last update, so the weights themselves are looked at.
    largest = torch.stack([weight.detach().abs().max() for weight in network.parameters()]).max().item()
    _refuse_infinite("largest weight", largest, training.epochs, update, training)


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> tuple[float, int]:
    """One update. Returns the mean loss and the number of right rows, both as seen before it."""
    logits = network(batch.x)
    loss = functional.cross_entropy(logits, batch.y)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item(), int((logits.argmax(1) == batch.y).sum())


def _validate(network: nn.Module, rows: Batch) -> dict[str, float]:
    with torch.no_grad():
        logits = network(rows.x)
        return {
            "val/loss": functional.cross_entropy(logits, rows.y).item(),
            "val/accuracy": (logits.argmax(1) == rows.y).float().mean().item(),
        }


def _batches(train: Batch, training: Training, epoch: int) -> Iterator[Batch]:
    """The batches of an epoch; the last one is smaller where the rows do not divide."""
    if training.batch_size == "full":
        yield train
        return
    for rows in torch.split(order(training.seed, epoch, len(train)).to(train.y.device), training.batch_size):
        yield Batch(train.x[rows], train.y[rows])


def _rows_a_step(train: Batch, training: Training) -> int:
    return len(train) if training.batch_size == "full" else training.batch_size


def _optimizer(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    # The first step would import this, in two seconds that are no training.
    import torch._dynamo

    weights = network.parameters()
    match training.optimizer:
        case "sgd":
            return torch.optim.SGD(
                network.parameters(),
                training.lr,
                momentum=training.momentum,
                weight_decay=training.weight_decay,
            )
        case "adam":
            return torch.optim.Adam(weights, training.lr, weight_decay=training.weight_decay)


def _load(dataset: Dataset, split: SplitName, scaling: models.Scaling, device: torch.device) -> Batch:
    rows = open_split(dataset, split)
    # Copied: torch tensors must be writable, and the file is not.
    return Batch(scaling(torch.tensor(rows.x)).to(device), torch.tensor(rows.y).to(device))


def _refuse_infinite(what: str, value: float, epoch: int, update: int, training: Training) -> None:
    if not math.isfinite(value):
        raise DivergedError(
            f"training diverged: the {what} is {value} at epoch {epoch}, step {update}, "
            f"learning rate {training.lr:g}: try a smaller --training.lr"
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
