"""The networks, and the classifier that carries its own scaling from raw rows to logits."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hallmark.tasks.common.digests import check, file_digest
from hallmark.tasks.common.files import whole_file
from hallmark.tasks.common.records import SPLITS, Column, Dataset, Fit, SplitName
from hallmark.tasks.ml.config.data import Data
from hallmark.tasks.ml.config.experiment import CNN, MLP, Linear, Model, units
from hallmark.tasks.ml.config.losses import Loss
from hallmark.tasks.ml.data.dataset_store import columns_of, open_split
from hallmark.tasks.ml.data.source_rows import RawRows
from hallmark.tasks.ml.data.tables import encoding
from hallmark.tasks.ml.models import class_probabilities

ROWS_AT_ONCE = 1000
"""So many rows pass a network together when nothing is learnt: a convolution of all would take gigabytes."""
_NUMBERS_AT_ONCE = 2**24
"""Of large images fewer pass, which have so many pixels and colours together."""


class Scaling(nn.Module):
    """Raw rows to the network's input: `(raw - shift) / scale`, each row flattened."""

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        """Take `shift` and `scale`, both `(F,) float32` or scalar."""
        super().__init__()
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    def forward(self, raw: Tensor) -> Tensor:
        """`(N, F) float32`, or `(N, H, W)` or `(N, H, W, 3) uint8`, to `(N, F) float32`."""
        return (raw.flatten(1).to(self.shift.dtype) - self.shift) / self.scale


class Encoding(nn.Module):
    """Raw rows of a table of one's own to the network's input, as `tables.encoding` has fitted and shipped it."""

    column: Tensor
    kept: Tensor
    fill: Tensor
    shift: Tensor
    factor: Tensor
    is_category: Tensor

    def __init__(self, columns: tuple[Column, ...]) -> None:
        """Take what was fitted of each column."""
        super().__init__()
        order = encoding.in_order(columns)
        inputs = [
            (index, kept, columns[index].shift, columns[index].factor)
            for index in order
            for kept in (columns[index].kept if columns[index].kind == "categorical" else (0,))
        ]
        column, kept, shift, factor = (list(part) for part in zip(*inputs, strict=True))
        self.register_buffer("column", torch.tensor(column))
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.float32))
        self.register_buffer("fill", torch.tensor([one.fill for one in columns]))
        self.register_buffer("shift", torch.tensor(shift))
        self.register_buffer("factor", torch.tensor(factor))
        self.register_buffer("is_category", torch.tensor([columns[index].kind == "categorical" for index in column]))

    def forward(self, raw: Tensor) -> Tensor:
        """`(N, columns) float32` to `(N, F) float32`."""
        raw = raw.to(self.shift.dtype)
        value = torch.where(raw.isnan(), self.fill, raw)[:, self.column]
        return torch.where(self.is_category, (value == self.kept).to(value.dtype), (value - self.shift) * self.factor)


class Classifier(nn.Module):
    """Scaling and network: raw rows to probabilities."""

    def __init__(self, scaling: Scaling | Encoding | nn.Identity, network: nn.Module, model: Model, loss: Loss) -> None:
        """Join a scaling and the network that was trained behind it, for `loss`."""
        super().__init__()
        self.scaling = scaling
        self.network = network
        self.model = model
        self.loss = loss

    def logits(self, raw: Tensor) -> Tensor:
        """Raw rows, as `forward` takes them, to `(N, U) float32`, before what `model.output` says."""
        logits: Tensor = self.network(self.scaling(raw))
        return logits

    def forward(self, raw: Tensor) -> Tensor:
        """`(N, F) float32`, or `(N, H, W)` or `(N, H, W, 3) uint8`, to `(N, C) float32` probabilities."""
        return class_probabilities.probabilities(self.logits(raw), self.model, self.loss)


class ChannelsFirst(nn.Module):
    """From pixels with their colours together, as decoders give them, to planes of one colour, as torch takes them."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Take the shape of an image, `(H, W, 3)`."""
        super().__init__()
        self.shape = shape

    def forward(self, flat: Tensor) -> Tensor:
        """`(N, H * W * 3)` to `(N, 3, H, W)`. Nothing is moved: convolutions on a CPU are fastest in this layout."""
        return flat.view(-1, *self.shape).permute(0, 3, 1, 2)


def channels(shape: tuple[int, ...]) -> int:
    """Of an image, `(H, W)` or `(H, W, 3)`."""
    return shape[2] if len(shape) == 3 else 1


