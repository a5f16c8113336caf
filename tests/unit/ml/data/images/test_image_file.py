"""Decoding of image files of all kinds. How prediction refuses other images is tested with the readers."""

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.data.images import image_file
from tests.support import photographed

PIXELS = photographed.drawn(0, 0)
GREY = PIXELS[:, :, 0]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
def test_an_image_of_the_target_size_is_decoded_unchanged(tmp_path: Path, suffix: str) -> None:
    file = photographed.save(tmp_path / f"x{suffix}", PIXELS)
    np.testing.assert_array_equal(image_file.read_resized(file, PIXELS.shape), PIXELS)
    file = photographed.save(tmp_path / f"grey{suffix}", GREY)
    np.testing.assert_array_equal(image_file.read_resized(file, GREY.shape), GREY)


def test_grey_and_colour_are_converted_to_each_other(tmp_path: Path) -> None:
    grey = photographed.save(tmp_path / "grey.png", GREY)
    found = image_file.read_resized(grey, PIXELS.shape)
    np.testing.assert_array_equal(found, np.repeat(GREY[:, :, None], 3, axis=2))
    colour = photographed.save(tmp_path / "colour.png", PIXELS)
    expected = PIXELS @ np.array([0.299, 0.587, 0.114])  # ITU-R 601, as documented by Pillow
    assert np.abs(image_file.read_resized(colour, GREY.shape) - expected).max() <= 1


def test_an_image_is_resized_by_averaging(tmp_path: Path) -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    large = blocks.repeat(40, axis=0).repeat(30, axis=1)
    file = photographed.save(tmp_path / "large.png", large)
    found = image_file.read_resized(file, (120, 75, 3))
    np.testing.assert_array_equal(found[15::30, 7::15], blocks)
    flat = photographed.save(tmp_path / "flat.png", np.full((300, 70), 77, np.uint8))
    assert (image_file.read_resized(flat, (8, 8)) == 77).all()


def test_a_large_jpeg_is_decoded_at_reduced_size(tmp_path: Path) -> None:
    slope = np.linspace(0, 255, 1024).astype(np.uint8)[None].repeat(768, axis=0)
    file = photographed.save(tmp_path / "slope.jpg", slope, quality=95)
    expected = np.asarray(Image.fromarray(slope).resize((16, 12), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(image_file.read_resized(file, (12, 16)) - expected).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_an_image_is_turned_upright_by_its_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :12], upright[8:, 12:] = 255, 128
    # How a camera stores the image: EXIF 2.32, table 6.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = photographed.save(tmp_path / f"x{suffix}", np.ascontiguousarray(stored), exif=exif)
    assert np.abs(image_file.read_resized(file, (16, 24)).astype(int) - upright).max() <= 8
    header = image_file.header(file)
    assert (header.height, header.width) == (16, 24)


def test_transparent_pixels_are_blended_with_white(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0, 3] = 255
    photographed.save(tmp_path / "x.png", pixels)
    assert image_file.read_resized(tmp_path / "x.png", (2, 2)).tolist() == [[0, 255], [255, 255]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([9, 9, 9, 0, 0, 200])
    palette.save(tmp_path / "p.png", transparency=0)
    assert image_file.read_resized(tmp_path / "p.png", (1, 2, 3)).tolist() == [[[255] * 3, [0, 0, 200]]]


DEEP = np.array([[0, 255, 256, 2000, 4095]], np.uint16)


def white_is_zero(file: Path) -> None:
    Image.fromarray(65535 - DEEP).save(file, tiffinfo={262: 0})


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("x.png", lambda file: photographed.save(file, DEEP), [0, 15, 16, 125, 255]),
        ("x.tif", lambda file: photographed.save(file, DEEP), [0, 15, 16, 125, 255]),
        ("transparent.png", lambda file: photographed.save(file, DEEP, transparency=255), [0, 255, 16, 125, 255]),
        ("white.tif", white_is_zero, [0, 15, 16, 125, 255]),
    ],
)
def test_deep_pixels_keep_the_upper_eight_of_the_bits_in_use(
    tmp_path: Path, name: str, write: Callable[[Path], object], expected: list[int]
) -> None:
    file = tmp_path / name
    write(file)
    assert image_file.bits_in_use(file) == 12
    assert image_file.read_resized(file, (1, 5), 12).tolist() == [expected]
    header = image_file.header(file)
    assert (header.is_deep, header.has_colour) == (True, False)
    for bits, message in (
        (0, "more than eight bits, and no training image has"),
        (10, "the value 4095, more than the 1023"),
    ):
        with pytest.raises(InputError, match=message):
            image_file.read_resized(file, (1, 5), bits)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_unknown_range_are_refused(tmp_path: Path, kind: type[np.generic]) -> None:
    file = photographed.save(tmp_path / "x.tif", np.linspace(0, 1, 12).reshape(3, 4).astype(kind))
    with pytest.raises(InputError, match=r"x\.tif: .* has pixels of unknown range \(Pillow's mode [IF]\): convert it"):
        image_file.read_resized(file, (3, 4), 16)


