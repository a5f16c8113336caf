"""Measure how often the findings on images name a planted fault, and how often they name one in a clean folder.

Each folder has 3 classes of 60 images, drawn anew from a seed: scenes of shapes of many sizes, handwritten digits
(scikit-learn), and, if a folder of class folders is given, photos from it. Each fault is planted in folders of all
kinds. The last line is JSON. `python -m tests.bench.bench_image_findings [PHOTOS]`
"""

import io
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits

from hallmark.tasks.ml.config.data import Images
from hallmark.tasks.ml.data import dataset_store, sources
from hallmark.tasks.ml.evaluation.findings import image_data

CLASSES, COUNT, FOLDERS = 3, 60, 20
DETECTED, FALSE = 0.95, 0.02
"""Lowest accepted rate of detection, and highest accepted rate of false alarms for each finding."""

Pictures = list[list[Image.Image]]
"""Images of each class."""


def scenes(random: np.random.Generator) -> Pictures:
    def scene(label: int) -> Image.Image:
        layers = [
            np.asarray(Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).resize((32, 32)), float)
            for side in (2 + label, 6, 12)
        ]
        return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))

    return [[scene(label) for _ in range(COUNT)] for label in range(CLASSES)]


def digits(random: np.random.Generator) -> Pictures:
    bunch = load_digits()
    chosen = [random.choice(np.flatnonzero(bunch.target == label), COUNT, replace=False) for label in range(CLASSES)]
    return [[Image.fromarray((bunch.images[row] * 15.9).astype(np.uint8)) for row in rows] for rows in chosen]


def photos(folder: Path) -> Callable[[np.random.Generator], Pictures]:
    listed = [sorted(one.iterdir()) for one in sorted(folder.iterdir()) if one.is_dir()]

    def pick(random: np.random.Generator) -> Pictures:
        classes = random.choice(len(listed), CLASSES, replace=False)
        files = [random.choice(np.array(listed[one], object), COUNT, replace=False) for one in classes]
        return [[Image.open(file).copy() for file in some] for some in files]

    return pick


def copies(pictures: Pictures, _: np.random.Generator) -> None:
    for some in pictures:
        some += some[:5]


def two_classes(pictures: Pictures, _: np.random.Generator) -> None:
    pictures[1].append(pictures[0][7])


def imbalance(pictures: Pictures, _: np.random.Generator) -> None:
    del pictures[2][3:]


def grey(pictures: Pictures, _: np.random.Generator) -> None:
    pictures[0] = [one.convert("L").convert("RGB") for one in pictures[0]]
    pictures[1:] = [[Image.merge("RGB", (one, one.rotate(90), one.rotate(180))) if one.mode == "L" else one for one in some] for some in pictures[1:]]  # fmt: skip  # noqa: E501


def sizes(pictures: Pictures, random: np.random.Generator) -> None:
    pictures[0] = [one.resize(tuple(random.integers(80, 120, 2).tolist())) for one in pictures[0]]
    pictures[1:] = [[one.resize(tuple(random.integers(30, 70, 2).tolist())) for one in some] for some in pictures[1:]]


def blank(pictures: Pictures, _: np.random.Generator) -> None:
    pictures[1][4] = Image.new(pictures[1][4].mode, pictures[1][4].size)


