"""Image files as a model takes them: grey, one byte a pixel, in the size that the model was trained on."""

import os
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.ml.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
MODES = ("L", "1")
"""What Pillow calls grey, in eight bits and in one."""


def files(folder: Path) -> list[Path]:
    """The images of a folder, sorted by name; what is hidden is left out.

    Raises:
        InputError: something else lies there.
    """
    found = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    for file in found:
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            raise InputError(f"{folder}: expected images alone ({', '.join(SUFFIXES)}), found '{name(file)}'")
    return found


def name(file: Path) -> str:
    """The name of a file, also where its bytes are no UTF-8."""
    return os.fsencode(file.name).decode(errors="replace")


def read(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Decode a grey image, `(H, W) uint8`. Nothing is scaled, cut or made grey: that would be another image.

    Args:
        file: its path.
        shape: height and width, as the model takes it.

    Raises:
        InputError: it cannot be read, or has another size or mode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow warns of sizes that nobody trained on
            with Image.open(file) as image:
                _check(image, file, shape)
                return np.asarray(image.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        raise InputError(f"{file}: cannot be read as an image: {' '.join(str(error).split())[:200]}") from error


def _check(image: Image.Image, file: Path, shape: tuple[int, ...]) -> None:
    if image.mode not in MODES:
        raise InputError(f"{file}: expected a grey image (mode L), found mode {image.mode}: convert it to grey first")
    if (image.height, image.width) != shape:
        raise InputError(
            f"{file}: expected {shape[0]} x {shape[1]} pixels (height x width), "
            f"found {image.height} x {image.width}: scale it as the training images were"
        )
    if (frames := getattr(image, "n_frames", 1)) != 1:
        raise InputError(f"{file}: expected one image, found {frames} in one file")
