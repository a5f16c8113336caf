"""Random changes of the training images, by torchvision's v2 transforms.

The changes of a batch depend only on a seed, the epoch and the index of the batch, so that a training resumed from a
checkpoint sees the same images as an uninterrupted one.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.config.experiment import Augmentation, Training

Augment = Callable[[Tensor, int, int], Tensor]
"""Takes flattened raw images `(B, F) uint8`, the epoch (from 1) and the index of the batch; returns `(B, F) uint8`."""


def build(training: Training, dataset: Dataset) -> Augment | None:
    """Return the function that augments batches, or None if all augmentations are off."""
    if training.augmentation.first is None:
        return None
    transform = _compose(training.augmentation, dataset.shape)
    height, width, *colours = dataset.shape
    largest = int(dataset.largest or 0)

    def augment(x: Tensor, epoch: int, batch: int) -> Tensor:
        images = x.view(-1, height, width, *(colours or (1,))).permute(0, 3, 1, 2)
        with torch.random.fork_rng(devices=[]):
            seeds = np.random.SeedSequence((training.order_seed, epoch, batch))
            torch.default_generator.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
            # One by one, because a transform changes all images of a batch in the same way.
            changed = torch.stack([transform(image) for image in images])
        return changed.clamp_(max=largest).permute(0, 2, 3, 1).flatten(1)

    return augment


def _compose(given: Augmentation, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """Compose the active transforms: those that move pixels first, then those that change colours."""
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
