"""The training loop: epochs, segments of batches, early stopping, checkpoints."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.common.records import ALL_EPOCHS, Fit, SplitName
from hallmark.tasks.ml.config.experiment import Constant, Training
from hallmark.tasks.ml.config.models import Model
from hallmark.tasks.ml.models import networks
from hallmark.tasks.ml.training.batch_metrics import BatchMetrics, measure_rows
from hallmark.tasks.ml.training.batches import Epoch, LoadedRows, order
from hallmark.tasks.ml.training.checkpoints import Checkpoint, Checkpoints
from hallmark.tasks.ml.training.history import JOURNAL, History, Log, TimestampLog
from hallmark.tasks.ml.training.member import Member
from hallmark.tasks.ml.training.optim import losses, lr_schedules, optimizers
from hallmark.tasks.ml.training.optim.cuda_graph import GraphedStep
from hallmark.tasks.ml.training.optim.update_step import GradientStep, UpdateStep

MEASURED: dict[SplitName, str] = {"validation": "val", "test": "test"}
"""Splits measured after each epoch, if the training may read them, and the prefix of their metrics."""
_SEGMENT_BATCHES = 256
"""Maximum number of batches in a segment. Between segments, checkpoints and `CheckpointPolicy.should_stop` are due."""
SEGMENT_ROWS = 2048
"""Maximum number of rows in a segment. Their logits are measured together, and should fit a processor's cache."""


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """Where a training writes checkpoints, when it stops early, and what it reports on resuming."""

    folder: Path
    """Folder of the checkpoints and the journal. The caller removes it after it has used the result."""
    should_stop: Callable[[], bool] = lambda: False
    """Called several times a second; if true, a checkpoint is written and KeyboardInterrupt raised."""
    on_resume: Callable[[int, int], None] = lambda epoch, step: None  # noqa: ARG005 - ignore both
    """Called before training resumes from a checkpoint, with completed epochs and completed updates of the next."""
    seconds: float = 0.0
    """Minimum time between two checkpoints; see `Checkpoints.is_due`."""


