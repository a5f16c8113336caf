"""Cache of a user's decoded images: all cores decode a folder once into one file of pixels, which is memory-mapped."""

import hashlib
import json
import logging
import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from hallmark.tasks.common.digests import SHOWN, check, digest_of
from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.common.file_locks import file_lock
from hallmark.tasks.common.files import whole_file, whole_folder
from hallmark.tasks.ml.config.data import Images
from hallmark.tasks.ml.data.images import image_file
from hallmark.tasks.ml.data.images.image_file import Header, Shape
from hallmark.tasks.ml.data.images.image_folder import SUFFIXES, Listing, Photo, are_too_many, as_text, list_images
from hallmark.tasks.ml.data.source_rows import Progress, ShowProgress

logger = logging.getLogger(__name__)

LARGEST = 64
"""Largest default side of images, in pixels. Larger images make training on a CPU slow."""
NAMED = 3
"""Number of unreadable files that a message names; a file lists all of them."""

_CHUNK_IMAGES = 64
"""Maximum number of images that a thread decodes at a time."""
_CHUNK_BYTES = 2**21
"""Maximum size of their pixels in bytes."""
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Unreadable = tuple[tuple[str, str], ...]
"""Names of files, each with the reason why it cannot be read."""
Found = tuple[Photo, NDArray[np.uint8] | str]
"""A file with its pixels, or with the reason why it cannot be read."""
Decode = Callable[[Path], NDArray[np.uint8] | str]
"""Takes a file, and returns its pixels or the reason why it cannot be read."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """All images of a folder."""

    x: NDArray[np.uint8]
    """`(N, H, W)` grey or `(N, H, W, 3)` colour, memory-mapped; ordered by class, then by name."""
    y: NDArray[np.int64]
    """`(N,)` class indices."""
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    """Sentences on how the images were converted and what was left out."""
    names: tuple[str, ...]
    """Paths relative to the folder."""
    headers: tuple[Header, ...]
    split: NDArray[np.int64] | None
    """`(N,)` index in `SPLITS`; None if the folder has no folders for splits."""
    bits: int
    """Bits in use of files with more than eight bits; 0 if there are none."""


def silent(what: str) -> AbstractContextManager[ShowProgress]:  # noqa: ARG001 - the signature of a `Progress`
    """Display no progress."""
    return nullcontext(lambda passed, total: None)  # noqa: ARG005 - the signature of a `ShowProgress`


def read(data: Images, home: Path, progress: Progress = silent) -> Decoded:
    """Decode a folder of images into `home/images`, or open the cached pixels if no file has changed.

    Names, sizes and modification times of the files show whether any has changed; if not, no image is opened. The file
    of pixels is written atomically, its digest is checked before use, and only a few images are in memory at a time.

    Args:
        data: the folder, and the size and colour mode of the images.
        home: Hallmark's home folder.
        progress: displays how many images have been processed.

    Raises:
        InputError: `list_images` refuses the folder, more files are unreadable than `data.unreadable` allows, or all
            files of a class are.
    """
    folder = Path(data.path)
    listing = list_images(folder)
    settings = {"folder": str(folder.resolve()), "height": data.height, "width": data.width, "colour": data.colour}
    target = home / "images" / digest_of(settings)[:SHOWN]
    found = [(photo.name, photo.size, photo.changed) for photo in listing.photos]
    converted = {"bits": data.bits, "background": data.background}
    key = digest_of([image_file.VERSION, PIL.__version__, settings | converted, found])
    with file_lock(home, f"images-{target.name}"):
        facts = _known(target, key) or _decode(listing, data, target, key, progress)
        pixels = np.memmap(target / "pixels.bin", np.uint8, "r", shape=(sum(facts["counts"]), *facts["shape"]))
    _refuse_unreadable(facts["unreadable"], listing, data, target)
    kept = _without(listing.photos, facts["unreadable"])
    splits = np.array([photo.split for photo in kept])
    return Decoded(
        x=np.asarray(pixels),
        y=np.array([photo.label for photo in kept]),
        classes=listing.classes,
        notes=_notes(facts, listing, target),
        names=tuple(as_text(photo.name) for photo in kept),
        headers=tuple(Header(*header) for header in facts["headers"]),
        split=splits if (splits >= 0).all() else None,
        bits=facts["bits"],
    )


def _known(target: Path, key: str) -> dict[str, Any] | None:
    """Return the facts of the cached pixels, or None if they are missing, damaged or out of date."""
    try:
        facts: dict[str, Any] = json.loads((target / "images.json").read_text())
        if facts["key"] != key:
            return None
        check(target / "pixels.bin", facts["sha256"])
        os.utime(target)  # `hallmark prune` keeps what was used recently
    except FileNotFoundError:
        return None
    except (DamagedError, ValueError, TypeError, KeyError) as error:
        logger.warning("decoded images %s are damaged and are decoded again: %s", target.name, error)
        return None
    return facts


def _decode(listing: Listing, data: Images, target: Path, key: str, progress: Progress) -> dict[str, Any]:
    """Read all headers, choose one conversion for all images, decode them, and write pixels and facts."""
    headers, bad = _headers(listing, progress)
    _refuse_unreadable(bad, listing, data, target)
    readable = _without(listing.photos, bad)
    _refuse_empty(readable, listing, bad)
    shape, why = choose_shape(list(headers.values()), data)
    deep = [listing.folder / name for name, header in headers.items() if header.is_deep]
    bits = data.bits or _bits_in_use(deep) if deep else 0
    image = partial(_image, shape=shape, bits=bits, on_black=data.background == "black")
    with whole_folder(target) as folder:
        counts, sha256, worse = _write(listing, readable, image, math.prod(shape), folder / "pixels.bin", progress)
        bad = tuple(sorted((*bad, *worse)))
        facts: dict[str, Any] = {
            "key": key,
            "sha256": sha256,
            "shape": shape,
            "why": why,
            "counts": counts,
            "unreadable": bad,
        }
        kept = _without(readable, worse)
        facts |= {"bits": bits, "headers": [astuple(headers[photo.name]) for photo in kept]}
        _refuse_empty(kept, listing, bad)
        (folder / "images.json").write_text(json.dumps(facts) + "\n")
    return facts


def _bits_in_use(files: Sequence[Path]) -> int:
    """Return the bits that the largest value of all files needs. Unreadable files are left out, as they will be."""

    def bits(file: Path) -> int:
        try:
            return image_file.bits_in_use(file)
        except Exception:  # noqa: BLE001 - the error is reported when the file is decoded
            return 8

    with ThreadPoolExecutor(_CORES) as pool, image_file.quiet():
        return max(pool.map(bits, files))


def choose_shape(headers: Sequence[Header], data: Images) -> tuple[Shape, str]:
    """Return the shape to which all images are converted, and the reason for it.

    The default size is that of more than half of the images if no side exceeds 64 pixels, else 64 x 64: neither
    changes when a few images are added. All images become colour images if any has colour.
    """
    if data.height and data.width:
        sides, why = (data.height, data.width), "as given"
    else:
        (common, count), *_ = Counter((one.height, one.width) for one in headers).most_common(1)
        is_common = 2 * count > len(headers) and max(common) <= LARGEST
        sides = common if is_common else (LARGEST, LARGEST)
        why = "as most are" if is_common else "the default; --data.height and --data.width set another"
    has_colour = any(one.has_colour for one in headers) if data.colour == "auto" else data.colour == "colour"
    return (*sides, 3) if has_colour else sides, why


def _headers(listing: Listing, progress: Progress) -> tuple[dict[str, Header], Unreadable]:
    """Return the headers of all readable files by name, and the unreadable files."""
    headers: dict[str, Header] = {}
    bad: list[tuple[str, str]] = []
    with image_file.quiet(), progress("looked at") as show:
        for passed, photo in enumerate(listing.photos, start=1):
            try:
                headers[photo.name] = _header(listing.folder, photo)
            except Exception as error:  # noqa: BLE001 - decoders raise many types; the error is reported with the file
                bad.append((photo.name, image_file.describe_error(error)))
            if passed % _CHUNK_IMAGES == 0:
                show(passed, len(listing.photos))
    return headers, tuple(bad)


def _header(folder: Path, photo: Photo) -> Header:
    if photo.size < 0:
        raise ValueError("is not a file")
    if not photo.name.lower().endswith(SUFFIXES):
        raise ValueError(f"is no image: expected a name that ends in {', '.join(SUFFIXES)}")
    return image_file.header(folder / photo.name)


def _write(
    listing: Listing, readable: Sequence[Photo], decode: Decode, size: int, path: Path, progress: Progress
) -> tuple[list[int], str, Unreadable]:
    """Write the pixels of all images. Return images per class, the file's SHA-256, and the unreadable files."""
    bad: list[tuple[str, str]] = []
    digest, counts = hashlib.sha256(), [0] * len(listing.classes)
    with path.open("wb") as file, image_file.quiet(), progress("decoded") as show:
        for passed, (photo, image) in enumerate(_by_all_cores(listing.folder, readable, decode, size), start=1):
            if isinstance(image, str):
                bad.append((photo.name, image))
            else:
                counts[photo.label] += 1
                digest.update(image.data)
                file.write(image.data)
            if passed % _CHUNK_IMAGES == 0:
                show(passed, len(readable))
    return counts, digest.hexdigest(), tuple(bad)


