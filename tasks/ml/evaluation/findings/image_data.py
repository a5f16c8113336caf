"""Findings on a user's images, before anything is trained on them.

To add a finding, write a function that returns it or None, and list the function in `CHECKS`.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import SPLITS, Dataset, Finding
from hallmark.tasks.ml.config.data import Data, Images
from hallmark.tasks.ml.data.dataset_store import split_digests
from hallmark.tasks.ml.data.images import cache, near_duplicates
from hallmark.tasks.ml.data.images.cache import Decoded
from hallmark.tasks.ml.data.splits import row_digests
from hallmark.tasks.ml.evaluation.findings import class_counts

FLAT = 4
"""An image is blank if the values of each of its colours differ by at most this much; JPEG changes values by 1 or 2."""
GREY = 4
"""An image is grey if the three colours of each pixel differ by at most this much."""
TOLD = 0.95
"""An attribute tells a class if it alone separates it from the others with this mean of both recalls ..."""
ENOUGH = 20
"""... and the class and the others have at least this many images each."""
LEAVES = 8
"""Maximum number of leaves of the decision tree that is fitted on an attribute."""
_CHUNK = 1_000
"""Images read at a time."""


@dataclass(frozen=True, slots=True)
class ExaminedImages:
    """Decoded images, and what one pass over their pixels has found."""

    data: Images
    images: Decoded
    digests: list[bytes]
    """SHA-256 of the pixels of each image."""
    split: NDArray[np.int64]
    """`(N,)` index in `SPLITS`."""
    is_blank: NDArray[np.bool_]
    """`(N,)`, whether an image has one colour."""
    is_grey: NDArray[np.bool_]
    """`(N,)`, whether an image of three colours is grey; True for all if the model takes grey images."""

    def pair(self, first: int, second: int) -> str:
        """Return two images in words."""
        return f"{self.images.names[first]} and {self.images.names[second]}"


def find(dataset: Dataset, data: Data, home: Path) -> tuple[Finding, ...]:
    """Return what is wrong with a user's images; empty for any other dataset.

    Args:
        dataset: the prepared splits.
        data: the data part of the experiment.
        home: Hallmark's home folder, which has the decoded images.
    """
    if not isinstance(data, Images):
        return ()
    examined = _examine(dataset, data, cache.read(data, home))
    return tuple(finding for check in CHECKS if (finding := check(examined)))


def _examine(dataset: Dataset, data: Images, images: Decoded) -> ExaminedImages:
    digests = [row.tobytes() for row in row_digests(images.x)]
    places = {digest: index for index, name in enumerate(SPLITS) for digest in split_digests(dataset, name)}
    blank, grey = [], []
    for start in range(0, len(images.x), _CHUNK):
        pixels = images.x[start : start + _CHUNK].astype(np.int16)
        blank.append(np.ptp(pixels, axis=(1, 2)).reshape(len(pixels), -1).max(axis=1) <= FLAT)
        is_colour = pixels.ndim == 4
        grey.append((np.ptp(pixels, axis=3).max(axis=(1, 2)) <= GREY) if is_colour else np.ones(len(pixels), np.bool_))
    # A folder for each split says where an image is, also if it is in several.
    split = images.split if data.split.method == "given" and images.split is not None else None
    if split is None:
        split = np.array([places.get(digest, 0) for digest in digests])
    return ExaminedImages(data, images, digests, split, np.concatenate(blank), np.concatenate(grey))


def _blank_images(examined: ExaminedImages) -> Finding | None:
    blank = np.flatnonzero(examined.is_blank)
    if not len(blank):
        return None
    is_transparent = any(examined.images.headers[index].has_transparency for index in blank)
    other = "black" if examined.data.background == "white" else "white"
    return Finding(
        "blank_images",
        f"{len(blank):,} of {len(examined.digests):,} images have one colour only, such as "
        f"{examined.images.names[blank[0]]}",
        f"--data.background {other}, if they are {examined.data.background} icons on a transparent background"
        if is_transparent
        else "remove them, or make sure that new images are blank for the same reason",
    )


def _image_in_two_classes(examined: ExaminedImages) -> Finding | None:
    first: dict[bytes, int] = {}
    pairs = []
    for index, digest in enumerate(examined.digests):
        other = first.setdefault(digest, index)
        if examined.images.y[other] != examined.images.y[index] and not examined.is_blank[index]:
            pairs.append((other, index))
    if not pairs:
        return None
    return Finding(
        "image_in_two_classes",
        f"{len(pairs):,} images are also in another class, such as {examined.pair(*pairs[0])}: their class cannot be "
        "learned",
        "keep each image in its own class only",
    )


def _duplicate_images(examined: ExaminedImages) -> Finding | None:
    copies = sum(count - 1 for count in Counter(examined.digests).values())
    blank = {examined.digests[index] for index in np.flatnonzero(examined.is_blank)}
    copies -= sum(digest in blank for digest in examined.digests) - len(blank)
    if not copies:
        return None
    first: dict[bytes, int] = {}
    pair = next(
        (other, index)
        for index, digest in enumerate(examined.digests)
        if (other := first.setdefault(digest, index)) != index and digest not in blank
    )
    are_together = examined.data.split.method == "content"
    where = "they are in one split" if are_together else "they may be in several splits, so that scores are optimistic"
    return Finding(
        "duplicate_images",
        f"{copies:,} of {len(examined.digests):,} images are copies of another one, such as {examined.pair(*pair)}: "
        f"{where}",
        "remove the copies" + ("" if are_together else ", or keep them in one split: --data.split.method content"),
    )


def _near_duplicates(examined: ExaminedImages) -> Finding | None:
    first = {digest: index for index, digest in reversed(list(enumerate(examined.digests)))}
    some = np.array(sorted(index for index in first.values() if not examined.is_blank[index]), np.int64)
    y, split = examined.images.y, examined.split
    pairs = near_duplicates.find(examined.images.x, some)
    pairs = [(a, b) for a, b in pairs if y[a] != y[b] or split[a] != split[b]]
    if not pairs:
        return None
    found = len({index for pair in pairs for index in pair if split[index] or y[pair[0]] != y[pair[1]]})
    return Finding(
        "near_duplicates",
        f"{found:,} images nearly equal an image of another split or class, such as {examined.pair(*pairs[0])}: scores "
        "are optimistic, or a class is wrong",
        "keep one of each, or put images of one origin into one split with folders train, val and test",
    )


def _rare_classes(examined: ExaminedImages) -> Finding | None:
    return class_counts.rare(examined.images.y[examined.split == 0], examined.images.classes)


def _imbalanced_classes(examined: ExaminedImages) -> Finding | None:
    return class_counts.imbalanced(examined.images.y[examined.split == 0], examined.images.classes)


def _class_by_colour(examined: ExaminedImages) -> Finding | None:
    if not (name := _told(examined, examined.is_grey[:, None])):
        return None
    mine = examined.images.y == examined.images.classes.index(name)
    kind = "grey" if examined.is_grey[mine].mean() > 0.5 else "in colour"
    return Finding(
        "class_by_colour",
        f"the images of class '{name}' are {kind}, and the others are not: the model may learn this instead of what "
        "they show",
        "--data.colour grey",
    )


def _class_by_size(examined: ExaminedImages) -> Finding | None:
    name = _told(examined, np.array([(one.height, one.width) for one in examined.images.headers]))
    return _by_file(examined, name, "size", [f"{one.width} x {one.height}" for one in examined.images.headers])


def _class_by_format(examined: ExaminedImages) -> Finding | None:
    formats = [f"{one.format}{' with transparency' * one.has_transparency}" for one in examined.images.headers]
    known = sorted(set(formats))
    name = _told(examined, np.array([[one == other for other in known] for one in formats]))
    return _by_file(examined, name, "format", formats)


def _by_file(examined: ExaminedImages, name: str | None, attribute: str, values: list[str]) -> Finding | None:
    """Return the finding that an attribute of the files tells a class, if there is such a class."""
    if name is None:
        return None
    mine = (examined.images.y == examined.images.classes.index(name)).tolist()
    most = [
        Counter(value for value, is_mine in zip(values, mine, strict=True) if is_mine == one).most_common(1)[0][0]
        for one in (True, False)
    ]
    return Finding(
        f"class_by_{attribute}",
        f"the {attribute} of the files tells whether an image is of class '{name}' (mostly {most[0]}) or not (mostly "
        f"{most[1]}): the model may learn its traces instead of what the images show",
        f"take or convert the images of all classes in the same {attribute}",
    )


def _told(examined: ExaminedImages, attribute: NDArray[np.generic]) -> str | None:
    """Return the first class that a decision tree tells by an attribute `(N, A)`: fitted on every second image."""
    from sklearn.tree import DecisionTreeClassifier

    if len(np.unique(attribute, axis=0)) < 2:
        return None
    for label, name in enumerate(examined.images.classes):
        mine = examined.images.y == label
        if min(mine.sum(), (~mine).sum()) < ENOUGH:
            continue
        tree = DecisionTreeClassifier(max_leaf_nodes=LEAVES, class_weight="balanced", random_state=0)
        found = tree.fit(attribute[::2], mine[::2]).predict(attribute[1::2])
        truth = mine[1::2]
        if (found[truth].mean() + (~found[~truth]).mean()) / 2 >= TOLD:
            return name
    return None


CHECKS: tuple[Callable[[ExaminedImages], Finding | None], ...] = (
    _image_in_two_classes,
    _duplicate_images,
    _near_duplicates,
    _class_by_colour,
    _class_by_size,
    _class_by_format,
    _blank_images,
    _rare_classes,
    _imbalanced_classes,
)
"""All checks, in the order in which their findings are listed: what distorts scores most comes first."""
