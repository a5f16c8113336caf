"""The networks, and the classifier that carries its own scaling from raw rows to logits."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tasks.ml.config import MLP, Data, Model, Softmax
from tasks.ml.data import open_split
from tasks.ml.digests import check, file_digest
from tasks.ml.files import whole_file
from tasks.ml.records import SPLITS, Dataset, Fit, SplitName


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
        """`(N, F) float32` or `(N, H, W) uint8` to `(N, F) float32`."""
        return (raw.flatten(1).to(self.shift.dtype) - self.shift) / self.scale


class Classifier(nn.Module):
    """Scaling and network: raw rows to logits."""

    def __init__(self, scaling: Scaling, network: nn.Module) -> None:
        """Join a scaling and the network that was trained behind it."""
        super().__init__()
        self.scaling = scaling
        self.network = network

    def forward(self, raw: Tensor) -> Tensor:
        """`(N, F) float32` or `(N, H, W) uint8` to `(N, C) float32` logits."""
        logits: Tensor = self.network(self.scaling(raw))
        return logits


def build(model: Model, inputs: int, classes: int, seed: int) -> nn.Sequential:
    """Build the network with torch's default initial weights drawn from `seed`.

    Args:
        model: the architecture.
        inputs: width of a flattened row.
        classes: number of logits.
        seed: what `torch.manual_seed` would be given; the global generator is left as it was.

    Returns:
        A module from `(N, inputs) float32` to `(N, classes) float32` logits, on the CPU.
    """
    match model:
        case Softmax():
            widths: tuple[int, ...] = (inputs, classes)
        case MLP():
            widths = (inputs, *model.hidden, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def fit_scaling(dataset: Dataset, data: Data) -> Scaling:
    """Find shift and scale as `data.scaling` says, from the rows that `data.scaling_fitted_on` names.

    The standard deviation is the population's (`ddof=0`), and a constant column is divided by 1, both as in
    scikit-learn's StandardScaler.
    """
    match data.scaling:
        case "none":
            shift, scale = np.zeros(()), np.ones(())
        case "range":
            shift, scale = np.zeros(()), np.array(dataset.largest)
        case "standard":
            chosen: tuple[SplitName, ...] = SPLITS if data.scaling_fitted_on == "all" else ("train",)
            x = np.concatenate([open_split(dataset, split).x for split in chosen])
            x = x.reshape(len(x), math.prod(dataset.shape))
            shift, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
            scale = np.where(scale == 0, 1.0, scale)
    return Scaling(torch.tensor(shift, dtype=torch.float32), torch.tensor(scale, dtype=torch.float32))


def save(classifier: Classifier, path: Path) -> str:
    """Write the weights as safetensors, whole or not at all, and return the file's SHA-256."""
    with whole_file(path) as temporary:
        save_file(classifier.state_dict(), temporary)
    return file_digest(path)


def load(fit: Fit, dataset: Dataset, model: Model) -> Classifier:
    """Load a trained classifier onto the CPU, in evaluation mode.

    Raises:
        DamagedError: the weights file is not the one that was written.
    """
    weights = load_file(check(fit.weights, fit.weights_sha256))
    scaling = Scaling(weights["scaling.shift"], weights["scaling.scale"])
    network = build(model, inputs=math.prod(dataset.shape), classes=len(dataset.classes), seed=0)
    classifier = Classifier(scaling, network)
    classifier.load_state_dict(weights)
    return classifier.eval()
