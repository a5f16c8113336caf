"""Each finding occurs for a folder of images that has it, and for no other."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hallmark.tasks.common.records import Finding
from hallmark.tasks.ml.config.data import Images
from hallmark.tasks.ml.evaluation.findings import image_data
from tests.conftest import prepare
from tests.support import photographed

SIDE = 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return two classes of 40 PNG files that differ in their content only."""
    for label, name in enumerate(("red", "blue")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(40):
            photographed.save(tmp_path / "photos" / name / f"{number:03d}.png", scene(label, number))
    return tmp_path / "photos"


def scene(label: int, seed: int) -> np.ndarray:
    """Return a photo of shapes of many sizes and colours; in class 1, they are more blue."""
    random = np.random.default_rng((label, seed))
    scales = [
        Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize((SIDE, SIDE), Image.BICUBIC)
        for side in (3, 6, 12)
    ]
    pixels = np.mean([np.asarray(one) for one in scales], axis=0)
    pixels[..., 2] += 20 * label
    return pixels.clip(0, 255).astype(np.uint8)


def examine(folder: Path, **given: object) -> dict[str, Finding]:
    split = {"method": "stratified"}
    data = Images.model_validate({"kind": "images", "path": str(folder), "split": split} | given)
    home = folder.parent / "home"
    return {found.code: found for found in image_data.find(prepare(data, home), data, home)}


def test_a_sound_folder_has_no_findings(folder: Path) -> None:
    assert examine(folder) == {}


def every_image_twice(folder: Path) -> None:
    for file in list(folder.glob("*/*")):
        shutil.copy(file, file.with_name(f"copy of {file.name}"))


def one_image_in_two_classes(folder: Path) -> None:
    shutil.copy(folder / "red" / "007.png", folder / "blue" / "x.png")


def far_fewer(folder: Path) -> None:
    for file in sorted((folder / "red").iterdir())[3:]:
        file.unlink()


def one_class_grey(folder: Path) -> None:
    for file in (folder / "red").iterdir():
        Image.open(file).convert("L").save(file)


def one_class_of_other_sizes(folder: Path) -> None:
    for number, file in enumerate((folder / "red").iterdir()):
        Image.open(file).resize((60 + number, 70)).save(file)


def one_class_in_jpeg(folder: Path) -> None:
    for file in list((folder / "red").iterdir()):
        Image.open(file).save(file.with_suffix(".jpg"), quality=95)
        file.unlink()


def two_blank(folder: Path) -> None:
    for number in (1, 2):
        photographed.save(folder / "red" / f"{number:03d}.png", np.full((SIDE, SIDE, 3), 90, np.uint8))


def white_icons(folder: Path) -> None:
    for number in range(1, 6):
        icon = np.full((SIDE, SIDE, 4), 255, np.uint8)
        icon[:, : SIDE - number, 3] = 0
        photographed.save(folder / "red" / f"{number:03d}.png", icon)


def recompressed(folder: Path) -> None:
    for number in range(20):
        image = Image.open(folder / "red" / f"{number:03d}.png").resize((2 * SIDE, 2 * SIDE))
        image.save(folder / "red" / f"{number + 60:03d}.jpg", quality=70)


def slightly_cropped(folder: Path) -> None:
    for number in range(20):
        image = Image.open(folder / "red" / f"{number:03d}.png").resize((80, 80), box=(1.5, 1, SIDE - 1, SIDE - 1.5))
        image.save(folder / "red" / f"{number + 60:03d}.png")


@pytest.mark.parametrize(
    ("change", "code", "message", "remedy"),
    [
        (every_image_twice, "duplicate_images", "80 of 160 images are copies of another one", "method content"),
        (one_image_in_two_classes, "image_in_two_classes", "1 images are also in another class, such as", ""),
        (far_fewer, "rare_classes", "fewer than 10 training rows each have the class red", "collect"),
        (one_class_grey, "class_by_colour", "the images of class 'blue' are in colour, and the others are not", "grey"),
        (one_class_of_other_sizes, "class_by_size", "image is of class 'blue' (mostly 32 x 32) or not (mostly", "size"),
        (one_class_in_jpeg, "class_by_format", "class 'blue' (mostly PNG) or not (mostly JPEG)", "in the same format"),
        (two_blank, "blank_images", "2 of 80 images have one colour only, such as red/001.png", "remove them"),
        (white_icons, "blank_images", "5 of 80 images have one colour only", "--data.background black"),
        (recompressed, "near_duplicates", "images nearly equal an image of another split or class", "keep one"),
        (slightly_cropped, "near_duplicates", "images nearly equal an image of another split or class", "keep one"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_named_with_its_remedy(
    folder: Path, change: Callable[[Path], None], code: str, message: str, remedy: str
) -> None:
    change(folder)
    found = examine(folder)
    assert message in found[code].sentence
    assert remedy in found[code].remedy
    if change is one_class_grey:  # what the remedy says removes the finding
        assert "class_by_colour" not in examine(folder, colour="grey")
    if change is white_icons:
        assert "blank_images" not in examine(folder, background="black")
