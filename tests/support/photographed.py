"""Folders of real image files, drawn small: a class is told from another by its colour and its side."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def drawn(label: int, seed: int, height: int = 12, width: int = 16) -> NDArray[np.uint8]:
    """`(H, W, 3)`: dark noise, red on the left where the label is 0 and blue on the right where it is 1."""
    pixels = np.random.default_rng((label, seed)).integers(0, 90, (height, width, 3), dtype=np.uint8)
    side = slice(0, width // 2) if label == 0 else slice(width // 2, width)
    pixels[:, side, 0 if label == 0 else 2] += 150
    return pixels


def folder(path: Path, count: int = 20, height: int = 12, width: int = 16, suffix: str = ".png") -> Path:
    """Two classes, `blue` and `red`, of so many images each, in files."""
    for label, name in enumerate(("red", "blue")):
        (path / name).mkdir(parents=True)
        for number in range(count):
            save(path / name / f"{number:03d}{suffix}", drawn(label, number, height, width))
    return path


def save(file: Path, pixels: NDArray[np.uint8], **options: object) -> Path:
    Image.fromarray(pixels).save(file, **options)  # type: ignore[arg-type]
    return file