def build(model: Model, shape: tuple[int, ...], logits: int, seed: int) -> nn.Sequential:
    """Build the network with torch's default initial weights drawn from `seed`.

    Args:
        model: the architecture.
        shape: of one raw row, `(F,)`, `(H, W)` or `(H, W, 3)`.
        logits: how many the network gives.
        seed: what `torch.manual_seed` would be given; the global generator is left as it was.

    Returns:
        A module from flattened rows, `(N, F) float32`, to `(N, logits) float32`, on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match model:
            case Linear():
                return nn.Sequential(_started(nn.Linear(math.prod(shape), logits), model))
            case MLP():
                return nn.Sequential(*_perceptron((math.prod(shape), *model.hidden, logits)))
            case CNN():
                planes = channels(shape)
                layers: list[nn.Module] = [nn.Unflatten(1, (1, *shape)) if planes == 1 else ChannelsFirst(shape)]
                for before, after in pairwise((planes, *model.channels)):
                    # ReLU of the largest is the largest of ReLU, at a quarter of the cost.
                    convolution = nn.Conv2d(before, after, model.kernel, padding=model.padding)
                    layers += [convolution, nn.MaxPool2d(2), nn.ReLU()]
                return nn.Sequential(*layers, nn.Flatten(), *_perceptron((_left(model, shape), *model.hidden, logits)))


def products(model: Model, shape: tuple[int, ...], logits: int) -> int:
    """Multiplications that take one row through the network: what its cost is measured by."""
    size, found = math.prod(shape), 0
    if isinstance(model, CNN):
        planes = pairwise((channels(shape), *model.channels))
        for sides, (before, after) in zip(model.sides(shape), planes, strict=True):
            found += math.prod(sides) * model.kernel**2 * before * after
        size = _left(model, shape)
    hidden = () if isinstance(model, Linear) else model.hidden
    return found + sum(before * after for before, after in pairwise((size, *hidden, logits)))


def weights(model: Model, shape: tuple[int, ...], logits: int) -> int:
    """How many numbers the network learns, biases among them, where it is no CNN."""
    hidden = () if isinstance(model, Linear) else model.hidden
    return sum((before + 1) * after for before, after in pairwise((math.prod(shape), *hidden, logits)))


def _left(model: CNN, shape: tuple[int, ...]) -> int:
    """Numbers that the last pooling gives of one image."""
    *_, last = model.sides(shape)
    return math.prod(side // 2 for side in last) * model.channels[-1]


def _perceptron(widths: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return layers[:-1]


def _started(layer: nn.Linear, model: Linear) -> nn.Linear:
    """Let a layer start where the experiment says."""
    for parameter, value in ((layer.weight, model.weight), (layer.bias, model.bias)):
        if value is not None:
            nn.init.constant_(parameter, value)
    return layer


def fit_scaling(dataset: Dataset, data: Data) -> Scaling | Encoding:
    """Find shift and scale as `data.scaling` says, from the rows that `data.scaling_fitted_on` names.

    A table of one's own was fitted when it was prepared.

    The standard deviation is the population's (`ddof=0`), and a constant column is divided by 1, both as in
    scikit-learn's StandardScaler.
    """
    if dataset.is_table:
        return Encoding(columns_of(dataset))
    match data.scaling:
        case "none":
            shift, scale = np.zeros(()), np.ones(())
        case "range":
            shift, scale = np.zeros(()), np.array(dataset.largest)
        case "standard":
            chosen: tuple[SplitName, ...] = SPLITS if data.scaling_fitted_on == "all" else ("train",)
            splits = [open_split(dataset, split).x for split in chosen]
            rows = sum(map(len, splits))
            shift = sum(part.sum(axis=0) for part in _parts(splits)) / rows
            scale = np.sqrt(sum(np.square(part - shift).sum(axis=0) for part in _parts(splits)) / rows)
            scale = np.where(scale == 0, 1.0, scale)
    return Scaling(torch.tensor(shift, dtype=torch.float32), torch.tensor(scale, dtype=torch.float32))


def _parts(splits: Sequence[RawRows]) -> Iterator[NDArray[np.float64]]:
    """All rows as `(n, F) float64`, some at a time: they may be more than memory holds."""
    return (part.reshape(len(part), -1).astype(np.float64) for x in splits for part in _cut(x))


def save(classifier: Classifier, path: Path) -> str:
    """Write the weights as safetensors, whole or not at all, and return the file's SHA-256."""
    with whole_file(path) as temporary:
        save_file(classifier.state_dict(), temporary)
    return file_digest(path)


def load(fit: Fit, dataset: Dataset, model: Model, loss: Loss) -> Classifier:
    """Load a trained classifier onto the CPU, in evaluation mode.

    Raises:
        DamagedError: the weights file is not the one that was written.
    """
    weights = load_file(check(fit.weights, fit.weights_sha256))
    scaling = (
        Encoding(columns_of(dataset))
        if dataset.is_table
        else Scaling(weights["scaling.shift"], weights["scaling.scale"])
    )
    network = build(model, dataset.shape, units(model, loss, len(dataset.classes)), seed=0)
    classifier = Classifier(scaling, network, model, loss)
    classifier.load_state_dict(weights)
    return classifier.eval()


def logits(classifier: Classifier, x: RawRows) -> Tensor:
    """The classifier's logits for any number of raw rows, `(N, U) float32`, without gradients."""
    with torch.no_grad():
        return torch.cat([classifier.logits(torch.tensor(part)) for part in _cut(x)])


def at_once(features: int) -> int:
    """How many rows of so many numbers pass a network together when nothing is learnt."""
    return max(1, min(ROWS_AT_ONCE, _NUMBERS_AT_ONCE // features))


def _cut(x: RawRows) -> Iterator[RawRows]:
    rows = at_once(math.prod(x.shape[1:]))
    return (x[start : start + rows] for start in range(0, len(x), rows))
