"""Folders of small generated image files. The two classes differ in colour and in the brighter side."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def drawn(label: int, seed: int, height: int = 12, width: int = 16) -> NDArray[np.uint8]:
    """Return `(H, W, 3)` pixels: dark noise, with red added on the left (label 0) or blue on the right (label 1)."""
    pixels = np.random.default_rng((label, seed)).integers(0, 90, (height, width, 3), dtype=np.uint8)
    side = slice(0, width // 2) if label == 0 else slice(width // 2, width)
    pixels[:, side, 0 if label == 0 else 2] += 150
    return pixels


def folder(path: Path, count: int = 20, height: int = 12, width: int = 16, suffix: str = ".png") -> Path:
    """Write two classes, `blue` and `red`, of `count` images each."""
    for label, name in enumerate(("red", "blue")):
        (path / name).mkdir(parents=True)
        for number in range(count):
            save(path / name / f"{number:03d}{suffix}", drawn(label, number, height, width))
    return path


def save(file: Path, pixels: NDArray[np.uint8], **options: object) -> Path:
    Image.fromarray(pixels).save(file, **options)  # type: ignore[arg-type]
    return file
