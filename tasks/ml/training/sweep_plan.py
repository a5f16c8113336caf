"""Plan how the members of a sweep are trained: together as stacked networks, or each on its own.

Members with the same shape are trained together, so that their matrix products become one product. Large stacks are
split across the processes of the pool: two threads that work on one stack wait for each other in every update, two
processes do not.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from hallmark.tasks.common.digests import digest_of
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.config.models import output_units, update_multiplications
from hallmark.tasks.ml.training import batches, devices, memory
from hallmark.tasks.ml.training.loop import SEGMENT_ROWS

PER_MEMBER_FIELDS = {"lr", "momentum", "weight_decay", "seed", "shuffle_seed"}
"""Fields of `training` that may differ between the members of a stack."""

WORKERS = os.cpu_count() or 1
"""Number of processes in the pool."""

SPLIT_THRESHOLD = 3e12
"""Multiplications in a stack's training above which it is split: about 30 seconds. Starting the pool takes five seconds
and saves a tenth of the time, or half of it if the processor's cores are far apart."""

_SHARE_OF_MEMORY = 0.5
"""Maximum share of the memory that a stack may take, in addition to the rows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the members of a sweep are trained. Members are given by their index."""

    stacks: tuple[tuple[int, ...], ...]
    """Stacks of at least two members, trained one stack after another in this process."""
    pool_stacks: tuple[tuple[int, ...], ...]
    """Stacks trained at the same time, each in a process of the pool."""
    single: tuple[int, ...]
    """Members trained on their own, in the pool."""


def plan(members: Sequence[Experiment], dataset: Dataset) -> Plan:
    """Group members with the same shape into stacks, and split each large stack across the processes of the pool.

    Args:
        members: experiments on the same data.
        dataset: their data.

    Returns:
        A plan in which each member occurs once. There are `pool_stacks` only on a CPU with at least two cores.
    """
    groups = _groups(members)
    stacks: list[tuple[int, ...]] = []
    pool_stacks: list[tuple[int, ...]] = []
    for group in groups:
        if len(group) >= 2 * WORKERS > 2 and _is_worth_splitting(members[group[0]], len(group), dataset):
            pool_stacks += [group[number::WORKERS] for number in range(WORKERS)]
        elif len(group) > 1:
            stacks.append(group)
    return Plan(tuple(stacks), tuple(pool_stacks), tuple(group[0] for group in groups if len(group) == 1))


def refuse_too_many(members: Sequence[Experiment], dataset: Dataset) -> None:
    """Refuse a stack that does not fit into memory.

    Raises:
        InputError: the message says how many members fit.
    """
    rows = 0 if batches.is_mapped(dataset) else 4 * math.prod(dataset.shape) * sum(dataset.rows.values())
    rows *= max(1, len(plan(members, dataset).pool_stacks))  # each process has its own copy
    for stack in (group for group in _groups(members) if len(group) > 1):
        each = _bytes(members[stack[0]], dataset)
        if len({members[index].training.order_seed for index in stack}) > 1:
            each += _bytes_of_row_order(members[stack[0]], dataset)
        fit = int((_SHARE_OF_MEMORY * memory.limit() - rows) // each)
        if fit < len(stack):
            raise InputError(
                f"{len(stack)} members with the same shape do not fit into memory together: {max(fit, 0)} fit: "
                "give fewer values, or sweep in parts"
            )


def _groups(members: Sequence[Experiment]) -> list[tuple[int, ...]]:
    """Return groups of members with the same shape; a member that cannot be stacked is its own group."""
    groups: dict[str, list[int]] = {}
    for index, member in enumerate(members):
        key = _shape(member) if _can_be_stacked(member) else f"single {index}"
        groups.setdefault(key, []).append(index)
    return [tuple(group) for group in groups.values()]


def _is_worth_splitting(member: Experiment, count: int, dataset: Dataset) -> bool:
    """Return whether a stack of `count` such members is worth splitting. Never on a GPU, which updates all at once."""
    training = member.training
    if devices.choose(training.device).type != "cpu":
        return False
    products = count * update_multiplications(member.model, training.loss, dataset.shape, len(dataset.classes))
    return training.epochs * dataset.rows["train"] * products >= SPLIT_THRESHOLD


def _can_be_stacked(member: Experiment) -> bool:
    """Return whether a member can be stacked: lbfgs and augmentation need rows of their own for each network."""
    training = member.training
    return member.model.stackable and training.optimizer != "lbfgs" and training.augmentation.first is None


def _shape(member: Experiment) -> str:
    """Return a digest that is equal for members that can be trained as one stack."""
    training = member.training.model_dump(mode="json", exclude=PER_MEMBER_FIELDS)
    return digest_of([member.model.model_dump(mode="json"), training])


def _bytes(member: Experiment, dataset: Dataset) -> int:
    """Return the memory of one member of a stack: weights, gradients, optimizer state and the values of a batch."""
    training, logits = member.training, output_units(member.model, member.training.loss, len(dataset.classes))
    weights = member.model.parameter_count(dataset.shape, logits)
    copies = 3 + 2 * (training.optimizer != "sgd") + (training.momentum > 0) + (training.patience > 0)
    batch = training.rows_in_batch(dataset.rows["train"])
    activations = member.model.activation_count(dataset.shape, logits)
    measured = 6 * logits * max(SEGMENT_ROWS, batch, dataset.rows["validation"])
    return 4 * (copies * weights + 4 * batch * activations + measured)


def _bytes_of_row_order(member: Experiment, dataset: Dataset) -> int:
    """Return the memory of a member's own row order, and of two copies of its own batch."""
    return 16 * dataset.rows["train"] + 8 * member.training.rows_in_batch(dataset.rows["train"]) * math.prod(
        dataset.shape
    )
