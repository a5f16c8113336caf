"""Image files as a model takes them: as they are, or turned upright and resized as the images of one's own are."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from hallmark.tasks.common.errors import InputError

VERSION = 1
"""Raised by whoever changes what `decode` gives: pixels that were decoded before are decoded anew."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP")
"""What Pillow calls them. It knows others, some of which run programs."""
MODES = ("L", "1")
"""What Pillow calls grey, in eight bits and in one."""
GREY = (*MODES, "LA", "La", "I", "I;16", "I;16B", "F")
"""Modes without colour."""
SHRUNK = 2
"""A JPEG may be decoded smaller than it is, though never less than so many times the size that is wanted: that takes a
fraction of the time, and is hardly seen."""

Shape = tuple[int, ...]
"""`(H, W)` of a grey image, `(H, W, 3)` of one in colour."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of its image before any pixel is decoded."""

    height: int
    width: int
    """Pixels, seen upright."""
    has_colour: bool


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


def read(file: Path, shape: Shape) -> NDArray[np.uint8]:
    """Decode a grey image, `(H, W) uint8`. Nothing is scaled, cut or made grey: that would be another image.

    Args:
        file: its path.
        shape: height and width, as the model takes it.

    Raises:
        InputError: it cannot be read, or has another size or mode.
    """
    with _refusals(file), warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow warns of sizes that nobody trained on
        with Image.open(file, formats=FORMATS) as image:
            _check(image, file, shape)
            return np.asarray(image.convert("L"))


def read_resized(file: Path, shape: Shape) -> NDArray[np.uint8]:
    """Decode an image of any size as those of one's own are decoded for training: see `decode`.

    Raises:
        InputError: it cannot be read, or is larger than anybody's image.
    """
    with _refusals(file), quiet():
        header(file)
        return decode(file, shape)


def header(file: Path) -> Header:
    """Look at a file without decoding it, within `quiet`.

    Raises:
        InputError: it has more pixels than Pillow takes for an image (89 million): a decompression bomb.
        Exception: it cannot be read; what is raised is the decoder's.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            sides = (image.width, image.height) if _lies(image) else (image.height, image.width)
            return Header(*sides, has_colour=image.mode not in GREY)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"{file}: has more than {Image.MAX_IMAGE_PIXELS:,} pixels, as a decompression bomb would: "
            "make it smaller, or take it away"
        ) from error


def decode(file: Path, shape: Shape) -> NDArray[np.uint8]:
    """Decode an image, turn it upright as its EXIF data says, and resize it, its sides each by their own factor.

    Transparent pixels lie on white; of 16 bits the upper eight are kept. Of several images in a file the first counts.
    To be called within `quiet`.

    Args:
        file: its path, whose `header` was looked at.
        shape: what is wanted, `(H, W)` or `(H, W, 3)`; an image in colour is made grey, or a grey one grey in colour.

    Raises:
        Exception: it cannot be decoded; what is raised is the decoder's.
    """
    height, width = shape[:2]
    with Image.open(file, formats=FORMATS) as image:
        longer = SHRUNK * max(height, width)
        image.draft(None, (longer, longer))
        image.load()
        plain = _plain(image, "RGB" if len(shape) == 3 else "L")
        turn = _TURNS.get(_orientation(image))
        upright = plain.transpose(turn) if turn is not None else plain
        if upright.size != (width, height):
            upright = upright.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(upright)


@contextmanager
def quiet() -> Iterator[None]:
    """Let decoders keep to themselves what they think of damaged metadata, and raise what they think of size.

    Of the whole process: enter it once, before any thread begins.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def why(error: Exception) -> str:
    """What a decoder said, in one short line."""
    if isinstance(error, UnidentifiedImageError):
        return "its format is unknown"  # Pillow's own words repeat the path
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def _refusals(file: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{file}: cannot be read as an image: {why(error)}") from error


def _check(image: Image.Image, file: Path, shape: Shape) -> None:
    if image.mode not in MODES:
        raise InputError(f"{file}: expected a grey image (mode L), found mode {image.mode}: convert it to grey first")
    if (image.height, image.width) != shape:
        raise InputError(
            f"{file}: expected {shape[0]} x {shape[1]} pixels (height x width), "
            f"found {image.height} x {image.width}: scale it as the training images were"
        )
    if (frames := getattr(image, "n_frames", 1)) != 1:
        raise InputError(f"{file}: expected one image, found {frames} in one file")


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its orientation in EXIF."""


def _orientation(image: Image.Image) -> int:
    """As EXIF has it; 1, upright, where it says nothing."""
    if "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - whatever the parser makes of damaged metadata, the image is still one
        return 1


def _lies(image: Image.Image) -> bool:
    return _orientation(image) >= 5


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """Of the mode that is wanted, and nothing transparent."""
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    elif image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int32) >> 8).clip(0, 255).astype(np.uint8))
    return image if image.mode == mode else image.convert(mode)