def test_deep_colours_are_used_if_all_bits_are(tmp_path: Path) -> None:
    file = photographed.colours_of_16_bits(tmp_path / "x.png", np.array([[[0, 40000, 65535]]], np.uint16))
    assert image_file.bits_in_use(file) == 16
    assert image_file.read_resized(file, (1, 1, 3), 16).tolist() == [[[0, 156, 255]]]
    with pytest.raises(InputError, match="has colours of 16 bits, not all in use"):
        image_file.read_resized(file, (1, 1, 3), 12)


def test_orientation_is_also_read_from_xmp_and_a_raw_profile(tmp_path: Path) -> None:
    upright = np.zeros((16, 24), np.uint8)
    upright[:8] = 255
    stored = np.ascontiguousarray(upright.T[::-1])
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = exif.tobytes()
    profile, xmp = PngInfo(), PngInfo()
    profile.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n", zip=True)
    xmp.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="6"/>')
    photographed.save(tmp_path / "profile.png", stored, pnginfo=profile)
    photographed.save(tmp_path / "xmp.png", stored, pnginfo=xmp)
    photographed.save(tmp_path / "turned.tif", stored, exif=exif)
    for name in ("profile.png", "xmp.png", "turned.tif"):
        np.testing.assert_array_equal(image_file.read_resized(tmp_path / name, (16, 24)), upright, name)
        assert image_file.header(tmp_path / name).height == 16


def test_transparent_pixels_can_be_blended_with_black(tmp_path: Path) -> None:
    icon = np.full((2, 2, 4), 255, np.uint8)
    icon[0, 0, 3] = 0
    photographed.save(tmp_path / "x.png", icon)
    assert image_file.read_resized(tmp_path / "x.png", (2, 2), on_black=True).tolist() == [[0, 255], [255, 255]]


def test_an_image_with_damaged_metadata_is_decoded(tmp_path: Path) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"
    file = photographed.save(tmp_path / "x.jpg", GREY, exif=exif)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        assert image_file.read_resized(file, GREY.shape).shape == GREY.shape
    assert raised == []


def bomb(path: Path, side: int) -> Path:
    """Write a PNG of a few bytes whose header claims `side * side` pixels."""
    parts = (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99)))
    chunks = (struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused(tmp_path: Path, side: int) -> None:
    file = bomb(tmp_path / "bomb.png", side)

    message = "has more than 89,478,485 pixels, as a decompression bomb"
    with image_file.quiet(), pytest.raises(ValueError, match=message):
        image_file.header(file)
    with pytest.raises(InputError, match=rf"bomb\.png: cannot be read as an image: {message}"):
        image_file.read_resized(file, (8, 8))


@pytest.mark.parametrize("name", ["x.webp", "x.gif", "x.avif", "x.ppm"])
def test_other_formats_that_pillow_decodes_are_read(tmp_path: Path, name: str) -> None:
    if name.endswith("avif") and "AVIF" not in image_file.FORMATS:
        pytest.skip("this Pillow has no AVIF")
    later = Image.new("RGB", (8, 6), "white")
    frames = {"save_all": True, "append_images": [later]} if name.endswith("gif") else {}
    Image.new("RGB", (8, 6), (200, 40, 40)).save(tmp_path / name, **frames)
    assert np.abs(image_file.read_resized(tmp_path / name, (6, 8, 3)).astype(int) - [200, 40, 40]).max() <= 9


def test_a_file_that_is_not_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no image")
    with pytest.raises(InputError, match=r"x\.png: cannot be read as an image: its format is unknown"):
        image_file.read_resized(tmp_path / "x.png", (8, 8))
    whole = photographed.save(tmp_path / "y.png", PIXELS).read_bytes()
    (tmp_path / "y.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"y\.png: cannot be read as an image: .*truncated"):
        image_file.read_resized(tmp_path / "y.png", (8, 8))


def test_a_format_that_runs_a_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match="its format is unknown"):
        image_file.read_resized(tmp_path / "x.png", (8, 8))
