"""One update as a CUDA graph, launched as a whole instead of kernel by kernel."""

from typing import cast

import torch
from torch import Tensor

from hallmark.tasks.ml.training.optim.optimizers import Number
from hallmark.tasks.ml.training.optim.update_step import UpdateStep

_WARM_UP = 3
"""Updates before the capture, as torch's documentation requires; their effect is undone."""


class GraphedStep:
    """An update step that is captured at the first batch, and replayed for every batch of the same shape."""

    def __init__(self, update_step: UpdateStep) -> None:
        """Wrap `update_step`; use `step` instead of its own."""
        self._update_step = update_step
        self._graph: torch.cuda.CUDAGraph | None = None

    def step(self, x: Tensor, targets: Tensor, factors: tuple[Number, ...]) -> Tensor:
        """Update like `UpdateStep.step`, with `factors` on the device, without waiting for the device."""
        given = torch.stack([cast(Tensor, factor) for factor in factors])
        if self._graph is None:
            self._x, self._targets, self._factors = x.clone(), targets.clone(), given.clone()
            self._graph = self._capture()
        if x.shape != self._x.shape:
            return self._update_step.step(x, targets, factors)
        self._x.copy_(x)
        self._targets.copy_(targets)
        self._factors.copy_(given)
        self._graph.replay()
        return self._logits.clone()

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Capture one update, and restore weights and state."""
        weights = [weight.clone() for weight in self._update_step.weights]
        tensors, rest = self._update_step.state()
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
        for weight, before in zip(self._update_step.weights, weights, strict=True):
            weight.copy_(before)
        self._update_step.restore(remembered, rest)
        return graph

    def _step(self) -> Tensor:
        return self._update_step.step(self._x, self._targets, self._factors.unbind())
