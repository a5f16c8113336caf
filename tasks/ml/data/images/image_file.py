"""Decode image files for a model: unchanged, or turned upright and resized as a user's training images are."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.data.images.image_folder import as_text

VERSION = 1
"""Version of `decode`. Increase it when the output of `decode` changes, so that cached pixels are decoded again."""
READABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP")
"""Pillow's names of the accepted formats. Pillow knows others, some of which run external programs."""
MODES = ("L", "1")
"""Pillow's modes of grey images with eight bits and with one."""
GREY = (*MODES, "LA", "La", "I", "I;16", "I;16B", "F")
"""Pillow's modes without colour."""
SHRUNK = 2
"""Smallest factor between the size at which a JPEG is decoded and the target size. Decoding at reduced size is much
faster and hardly visible."""

Shape = tuple[int, ...]
"""`(H, W)` for grey images, `(H, W, 3)` for colour images."""


@dataclass(frozen=True, slots=True)
class Header:
    """Facts about an image that are known before any pixel is decoded."""

    height: int
    width: int
    """Height and width in pixels, after turning the image upright."""
    has_colour: bool


def files(folder: Path) -> list[Path]:
    """Return the images of a folder, sorted by name, without hidden files.

    Raises:
        InputError: the folder contains anything else.
    """
    images = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    for file in images:
        if file.suffix.lower() not in READABLE_SUFFIXES or not file.is_file():
            raise InputError(
                f"{folder}: expected only images ({', '.join(READABLE_SUFFIXES)}), found '{as_text(file.name)}'"
            )
    return images


def read(file: Path, shape: Shape) -> NDArray[np.uint8]:
    """Decode a grey image, `(H, W) uint8`, without scaling, cropping or converting it.

    Args:
        file: path of the image.
        shape: height and width that the model takes.

    Raises:
        InputError: the file cannot be read, or has another size or mode.
    """
    with _refusals(file), warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow warns of extremely large images
        with Image.open(file, formats=FORMATS) as image:
            _check(image, file, shape)
            return np.asarray(image.convert("L"))


def read_resized(file: Path, shape: Shape) -> NDArray[np.uint8]:
    """Decode an image of any size as training images are decoded; see `decode`.

    Raises:
        InputError: the file cannot be read or is a decompression bomb.
    """
    with _refusals(file), quiet():
        header(file)
        return decode(file, shape)


def header(file: Path) -> Header:
    """Read the header of a file without decoding it. Call it within `quiet`.

    Raises:
        InputError: the image exceeds Pillow's limit of 89 million pixels (a decompression bomb).
        Exception: the file cannot be read; the error is the decoder's.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            is_sideways = _orientation(image) >= 5
            sides = (image.width, image.height) if is_sideways else (image.height, image.width)
            return Header(*sides, has_colour=image.mode not in GREY)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"{file}: has more than {Image.MAX_IMAGE_PIXELS:,} pixels, as a decompression bomb would: "
            "reduce its size or remove it"
        ) from error


def decode(file: Path, shape: Shape) -> NDArray[np.uint8]:
    """Decode an image, turn it upright by its EXIF orientation, and resize it without keeping its aspect ratio.

    Transparent pixels are blended with white; 16-bit pixels keep their upper eight bits; only the first image of a file
    is read. Call it within `quiet`.

    Args:
        file: path of the image, whose `header` has been read.
        shape: target shape, `(H, W)` or `(H, W, 3)`; colours are converted to grey or grey to colour as needed.

    Raises:
        Exception: the image cannot be decoded; the error is the decoder's.
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
    """Ignore decoder warnings about damaged metadata, and raise those about decompression bombs.

    It affects the whole process: enter it once, before starting threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def describe_error(error: Exception) -> str:
    """Return a decoder's error as one short line."""
    if isinstance(error, UnidentifiedImageError):
        return "its format is unknown"  # Pillow's message repeats the path
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def _refusals(file: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{file}: cannot be read as an image: {describe_error(error)}") from error


def _check(image: Image.Image, file: Path, shape: Shape) -> None:
    if image.mode not in MODES:
        raise InputError(f"{file}: expected a grey image (mode L), found mode {image.mode}: convert it to grey first")
    if (image.height, image.width) != shape:
        raise InputError(
            f"{file}: expected {shape[0]} x {shape[1]} pixels (height x width), "
            f"found {image.height} x {image.width}: scale it like the training images"
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
"""Transpositions that turn an image upright, by EXIF orientation."""


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 (upright) if there is none."""
    if "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - damaged metadata does not make the image unreadable
        return 1


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """Convert to `mode`, and blend transparent pixels with white."""
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    elif image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int32) >> 8).clip(0, 255).astype(np.uint8))
    return image if image.mode == mode else image.convert(mode)
