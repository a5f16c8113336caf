"""Networks of every model kind, and the classifier that joins preprocessing and network."""

import math
from itertools import pairwise
from pathlib import Path
from typing import assert_never

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hallmark.tasks.common.digests import check, file_digest
from hallmark.tasks.common.files import whole_file
from hallmark.tasks.common.records import Dataset, Fit
from hallmark.tasks.ml.config.losses import Loss
from hallmark.tasks.ml.config.models import CNN, MLP, Linear, Model, image_channels, output_units
from hallmark.tasks.ml.data.dataset_store import columns_of
from hallmark.tasks.ml.data.source_rows import RawRows
from hallmark.tasks.ml.models import class_probabilities
from hallmark.tasks.ml.models.preprocessing import Encoding, Scaling, chunks

_Key = tuple[str, str, Model, Loss]


class Classifier(nn.Module):
    """Preprocessing and network: from raw rows to class probabilities."""

    def __init__(self, scaling: Scaling | Encoding | nn.Identity, network: nn.Module, model: Model, loss: Loss) -> None:
        """Join preprocessing with the network trained on its output.

        Args:
            scaling: from raw rows to the network's input.
            network: from that input to logits, as `build` returns it.
            model: the configuration of `network`.
            loss: the loss it was trained with, which determines how logits become probabilities.
        """
        super().__init__()
        self.scaling = scaling
        self.network = network
        self.model = model
        self.loss = loss

    def logits(self, raw: Tensor) -> Tensor:
        """Return the logits of raw rows, `(N, U) float32`, before `model.output` is applied."""
        logits: Tensor = self.network(self.scaling(raw))
        return logits

    def forward(self, raw: Tensor) -> Tensor:
        """Return the probabilities `(N, C) float32` of rows: `(N, F) float32`, `(N, H, W)` or `(N, H, W, 3) uint8`."""
        return class_probabilities.probabilities(self.logits(raw), self.model, self.loss)


class ChannelsFirst(nn.Module):
    """View flattened `(H, W, 3)` pixels, the layout of decoded images, as `(3, H, W)`, the layout of convolutions."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Store the shape of an image, `(H, W, 3)`."""
        super().__init__()
        self.shape = shape

    def forward(self, flat: Tensor) -> Tensor:
        """View `(N, H * W * 3)` as `(N, 3, H, W)` without a copy: convolutions on a CPU are fastest in this layout."""
        return flat.view(-1, *self.shape).permute(0, 3, 1, 2)


def build(model: Model, shape: tuple[int, ...], logits: int, seed: int) -> nn.Sequential:
    """Build the network with torch's default initial weights drawn from `seed`.

    Args:
        model: the architecture.
        shape: of one raw row, `(F,)`, `(H, W)` or `(H, W, 3)`.
        logits: number of outputs.
        seed: seed of the initial weights, as for `torch.manual_seed`; the global generator is not changed.

    Returns:
        A module from flattened rows, `(N, F) float32`, to `(N, logits) float32`, on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match model:
            case Linear():
                return nn.Sequential(_linear(model, math.prod(shape), logits))
            case MLP():
                return nn.Sequential(*_perceptron((math.prod(shape), *model.hidden, logits)))
            case CNN():
                return nn.Sequential(*_convolutions(model, shape, logits))
            case _:
                assert_never(model)


def _linear(model: Linear, features: int, logits: int) -> nn.Linear:
    layer = nn.Linear(features, logits)
    for parameter, value in ((layer.weight, model.weight), (layer.bias, model.bias)):
        if value is not None:
            nn.init.constant_(parameter, value)
    return layer


def _perceptron(widths: tuple[int, ...]) -> list[nn.Module]:
    """Return linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return layers[:-1]


def _convolutions(model: CNN, shape: tuple[int, ...], logits: int) -> list[nn.Module]:
    channels = image_channels(shape)
    layers: list[nn.Module] = [nn.Unflatten(1, (1, *shape)) if channels == 1 else ChannelsFirst(shape)]
    for before, after in pairwise((channels, *model.channels)):
        convolution = nn.Conv2d(before, after, model.kernel, padding=model.padding)
        # max(ReLU(x)) equals ReLU(max(x)), and pooling first leaves ReLU a quarter of the values.
        layers += [convolution, nn.MaxPool2d(2), nn.ReLU()]
    return [*layers, nn.Flatten(), *_perceptron((model.flattened(shape), *model.hidden, logits))]


def save(classifier: Classifier, path: Path) -> str:
    """Write the weights as safetensors, whole or not at all, and return the file's SHA-256."""
    with whole_file(path) as temporary:
        save_file(classifier.state_dict(), temporary)
    return file_digest(path)


_loaded: dict[_Key, Classifier] = {}
"""The classifier that was loaded last, in this process."""


def load(fit: Fit, dataset: Dataset, model: Model, loss: Loss) -> Classifier:
    """Load a trained classifier onto the CPU, in evaluation mode.

    The last classifier is cached and returned again for the same weights and dataset: do not modify it.

    Raises:
        DamagedError: the weights file was changed after it was written. Checked when the file is read.
    """
    key = fit.weights_sha256, dataset.digest, model, loss
    if cached := _loaded.get(key):
        return cached
    weights = load_file(check(fit.weights, fit.weights_sha256))
    scaling = (
        Encoding(columns_of(dataset))
        if dataset.is_table
        else Scaling(weights["scaling.shift"], weights["scaling.scale"])
    )
    network = build(model, dataset.shape, output_units(model, loss, len(dataset.classes)), seed=0)
    classifier = Classifier(scaling, network, model, loss)
    classifier.load_state_dict(weights)
    _loaded.clear()
    _loaded[key] = classifier.eval()
    return classifier


def logits(classifier: Classifier, x: RawRows) -> Tensor:
    """Return the classifier's logits of any number of raw rows, `(N, U) float32`, without gradients."""
    with torch.no_grad():
        return torch.cat([classifier.logits(torch.tensor(part)) for part in chunks(x)])
