"""Find images that look alike: a perceptual hash, and a comparison of thumbnails of those whose hashes are similar."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

DIFFERENT_BITS = 12
"""Maximum number of the 128 bits of a hash that differ between images that are compared further."""
CORRELATION = 0.995
"""Minimum correlation of the thumbnails of two images that look alike. At 0.98, 250 of 6,000 digits of MNIST do."""
SMALLEST = 16
"""Images with a shorter side have too few pixels: different drawings of 8 x 8 pixels look alike."""
SIDE = 16
"""Side of the thumbnails, in pixels."""
_CHUNK = 500
"""Images compared with all others at a time."""


def similar(x: NDArray[np.uint8], rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of images that look alike, as indices into `rows`, the smaller first.

    The hash has a bit for each pair of neighbours in 9 x 8 and 8 x 9 averaged areas that says which is brighter
    (dHash: Krawetz, "Kind of Like That", 2013), so that it survives resizing, compression and changes of brightness,
    but not cropping. Images smaller than `SMALLEST` are not compared.

    Args:
        x: `(N, H, W)` or `(N, H, W, 3)` images.
        rows: `(R,)` indices of the images to compare.
    """
    if min(x.shape[1:3]) < SMALLEST or not len(rows):
        return
    hashes, thumbnails = _describe(x, rows)
    for start in range(0, len(rows), _CHUNK):
        part = hashes[start : start + _CHUNK]
        apart = sum(np.bitwise_count(part[:, None, word] ^ hashes[None, start:, word]) for word in (0, 1))
        for first, second in np.argwhere(np.asarray(apart) <= DIFFERENT_BITS):
            if first < second and thumbnails[start + first] @ thumbnails[start + second] >= CORRELATION:
                yield int(start + first), int(start + second)


def _describe(x: NDArray[np.uint8], rows: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Return hashes `(R, 2)` and thumbnails `(R, SIDE * SIDE)` with mean 0 and length 1."""
    hashes, thumbnails = [], []
    for start in range(0, len(rows), _CHUNK):
        images = x[rows[start : start + _CHUNK]].astype(np.float32)
        grey: NDArray[np.float32] = images.mean(axis=3, dtype=np.float32) if images.ndim == 4 else images
        bits = np.concatenate(
            [
                (np.diff(_reduced(grey, 8, 9), axis=2) > 0).reshape(len(grey), 64),
                (np.diff(_reduced(grey, 9, 8), axis=1) > 0).reshape(len(grey), 64),
            ],
            axis=1,
        )
        hashes.append(np.packbits(bits, axis=1).view(np.uint64))
        small: NDArray[np.float32] = _reduced(grey, SIDE, SIDE).reshape(len(grey), -1)
        small -= small.mean(axis=1, keepdims=True)
        thumbnails.append(small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6))
    return np.concatenate(hashes), np.concatenate(thumbnails)


def _reduced(grey: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Average areas of images `(N, H, W)`; return `(N, height, width)`."""
    reduced = _areas(grey.shape[1], height) @ grey @ _areas(grey.shape[2], width).T
    return reduced.astype(np.float32, copy=False)


def _areas(size: int, target: int) -> NDArray[np.float32]:
    """Return the weights `(target, size)` that average `size` pixels over `target` intervals of equal length."""
    step = size / target
    low, pixel = np.arange(target)[:, None] * step, np.arange(size)[None]
    overlap = np.minimum(low + step, pixel + 1) - np.maximum(low, pixel)
    weights: NDArray[np.float32] = (np.clip(overlap, 0, None) / step).astype(np.float32)
    return weights