def near(change: Callable[[Image.Image], Image.Image]) -> Callable[[Pictures, np.random.Generator], None]:
    """Add changed copies of a quarter of the images of a class."""

    def plant(pictures: Pictures, _: np.random.Generator) -> None:
        pictures[0] += [change(one) for one in pictures[0][: COUNT // 4]]

    return plant


def cropped(left: float, top: float, right: float, bottom: float) -> Callable[[Image.Image], Image.Image]:
    """Return a function that cuts off parts of the sides, and resizes what is left as a training does."""

    def change(image: Image.Image) -> Image.Image:
        box = (left * image.width, top * image.height, (1 - right) * image.width, (1 - bottom) * image.height)
        return image.resize((3 * image.width, 3 * image.height), Image.Resampling.BICUBIC, box)

    return change


def compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.resize((2 * image.width, 2 * image.height)).save(file, "JPEG", quality=70)
    return Image.open(file)


def noisy(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image) + np.random.default_rng(0).normal(0, 5, np.asarray(image).shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


UNSEEN = {"near: larger", "near: compressed"} | {
    f"near: {part}" for part in ("3 % cut off on each side", "5 % cut off on each side", "6 % cut off at a corner")
}
"""Near duplicates that are not looked for among digits of 8 x 8 pixels: they differ as much as digits do."""

FAULTS: dict[str, tuple[str, Callable[[Pictures, np.random.Generator], None]]] = {
    "15 of 195 copied": ("duplicate_images", copies),
    "one in two classes": ("image_in_two_classes", two_classes),
    "3 against 60": ("imbalanced_classes", imbalance),
    "a class of 3": ("rare_classes", imbalance),
    "one class grey": ("class_by_colour", grey),
    "one class of other sizes": ("class_by_size", sizes),
    "one class in JPEG": ("class_by_format", lambda *_: None),
    "one blank": ("blank_images", blank),
    "near: larger": ("near_duplicates", near(lambda one: one.resize((3 * one.width, 3 * one.height)))),
    "near: brighter": ("near_duplicates", near(lambda one: ImageEnhance.Brightness(one).enhance(1.2))),
    "near: noise": ("near_duplicates", near(noisy)),
    "near: compressed": ("near_duplicates", near(compressed)),
    "near: 3 % cut off on each side": ("near_duplicates", near(cropped(0.03, 0.03, 0.03, 0.03))),
    "near: 5 % cut off on each side": ("near_duplicates", near(cropped(0.05, 0.05, 0.05, 0.05))),
    "near: 6 % cut off at a corner": ("near_duplicates", near(cropped(0, 0, 0.06, 0.06))),
}


def found(pictures: Pictures, folder: Path, jpeg: int | None = None) -> set[str]:
    """Write images in PNG, those of one class in JPEG, and return the codes of the findings."""
    for label, some in enumerate(pictures):
        (folder / "photos" / str(label)).mkdir(parents=True)
        for number, picture in enumerate(some):
            picture.save(folder / "photos" / str(label) / f"{number}.{'jpg' if label == jpeg else 'png'}")
    data = Images.model_validate({"kind": "images", "path": str(folder / "photos")})
    home = folder / "home"
    dataset = dataset_store.prepare(sources.read(data, home), data, home)
    return {finding.code for finding in image_data.find(dataset, data, home)}


def main() -> None:
    kinds = {"scenes": scenes, "digits": digits}
    if len(sys.argv) > 1:
        kinds["photos"] = photos(Path(sys.argv[1]))
    false, detected, tried = Counter[str](), Counter[str](), Counter[str]()
    for name, draw in kinds.items():
        for seed in range(FOLDERS):
            with tempfile.TemporaryDirectory() as folder:
                false.update(found(draw(np.random.default_rng(seed)), Path(folder)))
            for fault, (code, plant) in FAULTS.items():
                if fault in UNSEEN and name == "digits":
                    continue
                random = np.random.default_rng((seed, 1))
                pictures = draw(random)
                plant(pictures, random)
                with tempfile.TemporaryDirectory() as folder:
                    detected[fault] += code in found(pictures, Path(folder), 0 if "JPEG" in fault else None)
                tried[fault] += 1
        print(name, dict(detected), dict(tried), dict(false), flush=True)
    rates = {fault: round(detected[fault] / tried[fault], 3) for fault in FAULTS}
    alarms = {code: round(count / (FOLDERS * len(kinds)), 3) for code, count in false.items()}
    is_reached = min(rates.values()) >= DETECTED and max(alarms.values(), default=0) <= FALSE
    print(json.dumps({"benchmark": "findings on images", "detected": rates, "false": alarms, "reached": is_reached}))


if __name__ == "__main__":
    main()
