"""Copies that were changed a little are found among photos, drawings and many images; different images are not."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits

from hallmark.tasks.ml.data.images import near_duplicates

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def photos() -> Pixels:
    """Return `(120, 32, 32, 3)` images of shapes of many sizes."""
    random = np.random.default_rng(0)
    layers = [random.integers(0, 256, (120, side, side, 3), dtype=np.uint8) for side in (3, 6, 12)]
    resized = [np.stack([np.asarray(Image.fromarray(one).resize((32, 32))) for one in some]) for some in layers]
    pixels: Pixels = np.mean(resized, axis=0).astype(np.uint8)
    return pixels


@pytest.fixture(scope="module")
def digits() -> Pixels:
    """Return `(300, 8, 8)` handwritten digits."""
    pixels: Pixels = (load_digits().images[:300] * 15.9).astype(np.uint8)
    return pixels


def compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=70)
    return Image.open(file)


def without(left: float, top: float, right: float, bottom: float) -> Callable[[Image.Image], Image.Image]:
    """Return a function that cuts off parts of the sides."""
    return lambda image: image.resize((100, 100), box=(32 * left, 32 * top, 32 * (1 - right), 32 * (1 - bottom)))


def found(x: Pixels) -> list[tuple[int, int]]:
    return near_duplicates.find(x, np.arange(len(x)))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: ImageEnhance.Brightness(image.resize((99, 70))).enhance(1.1),
        compressed,
        without(0.05, 0.05, 0.05, 0.05),
        without(0, 0, 0.06, 0.06),
    ],
)
def test_changed_copies_of_photos_are_found(photos: Pixels, change: Callable[[Image.Image], Image.Image]) -> None:
    copies = [change(Image.fromarray(one)).resize((32, 32), Image.Resampling.BILINEAR) for one in photos[:10]]
    pairs = found(np.concatenate([photos, np.stack(copies)]))
    assert set(pairs) <= {(row, 120 + row) for row in range(10)}
    assert len(pairs) >= 8  # a crop is told only if every side of the image shows something


def test_different_images_are_no_duplicates(photos: Pixels, digits: Pixels) -> None:
    assert found(photos) == found(photos.mean(axis=3).astype(np.uint8)) == found(digits) == []
    # Parts of one photo that overlap by half, and an image in other colours.
    swapped = photos[:1, :, :, ::-1]
    assert found(np.concatenate([photos, np.roll(photos[:1], 16, axis=1), swapped])) == []


def test_drawings_of_one_kind_are_no_duplicates() -> None:
    random = np.random.default_rng(0)
    down, across = np.mgrid[-16:16, -16:16]
    angle = random.uniform(0, 2 * np.pi, (180, 1, 1))
    is_ahead = across * np.cos(angle) + down * np.sin(angle) > 0
    hands = 240 * np.clip(2 - np.abs(across * np.sin(angle) - down * np.cos(angle)), 0, 1) * is_ahead
    assert found((hands + random.integers(0, 6, (180, 32, 32))).astype(np.uint8)) == []


def test_copies_of_small_drawings_are_found(digits: Pixels) -> None:
    noise = np.random.default_rng(0).normal(0, 4, (40, 8, 8))
    copies = (digits[:40] * 0.9 + noise).clip(0, 255).astype(np.uint8)
    pairs = found(np.concatenate([digits, copies]))
    assert set(pairs) <= {(row, 300 + row) for row in range(40)}
    assert len(pairs) >= 36
    everyone = np.concatenate([digits, (digits * 0.9).astype(np.uint8) + random_bits(digits.shape)])
    assert len(found(everyone)) >= 290  # the background is then seen from the second neighbours on


def random_bits(shape: tuple[int, ...]) -> Pixels:
    return np.random.default_rng(1).integers(0, 2, shape, dtype=np.uint8)


def test_many_copies_of_one_image_are_found_and_those_among_many_images() -> None:
    random = np.random.default_rng(0)
    many = random.integers(0, 256, (10_400, 4, 5), dtype=np.uint8)
    many[10_390:] = (many[7] * 0.9).astype(np.uint8) + random.integers(0, 2, (10, 4, 5), dtype=np.uint8)
    some = np.delete(np.arange(len(many)), [9, 10_395])  # blank ones and equal ones are left out
    pairs = near_duplicates.find(many, some)
    assert {image for pair in pairs for image in pair} == {7, *range(10_390, 10_400)} - {10_395}


def test_the_smallest_folders_and_images_have_no_duplicates() -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 9, 9), dtype=np.uint8)
    for count in range(5):
        assert found(x[:count]) == []
    assert found(np.random.default_rng(0).integers(0, 256, (50, 3, 90), dtype=np.uint8)) == []
    half_blank = np.zeros((30, 16, 16), np.uint8)
    half_blank[:, :9, :9] = np.random.default_rng(0).integers(0, 256, (30, 9, 9))
    assert found(half_blank) == []
