"""Decode image files for a model: unchanged, or turned upright and resized as a user's training images are."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from hallmark.tasks.common.errors import InputError

VERSION = 2
"""Version of `decode`. Increase it when the output of `decode` changes, so that cached pixels are decoded again."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM", "TIFF", *(["AVIF"] if find_spec("PIL._avif") else []))
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
    format: str = "PNG"
    """Pillow's name of the format."""
    is_deep: bool = False
    """Whether a pixel, or a colour of it, has more than eight bits."""
    has_transparency: bool = False


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
        with _opened(file) as image:
            _check(image, file, shape)
            return np.asarray(image.convert("L"))


def read_resized(file: Path, shape: Shape, bits: int = 0, *, on_black: bool = False) -> NDArray[np.uint8]:
    """Decode an image of any size as training images are decoded; see `decode`.

    Raises:
        InputError: the file cannot be read or is a decompression bomb.
    """
    with _refusals(file), quiet():
        header(file)
        return decode(file, shape, bits, on_black=on_black)


def header(file: Path) -> Header:
    """Read the header of a file without decoding it. Call it within `quiet`.

    Raises:
        Exception: the file cannot be read; the error is the decoder's. A `ValueError` if the image exceeds Pillow's
            limit of 89 million pixels (a decompression bomb).
    """
    try:
        with _opened(file) as image:
            # Pillow gives the size of a TIFF file upright.
            is_sideways = _orientation(image) >= 5 and image.format != "TIFF"
            sides = (image.width, image.height) if is_sideways else (image.height, image.width)
            return Header(
                *sides,
                has_colour=image.mode not in GREY,
                format=str(image.format),
                is_deep=_is_deep(image),
                has_transparency=image.has_transparency_data,
            )
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels, as a decompression bomb would: reduce its size"
        ) from error


def decode(file: Path, shape: Shape, bits: int = 0, *, on_black: bool = False) -> NDArray[np.uint8]:
    """Decode an image, turn it upright by its EXIF orientation, and resize it without keeping its aspect ratio.

    Transparent pixels are blended with white or black; only the first image of a file is read. Call it within `quiet`.

    Args:
        file: path of the image, whose `header` has been read.
        shape: target shape, `(H, W)` or `(H, W, 3)`; colours are converted to grey or grey to colour as needed.
        bits: bits in use of files with more than eight bits, of which the upper eight are kept; 0 refuses such files.
        on_black: whether transparent pixels are blended with black. Default: with white.

    Raises:
        Exception: the image cannot be decoded; the error is the decoder's.
    """
    height, width = shape[:2]
    with _opened(file) as image:
        is_deep = _is_deep(image)
        longer = SHRUNK * max(height, width)
        image.draft(None, (longer, longer))
        image.load()
        plain = _plain(_eight_bits(image, bits) if is_deep else image, "RGB" if len(shape) == 3 else "L", on_black)
        turn = _TURNS.get(_orientation(image))
        upright = plain.transpose(turn) if turn is not None else plain
        if upright.size != (width, height):
            upright = upright.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(upright)


def bits_in_use(file: Path) -> int:
    """Return the bits that the largest value of a file with more than eight bits needs: 8, 10, 12, 14 or 16.

    Raises:
        Exception: the file cannot be decoded, or the range of its values is unknown.
    """
    with _opened(file) as image:
        image.load()
        if _is_grey_and_deep(image):
            values, is_visible = _levels(image)
            highest = int(values[is_visible].max(initial=0))
        else:
            bands = image.split()
            highest = 256 * max(int(np.asarray(band).max()) for band in bands[:3]) + 255
    return next(bits for bits in (8, 10, 12, 14, 16) if highest < 2**bits)


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
def _opened(file: Path) -> Iterator[Image.Image]:
    """Open an image. If Pillow gets the name of a file, it maps a turned TIFF file into memory in the wrong shape."""
    with file.open("rb") as stream, Image.open(stream, formats=FORMATS) as image:
        yield image


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
    """Return the EXIF orientation, which XMP may give as well; 1 (upright) if there is none."""
    try:
        # Not the method of PNG files, which decodes the image first.
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - damaged metadata does not make the image unreadable
        return 1


def _is_grey_and_deep(image: Image.Image) -> bool:
    return image.mode[0] in "IF"


def _is_deep(image: Image.Image) -> bool:
    """Return whether an opened image, which is not yet loaded, has more than eight bits of grey or of a colour."""
    has_deep_colours = image.format in ("PNG", "TIFF") and ";16" in str(getattr(image, "tile", ""))
    return _is_grey_and_deep(image) or has_deep_colours


def _eight_bits(image: Image.Image, bits: int) -> Image.Image:
    """Reduce an image with more than eight bits to the upper eight of the bits in use; keep its transparency."""
    if not bits:
        raise ValueError("has more than eight bits, and no training image has: convert it to eight bits")
    if not _is_grey_and_deep(image):
        if bits != 16 or "transparency" in image.info:
            raise ValueError("has colours of 16 bits, not all in use or one transparent: convert it to eight bits")
        return image  # Pillow has kept the upper eight bits
    values, is_visible = _levels(image)
    if (highest := int(values[is_visible].max(initial=0))) >= 2**bits:
        raise ValueError(
            f"has the value {highest}, more than the {2**bits - 1} of {bits} bits that the training images use: "
            "convert it, or train with --data.bits 16"
        )
    grey = Image.fromarray((np.where(is_visible, values, 0) >> (bits - 8)).astype(np.uint8))
    if not is_visible.all():
        grey.putalpha(Image.fromarray(np.where(is_visible, np.uint8(255), np.uint8(0))))
    return grey


def _levels(image: Image.Image) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the values of a grey image with 16 bits, and which of them are not transparent; both `(H, W)`."""
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise ValueError(f"has pixels of unknown range (Pillow's mode {image.mode}): convert it to 8 or 16 bits")
    values = np.asarray(image).astype(np.int64)
    is_visible = values != image.info.get("transparency", -1)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = 65535 - values  # Pillow does so itself for eight bits only
    return values, is_visible


_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
"""Number and value of a tag of TIFF 6.0."""


def _plain(image: Image.Image, mode: str, on_black: bool) -> Image.Image:  # noqa: FBT001 - private
    """Convert to `mode`, and blend transparent pixels with white or black."""
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        background = Image.new("RGBA", colours.size, "black" if on_black else "white")
        image = Image.alpha_composite(background, colours)
    return image if image.mode == mode else image.convert(mode)
