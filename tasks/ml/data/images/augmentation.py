"""Training images, changed a little each time they are seen, by torchvision's v2 transforms.

What becomes of a batch is a function of a seed, the epoch and the batch's place in it alone: a training that goes on
from a checkpoint sees the same images as one that was never interrupted.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.config.experiment import Augmentation, Training

Augment = Callable[[Tensor, int, int], Tensor]
"""From raw images, each flat, `(B, F) uint8`, the epoch, from 1, and the batch's index in it, to as many others."""


def of(training: Training, dataset: Dataset) -> Augment | None:
    """What changes the training images, if anything is to."""
    if training.augmentation.first is None:
        return None
    transform = _compose(training.augmentation, dataset.shape)
    height, width, *colours = dataset.shape
    largest = int(dataset.largest or 0)

    def augment(x: Tensor, epoch: int, batch: int) -> Tensor:
        images = x.view(-1, height, width, *(colours or (1,))).permute(0, 3, 1, 2)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_seed(training.order_seed, epoch, batch))
            # One by one: a transform would change all images of a batch alike.
            changed = torch.stack([transform(image) for image in images])
        return changed.clamp_(max=largest).permute(0, 2, 3, 1).flatten(1)

    return augment


def _seed(seed: int, epoch: int, batch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch, batch)).generate_state(1, np.uint64)[0])


def _compose(given: Augmentation, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """The transforms that are on, in this order: what moves pixels comes before what colours them."""
    from torchvision.transforms import v2

    jitter = given.brightness, given.contrast, given.saturation, given.hue
    bilinear = v2.InterpolationMode.BILINEAR
    steps = [
        (given.horizontal_flip, lambda: v2.RandomHorizontalFlip(given.horizontal_flip)),
        (given.vertical_flip, lambda: v2.RandomVerticalFlip(given.vertical_flip)),
        (given.rotation, lambda: v2.RandomRotation(given.rotation, interpolation=bilinear)),
        (given.shift, lambda: v2.RandomCrop(shape[:2], padding=given.shift, padding_mode="edge")),
        (any(jitter), lambda: v2.ColorJitter(*jitter)),
    ]
    composed: Callable[[Tensor], Tensor] = v2.Compose([make() for is_on, make in steps if is_on])  # type: ignore[no-untyped-call]
    return composed
