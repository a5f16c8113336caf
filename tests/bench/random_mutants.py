"""Random compositions of nodes, put between a random value of a graph and the nodes that use it."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hallmark.tasks.ml.artifact import runtimes
from hallmark.tasks.ml.artifact.runtimes import Feeds
from tests.bench.mutants import Graph

STEPS = 3
"""Maximum number of steps in a composition."""
QUANTILES = (0.5, 0.9, 0.98)
"""Shares of the values of a place up to which a composition may be left out."""
OVER_THE_BATCH = 0.25
"""Share of the compositions that end with a step over the rows of a batch."""


@dataclass
class _Composition:
    """Nodes that are being composed."""

    random: np.random.Generator
    values: NDArray[np.float32]
    """Values that the graph has at the place of the composition."""
    name: str
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        """Add a node and return the name of its result."""
        result = f"random{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [result], **attributes))
        return result

    def constant(self, value: object, dtype: type = np.float32) -> str:
        name = f"random constant {len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def quantile(self) -> float:
        return float(np.quantile(self.values, self.random.random()))

    def size(self) -> float:
        """Draw a relative change, mostly a small one."""
        return float(10 ** self.random.uniform(-4, 0) * self.random.choice([-1, 1]))


def random_mutants(model: Graph, given: Feeds, count: int, seed: int) -> Iterator[tuple[str, str, Graph]]:
    """Yield kind, name and graph of mutants.

    Args:
        model: an honest graph.
        given: rows that show which values the graph has at each place.
        count: number of mutants.
        seed: of the random choices.
    """
    random = np.random.default_rng(seed)
    found = runtimes.reference_evaluator(model).run(None, given, intermediate=True)
    rows = len(next(iter(given.values())))
    values = {
        name: value
        for name, value in found.items()
        if isinstance(value, np.ndarray) and value.dtype == np.float32 and value.shape[:1] == (rows,) and value.ndim > 1
    }
    values = {name: value for name, value in values.items() if np.isfinite(value).any() and name != "probabilities"}
    for number in range(count):
        name = str(random.choice(sorted(values)))
        composition = _Composition(random, values[name][np.isfinite(values[name])], name)
        is_over_the_batch = random.random() < OVER_THE_BATCH
        result = _compose(composition, values[name].ndim, is_over_the_batch=is_over_the_batch)
        kind = "random nodes over the batch" if is_over_the_batch else "random nodes"
        told = f"{number}: {' '.join(composition.told)} at {name}"
        yield kind, told, _inserted(model, composition, result)


def _compose(composition: _Composition, rank: int, *, is_over_the_batch: bool) -> str:
    random, result = composition.random, composition.name
    for _ in range(random.integers(1, STEPS + 1)):
        step = _STEPS[random.integers(len(_STEPS))]
        composition.told.append(step.__name__.strip("_"))
        result = step(composition, result, rank)
    if is_over_the_batch:
        step = _OVER_THE_BATCH[random.integers(len(_OVER_THE_BATCH))]
        composition.told.append(step.__name__.strip("_"))
        return step(composition, result, rank)
    if random.random() < 1 / 2:
        limit = float(np.quantile(composition.values, random.choice(QUANTILES)))
        composition.told.append(f"above {limit:.3g}")
        is_above = composition.add("Greater", composition.name, composition.constant(limit))
        return composition.add("Where", is_above, result, composition.name)
    return result


def _scaled(one: _Composition, name: str, _: int) -> str:
    return one.add("Mul", name, one.constant(1 + one.size()))


def _shifted(one: _Composition, name: str, _: int) -> str:
    return one.add("Add", name, one.constant(one.size() * (float(one.values.std()) or 1)))


def _negated(one: _Composition, name: str, _: int) -> str:
    return one.add("Neg", name)


def _absolute(one: _Composition, name: str, _: int) -> str:
    return one.add("Abs", name)


def _rectified(one: _Composition, name: str, _: int) -> str:
    return one.add("Relu", name)


def _limited(one: _Composition, name: str, _: int) -> str:
    low, high = sorted((one.quantile(), one.quantile()))
    return one.add("Clip", name, one.constant(low), one.constant(high))


def _at_most(one: _Composition, name: str, _: int) -> str:
    return one.add("Min", name, one.constant(one.quantile()))


def _at_least(one: _Composition, name: str, _: int) -> str:
    return one.add("Max", name, one.constant(one.quantile()))


def _rounded(one: _Composition, name: str, _: int) -> str:
    unit = one.constant((float(one.values.std()) or 1) * 10 ** one.random.uniform(-4, 0))
    return one.add("Mul", one.add("Round", one.add("Div", name, unit)), unit)


def _halved(one: _Composition, name: str, _: int) -> str:
    return one.add("Cast", one.add("Cast", name, to=TensorProto.FLOAT16), to=TensorProto.FLOAT)


def _squashed(one: _Composition, name: str, _: int) -> str:
    return one.add(str(one.random.choice(["Tanh", "Softsign", "Softplus", "Sigmoid"])), name)


def _centred(one: _Composition, name: str, rank: int) -> str:
    mean = one.add("ReduceMean", name, one.constant([rank - 1], np.int64), keepdims=1)
    return one.add("Sub", name, one.add("Mul", mean, one.constant(abs(one.size()))))


def _with_a_share_of_its_size(one: _Composition, name: str, _: int) -> str:
    return one.add("Add", name, one.add("Mul", one.add("Abs", name), one.constant(one.size())))


_STEPS: tuple[Callable[[_Composition, str, int], str], ...] = (
    *(_scaled, _shifted, _negated, _absolute, _rectified, _limited, _at_most, _at_least, _rounded, _halved),
    *(_squashed, _centred, _with_a_share_of_its_size),
)


def _less_the_mean_of_the_batch(one: _Composition, name: str, _: int) -> str:
    mean = one.add("ReduceMean", name, one.constant([0], np.int64), keepdims=1)
    return one.add("Sub", name, one.add("Mul", mean, one.constant(one.size())))


def _with_a_share_of_the_first_row(one: _Composition, name: str, _: int) -> str:
    first = one.add("Gather", name, one.constant([0], np.int64), axis=0)
    return one.add("Add", name, one.add("Mul", first, one.constant(one.size())))


def _summed_over_the_batch(one: _Composition, name: str, _: int) -> str:
    summed = one.add("CumSum", name, one.constant(0, np.int64))
    return one.add("Add", name, one.add("Mul", summed, one.constant(one.size())))


def _scaled_by_the_number_of_rows(one: _Composition, name: str, _: int) -> str:
    rows = one.add("Cast", one.add("Shape", name, start=0, end=1), to=TensorProto.FLOAT)
    factor = one.add("Add", one.add("Mul", rows, one.constant(one.size() / 100)), one.constant(1.0))
    return one.add("Mul", name, factor)


def _with_noise(one: _Composition, name: str, _: int) -> str:
    noise = one.add("RandomNormalLike", name, scale=abs(one.size()) * (float(one.values.std()) or 1))
    return one.add("Add", name, noise)


def _by_a_branch(one: _Composition, name: str, _: int) -> str:
    """Multiply by a factor that an `If` chooses by the number of rows."""
    values = {"few": 1.0, "many": 1 + one.size()}
    ends = [helper.make_tensor_value_info("factor", TensorProto.FLOAT, [])]
    branches = [
        helper.make_graph([helper.make_node("Constant", [], ["factor"], value_float=value)], which, [], ends)
        for which, value in values.items()
    ]
    rows = one.add("Shape", name, start=0, end=1)
    is_few = one.add("Less", rows, one.constant([one.random.integers(2, 300)], np.int64))
    chosen = one.add("If", one.add("Squeeze", is_few), then_branch=branches[0], else_branch=branches[1])
    return one.add("Mul", name, chosen)


_OVER_THE_BATCH: tuple[Callable[[_Composition, str, int], str], ...] = (
    *(_less_the_mean_of_the_batch, _with_a_share_of_the_first_row, _summed_over_the_batch),
    *(_scaled_by_the_number_of_rows, _with_noise, _by_a_branch),
)


def _inserted(model: Graph, composition: _Composition, result: str) -> Graph:
    """Put the composition between a value and the nodes that use it."""
    mutant = copy.deepcopy(model)
    graph, name = mutant.graph, composition.name
    for node in graph.node:
        node.input[:] = [result if one == name else one for one in node.input]
    place = next((index + 1 for index, node in enumerate(graph.node) if name in node.output), 0)
    for node in reversed(composition.nodes):
        graph.node.insert(place, node)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in composition.constants.items())
    del graph.value_info[:]
    return onnx.load_model_from_string(mutant.SerializeToString())
