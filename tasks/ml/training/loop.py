"""A training under way: epoch by epoch, segment by segment, batch by batch, and back from a checkpoint."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.common.records import Fit, SplitName
from hallmark.tasks.ml.config.experiment import Constant, Training
from hallmark.tasks.ml.config.models import Model
from hallmark.tasks.ml.models import class_probabilities
from hallmark.tasks.ml.models import networks as models
from hallmark.tasks.ml.training.batches import Epoch, Rows, order
from hallmark.tasks.ml.training.checkpoints import Checkpoint, Checkpoints
from hallmark.tasks.ml.training.history import History, Journal, Log
from hallmark.tasks.ml.training.optim import losses, lr_schedules, optimizers
from hallmark.tasks.ml.training.optim.cuda_graph import Graphed
from hallmark.tasks.ml.training.optim.update_step import ByGradient, Learner

MEASURED: dict[SplitName, str] = {"validation": "val", "test": "test"}
MONITORED = {"validation": "val/loss", "train": "train/loss", "test": "test/loss"}

_SEGMENT = 256
"""Batches between two looks at the clock and at `Survival.stop`, of those that are quickest."""
SEGMENT_ROWS = 2048
"""Rows between two such looks, at most: what is kept until then is measured in one go, and should fit a cache."""


@dataclass(frozen=True, slots=True)
class Survival:
    """How a training outlives its process."""

    folder: Path
    """Where its checkpoints and its journal lie; whoever has used the result removes it."""
    stop: Callable[[], bool] = lambda: False
    """Asked some times a second: whether to write a checkpoint and raise KeyboardInterrupt."""
    resumed: Callable[[int, int], None] = lambda epoch, step: None  # noqa: ARG005 - nobody is told
    """Told before training goes on from a checkpoint: epochs that are complete, and updates of the next."""


@dataclass(slots=True)
class _Member:
    """One of the networks that are trained together."""

    training: Training
    seed: int
    """Of the initial weights."""
    history: History
    ended: str = ""
    """Why it is trained no further, if so."""
    diverged: bool = False
    best_loss: float = math.inf
    best_epoch: int = 0


class Course:
    """All that changes while networks are trained. Its position is two integers: epochs done, and steps of the next."""

    def __init__(
        self,
        learner: Learner,
        rows: dict[SplitName, Rows],
        model: Model,
        trainings: Sequence[Training],
        units: int,
        seeds: Sequence[int],
        logs: Sequence[Log],
    ) -> None:
        """Stand before the first epoch.

        Args:
            learner: the networks.
            rows: of each split that may be seen.
            model: their architecture.
            trainings: of each network; equal but for lr, momentum, weight_decay and seeds.
            units: that each network gives.
            seeds: of each network's initial weights.
            logs: of each network.
        """
        self._learner, self._rows, self._model, self._units, self._logs = learner, rows, model, units, logs
        self._training = trainings[0]
        self._device = rows["train"].y.device
        self._size = len(rows["train"]) if self._training.batch_size == "full" else self._training.batch_size
        self._updates = math.ceil(len(rows["train"]) / self._size)
        graphed = self._device.type == "cuda" and isinstance(learner, ByGradient)
        self._update = Graphed(learner).step if graphed else learner.step
        self._best = [weight.clone() for weight in learner.weights] if self._training.patience else []
        pairs = zip(trainings, seeds, strict=True)
        self._members = [_Member(training, seed, self._history(index)) for index, (training, seed) in enumerate(pairs)]
        self._epoch, self._step = 0, 0
        self._epoch_seconds = 0.0
        self._began = time.perf_counter()
        # In one place for all of an epoch: small tensors that outlive the batches around them would scatter over the
        # heap, and keep hundreds of megabytes from being used again.
        self._found = [
            torch.empty((len(trainings), self._updates), dtype=dtype, device=self._device) for dtype in _MEASURED_AS
        ]
        self._seen = _nothing(len(trainings))
        self._survival: Survival | None = None
        self._checkpoints: Checkpoints | None = None
        self._resumed_from: tuple[int, int] | None = None

    def survive(self, survival: Survival, identity: dict[str, str]) -> None:
        """Keep checkpoints from here on, and go where the newest of them stands, if there is one.

        Raises:
            InputError: it is of something else than `identity` says.
        """
        self._survival = survival
        self._checkpoints = Checkpoints(survival.folder, identity)
        checkpoint = self._checkpoints.load()
        journal = Journal(survival.folder / "journal")
        for index, member in enumerate(self._members):
            member.history = self._history(index, journal)
        if checkpoint:
            survival.resumed(checkpoint.facts["epoch"], checkpoint.facts["step"])
            self._restore(checkpoint)
        elif self._training.initial_weights == "unseeded":
            self._checkpoints.save(self._state())  # or the seed that was drawn would be lost

    def run(self) -> None:
        """Train to the end.

        Raises:
            DivergedError: loss or weights of the only network are not finite.
            KeyboardInterrupt: `Survival.stop` said so.
        """
        while self._epoch < self._training.epochs and not all(member.ended for member in self._members):
            self._train()
            self._finish_epoch()
        for index, member in enumerate(self._members):
            if self._best and not member.diverged:
                self._copy(index, self._best, self._learner.weights)
            # The last loss was taken before the last update, so the weights themselves are looked at.
            largest = max(weight[index].abs().max().item() for weight in self._learner.weights)
            self._refuse_infinite(member, "largest weight", largest, member.history.updates)
        if self._checkpoints:
            self._checkpoints.save(self._state())

    def result(
        self, index: int, classifier: models.Classifier, folder: Path, marks: dict[str, str]
    ) -> Fit | DivergedError:
        """Write what became of a network: weights and history."""
        member = self._members[index]
        if member.diverged:
            return DivergedError(member.ended)
        weights = folder / "weights.safetensors"
        classifier.network.cpu().to(memory_format=torch.contiguous_format)
        return Fit(
            weights=weights,
            weights_sha256=models.save(classifier, weights),
            history=member.history.save(folder / "history.parquet"),
            metrics=member.history.last,
            epochs=member.history.epochs,
            best_epoch=member.best_epoch or member.history.epochs,
            stopped=member.ended or "all epochs done",
            seconds=time.perf_counter() - self._began,
            device=str(self._device),
            threads=int(marks["threads"]),
            networks=len(self._members),
            initial_seed=member.seed,
            fingerprint=marks,
            resumed_from=self._resumed_from,
        )

    def _history(self, index: int, journal: Journal | None = None) -> History:
        updates = self._training.epochs * self._updates
        return History(updates, self._logs[index], journal, kind=f"{index} ")

    def _train(self) -> None:
        """The rest of an epoch."""
        started = time.perf_counter()
        epoch, numbers = Epoch(self._rows["train"], self._size, self._order(), self._epoch + 1), self._numbers()
        batches = epoch.batches(self._step, self._updates)
        segment = max(1, min(_SEGMENT, SEGMENT_ROWS // self._size))
        while self._step < self._updates:
            stop = min(self._step + segment, self._updates)
            y, target = epoch.truth(self._step, stop)
            # What ends first comes first: of the others nothing is taken that would not be used.
            feed = zip(self._wanted(target), batches, numbers, strict=False)
            logits = torch.cat([self._update(x, wanted, rates) for wanted, x, rates in feed], dim=-1)
            for tensor, measured in zip(self._found, self._measure_batches(logits, y, target), strict=True):
                tensor[:, self._step : stop] = measured
            self._step = stop
            self._epoch_seconds += time.perf_counter() - started
            self._look_up()
            started = time.perf_counter()

    def _look_up(self) -> None:
        """Write a checkpoint if it is time for one, or if this is to be the last of it."""
        if self._survival is None or self._checkpoints is None:
            return
        is_last = self._survival.stop()
        if is_last or self._checkpoints.is_due():
            self._collect()
            self._checkpoints.save(self._state())
        if is_last:
            raise KeyboardInterrupt

    def _order(self) -> Tensor | None:
        """The order of the rows in this epoch: `(N,)` if all networks share it, else `(M, N)`."""
        if self._training.batch_size == "full" or not self._training.shuffle:
            return None
        seeds = [member.training.order_seed for member in self._members]
        orders = {seed: order(seed, self._epoch + 1, len(self._rows["train"])) for seed in seeds}
        found = orders[seeds[0]] if len(orders) == 1 else torch.stack([orders[seed] for seed in seeds])
        return found.to(self._rows["train"].x.device)

    def _numbers(self) -> Iterator[tuple[optimizers.Number, ...]]:
        """What the optimizer needs for each update that is left of the epoch; on a GPU brought there in one go."""
        done = self._epoch * self._updates
        steps = range(self._step, self._updates)
        numbers = (optimizers.numbers(self._training, self._factor(step), done + step) for step in steps)
        if self._device.type == "cpu":
            return numbers
        return (row.unbind() for row in torch.tensor(list(numbers), device=self._device))

    def _factor(self, step: int) -> float:
        training = self._training
        return lr_schedules.factor(training.schedule, training.epochs, self._updates, self._epoch + 1, step)

    def _wanted(self, target: Tensor) -> Iterator[Tensor]:
        """What a segment's updates need to know of its rows, batch by batch."""
        found = [self._learner.wanted(own, self._units) for own in target]
        return iter(torch.split(torch.stack(found) if len(found) > 1 else found[0], self._size, dim=-1))

    def _measure_batches(self, logits: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss and mass of each batch of a segment, and how many of its rows were right: each `(M, n)`, or `(1, n)`."""
        each, right = self._measure(logits, y, target)
        masses = self._by_batch(losses.masses(self._training.loss, target))
        return self._by_batch(each) / masses, masses, self._by_batch(right)

    def _measure(self, logits: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each row, and whether it is right, `(M, R)`: of logits, `(U, R)` or `(M, U, R)`, and the truth."""
        logits = logits.view(len(self._members), -1, logits.shape[-1])
        return losses.rows(self._training.loss, self._model, logits, target), class_probabilities.labels(logits) == y

    def _by_batch(self, rows: Tensor) -> Tensor:
        """Sums over the batches of a segment: `(M, R)` to `(M, n)`."""
        whole = rows.shape[1] // self._size * self._size
        sums = rows[:, :whole].view(len(rows), -1, self._size).sum(2)
        return sums if whole == rows.shape[1] else torch.cat([sums, rows[:, whole:].sum(1, keepdim=True)], dim=1)

    def _collect(self) -> None:
        """Bring from the device what batches have given since last time, and record their losses."""
        done = self._seen[0].shape[1]
        if done == self._step:
            return
        started = time.perf_counter()
        found = [tensor[:, done : self._step].cpu().numpy().copy() for tensor in self._found]
        self._epoch_seconds += time.perf_counter() - started  # a GPU has come to its end only now
        self._seen = [np.concatenate(pair, axis=1) for pair in zip(self._seen, found, strict=True)]
        for member, new in zip(self._members, found[0], strict=True):
            if not member.ended:
                self._record(member, new)

    def _record(self, member: _Member, new: NDArray[np.float32]) -> None:
        """Record the losses of the next updates, as far as they are finite."""
        finite = np.isfinite(new)
        first = len(new) if finite.all() else int(finite.argmin())
        member.history.update(new[:first])
        if first < len(new):
            self._refuse_infinite(member, "loss", float(new[first]), member.history.updates + 1)

    def _finish_epoch(self) -> None:
        """Measure the epoch, and tell whose training ends with it."""
        self._collect()
        self._epoch += 1
        measured = self._measure_splits()
        for index, member in enumerate(self._members):
            if member.ended:
                continue  # its weights still move with the others', and nobody looks at them
            metrics = self._train_metrics(index) | {name: float(values[index]) for name, values in measured.items()}
            for name, value in metrics.items():
                self._refuse_infinite(member, name, value, member.history.updates)
            if not member.ended:
                member.history.epoch(self._epoch, metrics)
                self._note_best(index, metrics)
                member.ended = member.ended or self._learner.ended
        self._seen, self._step, self._epoch_seconds = _nothing(len(self._members)), 0, 0.0

    def _train_metrics(self, index: int) -> dict[str, float]:
        """Of the epoch that has just ended, as seen before each update."""
        training = self._members[index].training
        step_losses, masses, right = (seen[index].astype(np.float64) for seen in self._seen)
        metrics = {
            "train/loss": float(step_losses @ masses / masses.sum()),
            "train/accuracy": float(right.sum()) / len(self._rows["train"]),
            "time/epoch_seconds": self._epoch_seconds,
        }
        if not isinstance(training.schedule, Constant):
            steps = self._training.epochs, self._updates, self._epoch, 0
            metrics["train/lr"] = training.lr * lr_schedules.factor(training.schedule, *steps)
        if training.last_batch_loss:
            metrics["train/last_batch_loss"] = float(step_losses[-1])
        return metrics

    def _measure_splits(self) -> dict[str, list[float]]:
        """Loss and accuracy of every split that is not trained on, at the end of an epoch: one for each network."""
        metrics: dict[str, list[float]] = {}
        for split, name in MEASURED.items():
            if split in self._rows and len(rows := self._rows[split]):
                logits = torch.cat([self._learner.predict(x) for x in rows.in_turn()], dim=-1)
                each, right = self._measure(logits, rows.y[None], rows.target[None])
                mass = losses.masses(self._training.loss, rows.target[None]).sum()
                metrics[f"{name}/loss"] = (each.sum(1) / mass).tolist()
                metrics[f"{name}/accuracy"] = [count / len(rows) for count in right.sum(1).tolist()]
        return metrics

    def _note_best(self, index: int, metrics: dict[str, float]) -> None:
        """Keep the weights that gave the lowest monitored loss, and end the training where that is long ago."""
        member, training = self._members[index], self._training
        if not training.patience:
            return
        if (loss := metrics[MONITORED[training.monitor]]) < member.best_loss:
            member.best_loss, member.best_epoch = loss, self._epoch
            self._copy(index, self._learner.weights, self._best)
        if self._epoch - member.best_epoch >= training.patience:
            member.ended = f"no lower {training.monitor} loss in {training.patience} epochs"

    def _copy(self, index: int, source: Sequence[Tensor], to: Sequence[Tensor]) -> None:
        """Copy the weights of one network."""
        for one, other in zip(source, to, strict=True):
            other[index].copy_(one[index])

    def _refuse_infinite(self, member: _Member, what: str, value: float, update: int) -> None:
        """End the training of a network that gives no finite numbers."""
        if math.isfinite(value) or member.diverged:
            return
        training = member.training
        remedy = "try a smaller --training.lr"
        is_small = training.batch_size != "full" and math.isnan(value)
        weights = getattr(training.loss, "weight", None) or ()
        if is_small and (getattr(training.loss, "ignore_index", None) is not None or 0 in weights):
            remedy = "if all rows of a batch count nothing, its mean is none: try a larger --training.batch_size"
        epoch = -(-update // self._updates)
        member.diverged = True
        member.ended = (
            f"training diverged: the {what} is {value} at epoch {epoch}, step {update}, "
            f"learning rate {training.lr:g}: {remedy}"
        )
        if len(self._members) == 1:
            raise DivergedError(member.ended)

    def _state(self) -> Checkpoint:
        remembered, rest = self._learner.state()
        named = {"weights": self._learner.weights, "best": self._best, "seen": map(torch.from_numpy, self._seen)}
        tensors = {f"{name}.{index}": tensor for name, some in named.items() for index, tensor in enumerate(some)}
        histories = [member.history.state() for member in self._members]
        tensors |= {f"losses.{index}": torch.from_numpy(losses) for index, (losses, _) in enumerate(histories)}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in remembered.items()}
        facts = {
            "epoch": self._epoch,
            "step": self._step,
            "seconds": time.perf_counter() - self._began,
            "epoch_seconds": self._epoch_seconds,
            "optimizer": rest,
            "members": [
                {name: getattr(member, name) for name in _KEPT} | {"history": points}
                for member, (_, points) in zip(self._members, histories, strict=True)
            ],
        }
        return Checkpoint(tensors, facts)

    def _restore(self, checkpoint: Checkpoint) -> None:
        tensors, facts = checkpoint.tensors, checkpoint.facts
        for name, own in (("weights", self._learner.weights), ("best", self._best)):
            for index, tensor in enumerate(own):
                tensor.copy_(tensors[f"{name}.{index}"])
        prefix = "optimizer."
        remembered = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        self._learner.restore(
            {name: tensor.clone().to(self._device) for name, tensor in remembered.items()}, facts["optimizer"]
        )
        self._seen = [tensors[f"seen.{index}"].numpy() for index in range(len(self._seen))]
        for index, (member, known) in enumerate(zip(self._members, facts["members"], strict=True)):
            member.history.restore(tensors[f"losses.{index}"].numpy(), known.pop("history"))
            for name, value in known.items():
                setattr(member, name, value)
        self._epoch, self._step = facts["epoch"], facts["step"]
        self._epoch_seconds = facts["epoch_seconds"]
        self._began -= facts["seconds"]
        self._resumed_from = self._epoch, self._step


_MEASURED_AS = (torch.float32, torch.float32, torch.int64)
"""Of each batch: its loss, its mass, and how many of its rows were right."""

_KEPT = ("seed", "ended", "diverged", "best_loss", "best_epoch")
"""Of each network, beside its weights and its history."""


def _nothing(networks: int) -> list[NDArray[Any]]:
    """Losses and masses of no batch, and no count of rows."""
    return [torch.empty((networks, 0), dtype=dtype).numpy() for dtype in _MEASURED_AS]
