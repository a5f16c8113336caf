"""Which members of a sweep train as one: those of equal shape, whose products of matrices become one product."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.ml import batches, memory, models
from tasks.ml.config import CNN, Experiment, Training, units
from tasks.ml.course import SEGMENT_ROWS
from tasks.ml.digests import digest_of
from tasks.ml.errors import InputError
from tasks.ml.records import Dataset

OWN = {"lr", "momentum", "weight_decay", "seed", "shuffle_seed"}
"""Fields of `training` that members of one stack may have each for itself."""

_SHARE_OF_MEMORY = 0.5
"""What a stack may take, beside the rows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the members of a sweep are trained, each by its index."""

    stacks: tuple[tuple[int, ...], ...]
    """Members that train as one, two at least."""
    alone: tuple[int, ...]
    """Members that each train by themselves, in a pool of processes."""


def plan(members: Sequence[Experiment]) -> Plan:
    """Put members of equal shape together."""
    groups: dict[str, list[int]] = {}
    for index, member in enumerate(members):
        key = _shape(member) if _can_be_stacked(member) else f"alone {index}"
        groups.setdefault(key, []).append(index)
    stacks = tuple(tuple(group) for group in groups.values() if len(group) > 1)
    return Plan(stacks, tuple(group[0] for group in groups.values() if len(group) == 1))


def refuse_too_many(members: Sequence[Experiment], dataset: Dataset) -> None:
    """Refuse a stack that does not fit into memory.

    Raises:
        InputError: the message says how many members do fit.
    """
    rows = 0 if batches.is_mapped(dataset) else 4 * math.prod(dataset.shape) * sum(dataset.rows.values())
    for stack in plan(members).stacks:
        each = _bytes(members[stack[0]], dataset)
        if len({members[index].training.order_seed for index in stack}) > 1:
            each += _bytes_of_own_order(members[stack[0]], dataset)
        fit = int((_SHARE_OF_MEMORY * memory.limit() - rows) // each)
        if fit < len(stack):
            raise InputError(
                f"{len(stack)} members of one shape take more memory than there is: {max(fit, 0)} fit: "
                "give fewer values, or sweep in parts"
            )


def _can_be_stacked(member: Experiment) -> bool:
    return not isinstance(member.model, CNN) and member.training.optimizer != "lbfgs"


def _shape(member: Experiment) -> str:
    training = member.training.model_dump(mode="json", exclude=OWN)
    return digest_of([member.model.model_dump(mode="json"), training])


def _bytes(member: Experiment, dataset: Dataset) -> int:
    """What one member of a stack takes: weights, gradients, what the optimizer remembers, and what a batch leaves."""
    training, logits = member.training, units(member.model, member.training.loss, len(dataset.classes))
    weights = models.weights(member.model, dataset.shape, logits)
    copies = 3 + 2 * (training.optimizer != "sgd") + (training.momentum > 0) + (training.patience > 0)
    batch = _batch(training, dataset)
    widths = sum(getattr(member.model, "hidden", ())) + logits
    measured = 6 * logits * max(SEGMENT_ROWS, batch, dataset.rows["validation"])
    return 4 * (copies * weights + 4 * batch * widths + measured)


def _bytes_of_own_order(member: Experiment, dataset: Dataset) -> int:
    """What the order of an epoch takes, and a batch of rows that no other member has, twice."""
    return 16 * dataset.rows["train"] + 8 * _batch(member.training, dataset) * math.prod(dataset.shape)


def _batch(training: Training, dataset: Dataset) -> int:
    return dataset.rows["train"] if training.batch_size == "full" else training.batch_size
