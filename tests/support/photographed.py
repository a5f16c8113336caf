"""Folders of small generated image files. The two classes differ in colour and in the brighter side."""

import struct
import zlib
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


def kinds(path: Path) -> list[Path]:
    """Write photos of many kinds and sizes that a browser can decode as well: turned, transparent, with a palette."""
    path.mkdir()
    photos = [Image.fromarray(smooth(label, seed)) for seed in (1, 2) for label in (0, 1)]
    turned = Image.Exif()
    turned[0x0112] = 6
    alpha = Image.fromarray(np.linspace(0, 255, 120 * 90).astype(np.uint8).reshape(90, 120))
    transparent = photos[0].copy()
    transparent.putalpha(alpha)
    photos[0].save(path / "large.jpg", quality=95)
    photos[1].save(path / "turned.jpg", quality=95, exif=turned)
    photos[2].save(path / "turned.png", exif=turned)
    photos[3].convert("L").save(path / "grey.png")
    transparent.save(path / "transparent.png")
    transparent.convert("LA").save(path / "grey transparent.png")
    photos[1].quantize(16).save(path / "palette.png", transparency=3)
    photos[3].resize((7, 50)).save(path / "narrow.bmp")
    photos[2].save(path / "lossless.webp", lossless=True)
    photos[0].quantize(64).save(path / "first.gif", save_all=True, append_images=[photos[1].quantize(64)])
    return sorted(path.iterdir())


def deep_kinds(path: Path) -> list[Path]:
    """Write images of more than eight bits or of inverted grey; some of them have no known range and are refused."""
    path.mkdir()
    deep = np.linspace(0, 4095, 600).reshape(20, 30).astype(np.uint16)
    turned = Image.Exif()
    turned[0x0112] = 6
    save(path / "deep.png", deep)
    save(path / "transparent.png", deep, transparency=int(deep[9, 9]))
    save(path / "turned.png", deep, exif=turned)
    save(path / "turned.tiff", deep, exif=turned)
    save(path / "white is zero.tiff", 65535 - deep, tiffinfo={262: 0})
    save(path / "white is zero, compressed.tiff", 65535 - deep, tiffinfo={262: 0}, compression="tiff_lzw")
    save(path / "white is zero, all bits.tiff", deep, tiffinfo={262: 0})
    save(path / "white is zero, eight bits.tiff", (deep >> 4).astype(np.uint8), tiffinfo={262: 0})
    Image.fromarray(deep > 999).save(path / "white is zero, one bit.tiff", tiffinfo={262: 0})
    (path / "deep.pgm").write_bytes(b"P5 30 20 65535\n" + deep.astype(">u2").tobytes())
    colours_of_16_bits(path / "colours.png", deep[:, :, None].repeat(3, axis=2) * 16)
    save(path / "unknown range.tiff", deep.astype(np.int32))
    save(path / "fractions.tiff", (deep / 4095).astype(np.float32))
    return sorted(path.iterdir())


def colours_of_16_bits(file: Path, pixels: NDArray[np.uint16]) -> Path:
    """Write `(H, W, 3)` pixels as a PNG file of 16-bit colours, which Pillow cannot."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = pixels.shape
    head = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", zlib.compress(lines)) + part(b"IEND", b""))
    return file


def smooth(label: int, seed: int, height: int = 90, width: int = 120) -> NDArray[np.uint8]:
    """Return a photo of a class without sharp edges, on which decoders of JPEG differ little."""
    small = Image.fromarray(drawn(label, seed, 6, 8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
