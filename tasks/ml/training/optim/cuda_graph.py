"""One update as a CUDA graph: launched as a whole instead of kernel by kernel, where shapes never change."""

from typing import cast

import torch
from torch import Tensor

from hallmark.tasks.ml.training.optim.optimizers import Number
from hallmark.tasks.ml.training.optim.update_step import Learner

_WARM_UP = 3
"""Updates before the capture, as torch's documentation asks for; they are undone."""


class Graphed:
    """A learner whose step is captured at the first batch, and replayed for every other batch of its shape."""

    def __init__(self, learner: Learner) -> None:
        """Stand in for `learner.step`."""
        self._learner = learner
        self._graph: torch.cuda.CUDAGraph | None = None

    def step(self, x: Tensor, target: Tensor, numbers: tuple[Number, ...]) -> Tensor:
        """As `Learner.step`, with `numbers` on the device. Nothing waits for the device."""
        given = torch.stack([cast(Tensor, number) for number in numbers])
        if self._graph is None:
            self._x, self._target, self._numbers = x.clone(), target.clone(), given.clone()
            self._graph = self._capture()
        if x.shape != self._x.shape:
            return self._learner.step(x, target, numbers)
        self._x.copy_(x)
        self._target.copy_(target)
        self._numbers.copy_(given)
        self._graph.replay()
        return self._logits.clone()

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Capture a step, and leave the learner as it was."""
        weights = [weight.clone() for weight in self._learner.weights]
        tensors, rest = self._learner.state()
        remembered = {name: tensor.clone() for name, tensor in tensors.items()}
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._logits = self._step()
        for weight, before in zip(self._learner.weights, weights, strict=True):
            weight.copy_(before)
        self._learner.restore(remembered, rest)
        return graph

    def _step(self) -> Tensor:
        return self._learner.step(self._x, self._target, self._numbers.unbind())
