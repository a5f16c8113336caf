"""Which members of a sweep train as one: those of equal shape, whose products of matrices become one product.

Where that takes long, a stack is cut into shares, one for each process of the pool: two threads that work on one stack
wait for each other in every step, and two processes never do.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from hallmark.tasks.common.digests import digest_of
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.config.experiment import Experiment, Training
from hallmark.tasks.ml.config.models import output_units
from hallmark.tasks.ml.training import batches, devices, memory
from hallmark.tasks.ml.training.loop import SEGMENT_ROWS

OWN = {"lr", "momentum", "weight_decay", "seed", "shuffle_seed"}
"""Fields of `training` that members of one stack may have each for itself."""

WORKERS = os.cpu_count() or 1
"""Processes of the pool in which members train that are not in one stack."""

SPLITTING = 3e12
"""Multiplications in the whole training of a stack from which shares pay: some 30 seconds, where the processes of a
pool take five to begin and save a tenth, or half where the processor's cores are far apart."""

_SHARE_OF_MEMORY = 0.5
"""What a stack may take, beside the rows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the members of a sweep are trained, each by its index."""

    stacks: tuple[tuple[int, ...], ...]
    """Members that train as one, two at least."""
    shares: tuple[tuple[int, ...], ...]
    """As `stacks`, but each in a process of the pool, beside the others."""
    alone: tuple[int, ...]
    """Members that each train by themselves, in a pool of processes."""


def plan(members: Sequence[Experiment], dataset: Dataset) -> Plan:
    """Put members of equal shape together, and cut large stacks into a share for each of the pool's workers."""
    groups = _groups(members)
    stacks: list[tuple[int, ...]] = []
    shares: list[tuple[int, ...]] = []
    for group in groups:
        if len(group) >= 2 * WORKERS > 2 and _pays(members[group[0]], len(group), dataset):
            shares += [group[number::WORKERS] for number in range(WORKERS)]
        elif len(group) > 1:
            stacks.append(group)
    return Plan(tuple(stacks), tuple(shares), tuple(group[0] for group in groups if len(group) == 1))


def refuse_too_many(members: Sequence[Experiment], dataset: Dataset) -> None:
    """Refuse a stack that does not fit into memory, whole or in shares.

    Raises:
        InputError: the message says how many members do fit.
    """
    rows = 0 if batches.is_mapped(dataset) else 4 * math.prod(dataset.shape) * sum(dataset.rows.values())
    rows *= max(1, len(plan(members, dataset).shares))  # each has them for itself
    for stack in (group for group in _groups(members) if len(group) > 1):
        each = _bytes(members[stack[0]], dataset)
        if len({members[index].training.order_seed for index in stack}) > 1:
            each += _bytes_of_own_order(members[stack[0]], dataset)
        fit = int((_SHARE_OF_MEMORY * memory.limit() - rows) // each)
        if fit < len(stack):
            raise InputError(
                f"{len(stack)} members of one shape take more memory than there is: {max(fit, 0)} fit: "
                "give fewer values, or sweep in parts"
            )


def _groups(members: Sequence[Experiment]) -> list[tuple[int, ...]]:
    """Members of equal shape; what cannot be stacked is a group of its own."""
    groups: dict[str, list[int]] = {}
    for index, member in enumerate(members):
        key = _shape(member) if _can_be_stacked(member) else f"alone {index}"
        groups.setdefault(key, []).append(index)
    return [tuple(group) for group in groups.values()]


def _pays(member: Experiment, count: int, dataset: Dataset) -> bool:
    """Whether so many of its shape are worth a process each share: never on a GPU, which takes them all in one step."""
    training, logits = member.training, output_units(member.model, member.training.loss, len(dataset.classes))
    if devices.choose(training.device).type != "cpu":
        return False
    # A product forward and two backward, as in `training.threads`.
    products = 3 * count * member.model.multiplications(dataset.shape, logits)
    return training.epochs * dataset.rows["train"] * products >= SPLITTING


def _can_be_stacked(member: Experiment) -> bool:
    """Whether it has products to share: a CNN has none, and lbfgs and augmentation see rows of their own."""
    training = member.training
    return member.model.stackable and training.optimizer != "lbfgs" and training.augmentation.first is None


def _shape(member: Experiment) -> str:
    training = member.training.model_dump(mode="json", exclude=OWN)
    return digest_of([member.model.model_dump(mode="json"), training])


def _bytes(member: Experiment, dataset: Dataset) -> int:
    """What one member of a stack takes: weights, gradients, what the optimizer remembers, and what a batch leaves."""
    training, logits = member.training, output_units(member.model, member.training.loss, len(dataset.classes))
    weights = member.model.parameter_count(dataset.shape, logits)
    copies = 3 + 2 * (training.optimizer != "sgd") + (training.momentum > 0) + (training.patience > 0)
    batch = _batch(training, dataset)
    activations = member.model.activation_count(dataset.shape, logits)
    measured = 6 * logits * max(SEGMENT_ROWS, batch, dataset.rows["validation"])
    return 4 * (copies * weights + 4 * batch * activations + measured)


def _bytes_of_own_order(member: Experiment, dataset: Dataset) -> int:
    """What the order of an epoch takes, and a batch of rows that no other member has, twice."""
    return 16 * dataset.rows["train"] + 8 * _batch(member.training, dataset) * math.prod(dataset.shape)


def _batch(training: Training, dataset: Dataset) -> int:
    return dataset.rows["train"] if training.batch_size == "full" else training.batch_size