def _by_all_cores(folder: Path, readable: Sequence[Photo], decode: Decode, size: int) -> Iterator[Found]:
    """Decode with one thread per core; yield the images in order, with a bounded number of them waiting.

    Threads suffice because Pillow releases Python's lock while it decodes, and starting processes takes longer than
    decoding most folders.
    """
    together = max(1, min(_CHUNK_IMAGES, _CHUNK_BYTES // size))

    def decoded(start: int) -> list[Found]:
        return [(photo, decode(folder / photo.name)) for photo in readable[start : start + together]]

    waiting: deque[Future[list[Found]]] = deque()
    with ThreadPoolExecutor(_CORES) as pool:
        try:
            for start in range(0, len(readable), together):
                waiting.append(pool.submit(decoded, start))
                if len(waiting) > 2 * _CORES:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:  # after an interrupt, do not wait for them
                future.cancel()


def _image(file: Path, *, shape: Shape, bits: int, on_black: bool) -> NDArray[np.uint8] | str:
    try:
        return np.ascontiguousarray(image_file.decode(file, shape, bits, on_black=on_black))
    except Exception as error:  # noqa: BLE001 - decoders raise many types; the error is reported with the file
        return image_file.describe_error(error)


def _without(some: Sequence[Photo], bad: Unreadable) -> list[Photo]:
    names = dict(bad)
    return [photo for photo in some if photo.name not in names]


def _refuse_empty(readable: Sequence[Photo], listing: Listing, bad: Unreadable) -> None:
    left = {photo.label for photo in readable}
    for label, name in enumerate(listing.classes):
        if label not in left:
            names = {photo.name for photo in listing.photos if photo.label == label}
            first = next(f"{as_text(file)}: {why}" for file, why in bad if file in names)
            raise InputError(f"{listing.folder / name}: none of its files can be read as an image ({first})")


def _refuse_unreadable(bad: Unreadable, listing: Listing, data: Images, target: Path) -> None:
    """Refuse the folder if more files are unreadable than accepted."""
    if not are_too_many(len(bad), len(listing.photos), data.unreadable):
        return
    raise InputError(
        f"{listing.folder}: {_list_unreadable(bad, listing, target)}: more than the fraction of {data.unreadable:g} "
        "that --data.unreadable accepts"
    )


def _notes(facts: dict[str, Any], listing: Listing, target: Path) -> tuple[str, ...]:
    height, width, *colours = facts["shape"]
    summary = (
        f"{sum(facts['counts']):,} of {len(listing.classes)} classes, each resized to {height} x {width} pixels "
        f"({facts['why']}) and {'in colour' if colours else 'grey'}"
    )
    if facts["bits"]:
        summary += (
            f"; of files with more than eight bits, {facts['bits']} bits are in use, and the upper eight are kept"
        )
    return (summary, _list_unreadable(facts["unreadable"], listing, target)) if facts["unreadable"] else (summary,)


def _list_unreadable(bad: Unreadable, listing: Listing, target: Path) -> str:
    """Write the list of unreadable files, and return a sentence that names the first ones and the list."""
    path = target.with_name(f"{target.name}-unreadable.txt")
    with whole_file(path) as temporary:
        temporary.write_text("".join(f"{as_text(file)}\t{why}\n" for file, why in bad))
    total = len(listing.photos)
    first = "; ".join(f"{as_text(file)}: {why}" for file, why in bad[:NAMED])
    return f"{len(bad):,} of {total:,} files ({len(bad) / total:.1%}) cannot be read ({first}), listed in {path}"