class TrainingLoop:
    """The training of one network, or of M networks at once.

    Its position is two integers: completed epochs, and completed updates of the next epoch.
    """

    def __init__(
        self,
        update_step: UpdateStep,
        rows: dict[SplitName, LoadedRows],
        model: Model,
        trainings: Sequence[Training],
        units: int,
        seeds: Sequence[int],
        logs: Sequence[Log],
    ) -> None:
        """Start before the first epoch.

        Args:
            update_step: the networks, and the rule that updates them.
            rows: rows of each split that the training may read.
            model: the architecture of the networks.
            trainings: one for each network; equal except for lr, momentum, weight_decay and seeds.
            units: number of logits of each network.
            seeds: seed of each network's initial weights.
            logs: one for each network.
        """
        self._update_step, self._rows, self._model, self._units, self._logs = update_step, rows, model, units, logs
        self._training = trainings[0]
        self._device = rows["train"].y.device
        self._size = self._training.rows_in_batch(len(rows["train"]))
        self._updates = math.ceil(len(rows["train"]) / self._size)
        graphed = self._device.type == "cuda" and isinstance(update_step, GradientStep)
        self._step_once = GraphedStep(update_step).step if graphed else update_step.step
        self._best = [weight.clone() for weight in update_step.weights] if self._training.patience else []
        pairs = zip(trainings, seeds, strict=True)
        self._members = [
            Member(training, seed, self._history(index), self._updates, is_single=len(trainings) == 1)
            for index, (training, seed) in enumerate(pairs)
        ]
        self._epoch, self._step = 0, 0
        self._epoch_seconds = 0.0
        self._started = time.perf_counter()
        self._batch_metrics = BatchMetrics(
            self._training.loss, model, len(trainings), self._updates, self._size, self._device
        )
        self._policy: CheckpointPolicy | None = None
        self._checkpoints: Checkpoints | None = None
        self._resumed_from: tuple[int, int] | None = None

    def enable_checkpoints(self, policy: CheckpointPolicy, identity: dict[str, str]) -> None:
        """Write checkpoints from now on, and resume from the newest one if there is one.

        Raises:
            InputError: the checkpoint does not have this `identity`.
        """
        self._policy = policy
        self._checkpoints = Checkpoints(policy.folder, identity, policy.seconds)
        checkpoint = self._checkpoints.load()
        timestamps = TimestampLog(policy.folder / JOURNAL)
        for index, member in enumerate(self._members):
            member.history = self._history(index, timestamps)
        if checkpoint:
            policy.on_resume(checkpoint.facts["epoch"], checkpoint.facts["step"])
            self._restore(checkpoint)
        elif self._training.initial_weights == "unseeded":
            self._checkpoints.save(self._state())  # or the seed that was drawn would be lost

    def run(self) -> None:
        """Train to the end.

        Raises:
            DivergedError: loss or weights of the only network are not finite.
            KeyboardInterrupt: `CheckpointPolicy.should_stop` returned true.
        """
        while self._epoch < self._training.epochs and not all(member.ended for member in self._members):
            self._train_epoch()
            self._finish_epoch()
        for index, member in enumerate(self._members):
            if self._best and not member.diverged:
                _copy_weights(index, self._best, self._update_step.weights)
            # The last loss was measured before the last update, so the weights themselves are checked.
            largest = max(weight[index].abs().max().item() for weight in self._update_step.weights)
            member.check_finite("largest weight", largest, member.history.updates)
        if self._checkpoints:
            self._checkpoints.save(self._state())

    def result(
        self, index: int, classifier: networks.Classifier, folder: Path, fingerprint: dict[str, str]
    ) -> Fit | DivergedError:
        """Write weights and history of a network into `folder`; return the error if its training diverged."""
        member = self._members[index]
        if member.diverged:
            return DivergedError(member.ended)
        weights = folder / "weights.safetensors"
        classifier.network.cpu().to(memory_format=torch.contiguous_format)
        return Fit(
            weights=weights,
            weights_sha256=networks.save(classifier, weights),
            history=member.history.save(folder / "history.parquet"),
            metrics=member.history.last,
            epochs=member.history.epochs,
            best_epoch=member.best_epoch or member.history.epochs,
            stopped=member.ended or ALL_EPOCHS,
            seconds=time.perf_counter() - self._started,
            device=str(self._device),
            threads=int(fingerprint["threads"]),
            networks=len(self._members),
            initial_seed=member.seed,
            fingerprint=fingerprint,
            resumed_from=self._resumed_from,
        )

    def _history(self, index: int, timestamps: TimestampLog | None = None) -> History:
        updates = self._training.epochs * self._updates
        return History(updates, self._logs[index], timestamps, kind=f"{index} ")

    def _train_epoch(self) -> None:
        """Train the remaining batches of an epoch, segment by segment."""
        started = time.perf_counter()
        epoch = Epoch(self._rows["train"], self._size, self._row_order(), self._epoch + 1)
        factors, batches = self._update_factors(), epoch.batches(self._step, self._updates)
        segment = max(1, min(_SEGMENT_BATCHES, SEGMENT_ROWS // self._size))
        while self._step < self._updates:
            stop = min(self._step + segment, self._updates)
            y, target = epoch.truth(self._step, stop)
            # zip stops at its first iterator, the only one that ends with the segment: it takes no batch too many.
            steps = zip(self._batch_targets(target), batches, factors, strict=False)
            logits = torch.cat([self._step_once(x, targets, values) for targets, x, values in steps], dim=-1)
            self._batch_metrics.measure(self._step, stop, logits, y, target)
            self._step = stop
            self._epoch_seconds += time.perf_counter() - started
            self._between_segments()
            started = time.perf_counter()

    def _between_segments(self) -> None:
        """Write a checkpoint if one is due, or if the training is to stop here."""
        if self._policy is None or self._checkpoints is None:
            return
        stops = self._policy.should_stop()
        if stops or self._checkpoints.is_due():
            self._collect()
            self._checkpoints.save(self._state())
        if stops:
            raise KeyboardInterrupt

    def _row_order(self) -> Tensor | None:
        """Return the order of the rows in this epoch: `(N,)` if all networks share it, else `(M, N)`."""
        if self._training.batch_size == "full" or not self._training.shuffle:
            return None
        seeds = [member.training.order_seed for member in self._members]
        orders = {seed: order(seed, self._epoch + 1, len(self._rows["train"])) for seed in seeds}
        row_order = orders[seeds[0]] if len(orders) == 1 else torch.stack([orders[seed] for seed in seeds])
        return row_order.to(self._rows["train"].x.device)

    def _update_factors(self) -> Iterator[tuple[optimizers.Number, ...]]:
        """Yield the optimizer's factors for each remaining update; on a GPU they are copied there all at once."""
        training, done = self._training, self._epoch * self._updates
        factors = (
            optimizers.update_factors(
                training,
                lr_schedules.factor(training.schedule, training.epochs, self._updates, self._epoch + 1, step),
                done + step,
            )
            for step in range(self._step, self._updates)
        )
        if self._device.type == "cpu":
            return factors
        return (row.unbind() for row in torch.tensor(list(factors), device=self._device))

    def _batch_targets(self, target: Tensor) -> Iterator[Tensor]:
        """Yield the targets of a segment as `UpdateStep.step` takes them, batch by batch."""
        prepared = [self._update_step.prepare_targets(own, self._units) for own in target]
        return iter(torch.split(torch.stack(prepared) if len(prepared) > 1 else prepared[0], self._size, dim=-1))

    def _collect(self) -> None:
        """Collect the losses of the updates since the last call, and record them."""
        if self._batch_metrics.collected[0].shape[1] == self._step:
            return
        started = time.perf_counter()
        new_losses = self._batch_metrics.collect(self._step)
        self._epoch_seconds += time.perf_counter() - started  # a GPU has finished its work only now
        for member, new in zip(self._members, new_losses, strict=True):
            if not member.ended:
                member.record_losses(new)

    def _finish_epoch(self) -> None:
        """Measure the epoch, record its metrics, and end the training of networks that are done."""
        self._collect()
        self._epoch += 1
        measured = self._measure_splits()
        for index, member in enumerate(self._members):
            if member.ended:
                continue  # its weights are still updated together with the others', but no longer used
            metrics = self._train_metrics(index) | {name: float(values[index]) for name, values in measured.items()}
            for name, value in metrics.items():
                member.check_finite(name, value, member.history.updates)
            if not member.ended:
                member.history.record_epoch(self._epoch, metrics)
                if self._best and member.record_monitored_loss(self._epoch, metrics):
                    _copy_weights(index, self._update_step.weights, self._best)
                member.ended = member.ended or self._update_step.ended
        self._batch_metrics.reset()
        self._step, self._epoch_seconds = 0, 0.0

    def _train_metrics(self, index: int) -> dict[str, float]:
        """Return the metrics of the epoch on the training rows, as measured before each update."""
        training = self._members[index].training
        step_losses, weights, correct = self._batch_metrics.of_network(index)
        metrics = {
            "train/loss": float(step_losses @ weights / weights.sum()),
            "train/accuracy": float(correct) / len(self._rows["train"]),
            "time/epoch_seconds": self._epoch_seconds,
        }
        if not isinstance(training.schedule, Constant):
            position = self._training.epochs, self._updates, self._epoch, 0
            metrics["train/lr"] = training.lr * lr_schedules.factor(training.schedule, *position)
        if training.last_batch_loss:
            metrics["train/last_batch_loss"] = float(step_losses[-1])
        return metrics

    def _measure_splits(self) -> dict[str, list[float]]:
        """Return loss and accuracy on every split that is not trained on, each a list with one value per network."""
        metrics: dict[str, list[float]] = {}
        for split, name in MEASURED.items():
            if split in self._rows and len(rows := self._rows[split]):
                logits = torch.cat([self._update_step.predict(x) for x in rows.chunks()], dim=-1)
                row_losses, correct = measure_rows(
                    self._training.loss, self._model, len(self._members), logits, rows.y[None], rows.target[None]
                )
                weight = losses.row_weights(self._training.loss, rows.target[None]).sum()
                metrics[f"{name}/loss"] = (row_losses.sum(1) / weight).tolist()
                metrics[f"{name}/accuracy"] = [count / len(rows) for count in correct.sum(1).tolist()]
        return metrics

    def _state(self) -> Checkpoint:
        optimizer_tensors, optimizer_facts = self._update_step.state()
        collected = map(torch.from_numpy, self._batch_metrics.collected)
        named = {"weights": self._update_step.weights, "best": self._best, "seen": collected}
        tensors = {f"{name}.{index}": tensor for name, some in named.items() for index, tensor in enumerate(some)}
        members = [member.state() for member in self._members]
        tensors |= {f"losses.{index}": losses for index, (losses, _) in enumerate(members)}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors.items()}
        facts = {
            "epoch": self._epoch,
            "step": self._step,
            "seconds": time.perf_counter() - self._started,
            "epoch_seconds": self._epoch_seconds,
            "optimizer": optimizer_facts,
            "members": [values for _, values in members],
        }
        return Checkpoint(tensors, facts)

    def _restore(self, checkpoint: Checkpoint) -> None:
        tensors, facts = checkpoint.tensors, checkpoint.facts
        for name, own in (("weights", self._update_step.weights), ("best", self._best)):
            for index, tensor in enumerate(own):
                tensor.copy_(tensors[f"{name}.{index}"])
        prefix = "optimizer."
        stored = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        self._update_step.restore(
            {name: tensor.clone().to(self._device) for name, tensor in stored.items()}, facts["optimizer"]
        )
        collected = len(self._batch_metrics.collected)
        self._batch_metrics.collected = [tensors[f"seen.{index}"].numpy() for index in range(collected)]
        for index, (member, known) in enumerate(zip(self._members, facts["members"], strict=True)):
            member.restore(tensors[f"losses.{index}"], known)
        self._epoch, self._step = facts["epoch"], facts["step"]
        self._epoch_seconds = facts["epoch_seconds"]
        self._started -= facts["seconds"]
        self._resumed_from = self._epoch, self._step


def _copy_weights(index: int, source: Sequence[Tensor], to: Sequence[Tensor]) -> None:
    """Copy the weights of the network with this index."""
    for one, other in zip(source, to, strict=True):
        other[index].copy_(one[index])
