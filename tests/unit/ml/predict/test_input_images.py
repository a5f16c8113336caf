import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hallmark.tasks.ml.predict import input_rows
from tests.support import photographed
from tests.support.prediction_rows import GREY, read, refused, write
from tests.unit.ml.data.images.test_image_file import bomb


def test_an_array_contains_one_or_many_images(tmp_path: Path) -> None:
    images = np.arange(7 * 12, dtype=np.uint8).reshape(7, 3, 4)
    np.save(tmp_path / "many.npy", images)
    np.save(tmp_path / "one.npy", images[5])
    rows, feeds = read(tmp_path / "many.npy", GREY)
    assert rows == list(range(1, 8))
    np.testing.assert_array_equal(feeds["image"], images)
    rows, feeds = read(tmp_path / "one.npy", GREY)
    assert rows == [1]
    np.testing.assert_array_equal(feeds["image"], images[5:6])


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 3, 4)), np.zeros((2, 4, 3), np.uint8), np.zeros((1, 2, 3, 4), np.uint8), np.zeros(12, np.uint8)],
)
def test_an_array_of_other_images_is_refused(tmp_path: Path, array: NDArray[np.generic]) -> None:
    np.save(tmp_path / "x.npy", array)
    message = refused(tmp_path / "x.npy", GREY)
    assert "expected uint8 of shape (N, 3, 4) or (3, 4), found " in message
    assert str(array.shape) in message


def test_an_image_and_a_folder_of_images_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4), dtype=np.uint8)
    for name, pixels in zip("cabed", images, strict=True):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / ".DS_Store").touch()
    rows, feeds = read(tmp_path / "c.png", GREY)
    assert rows == ["c.png"]
    np.testing.assert_array_equal(feeds["image"], images[:1])
    monkeypatch.setattr(input_rows, "ROWS_AT_ONCE", 2)
    rows, feeds = read(tmp_path, GREY)
    assert rows == [f"{name}.png" for name in "abcde"]
    np.testing.assert_array_equal(feeds["image"], images[[1, 2, 0, 4, 3]])


def test_an_image_of_one_bit_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0, 0, 0], [255, 255, 255, 255], [0, 255, 0, 255]], np.uint8)).convert("1").save(
        tmp_path / "x.png"
    )
    _, feeds = read(tmp_path / "x.png", GREY)
    assert feeds["image"].tolist() == [[[0, 0, 0, 0], [255, 255, 255, 255], [0, 255, 0, 255]]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16"])
def test_an_image_of_another_mode_is_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 3)).save(tmp_path / "x.png")
    assert f"x.png: expected a grey image (mode L), found mode {mode}" in refused(tmp_path / "x.png", GREY)


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    Image.new("L", (3, 4)).save(tmp_path / "x.png")
    assert "x.png: expected 3 x 4 pixels (height x width), found 4 x 3" in refused(tmp_path / "x.png", GREY)
    Image.new("1", (10_000, 10_000)).save(tmp_path / "x.png")  # Pillow warns about the size
    assert "x.png: cannot be read as an image: Image size" in refused(tmp_path / "x.png", GREY)


def test_several_images_in_one_file_are_refused(tmp_path: Path) -> None:
    one = Image.new("L", (4, 3))
    one.save(tmp_path / "x.tif", save_all=True, append_images=[one, one])
    assert "expected one image, found 3 in one file" in refused(tmp_path / "x.tif", GREY)


def test_files_that_are_not_images_are_refused(tmp_path: Path) -> None:
    assert "cannot be read as an image" in refused(write(tmp_path / "x.png", "no image"), GREY)
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(tmp_path / "x.png")
    os.truncate(tmp_path / "x.png", 45)
    assert "x.png: cannot be read as an image" in refused(tmp_path / "x.png", GREY)


def test_one_unreadable_image_of_a_folder_is_left_out_and_listed(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.webp"):
        photographed.save(tmp_path / name, np.full((9, 9), 7, np.uint8))
    for junk in ("Thumbs.db", "._a.png"):
        write(tmp_path / junk, "")
    resized = (replace(GREY[0], resized=True),)
    write(tmp_path / "notes.txt", "no image")
    source = input_rows.open_source(str(tmp_path), resized)
    assert [name for batch in source.batches for name in batch.rows] == ["a.png", "b.png", "c.webp"]
    (reason,) = source.unreadable
    assert "notes.txt: is no image" in reason
    bomb(tmp_path / "bomb.png", 30_000)
    assert "too many of 5 files cannot be read: remove them" in refused(tmp_path, resized)


def test_a_folder_without_images_or_with_a_folder_is_refused(tmp_path: Path) -> None:
    assert "has no rows" in refused(tmp_path, GREY)
    write(tmp_path / "notes.txt", "")
    assert "notes.txt: is no image" in refused(tmp_path, GREY)
    (tmp_path / "0.png").mkdir()
    assert "expected only images, found the folder '0.png'" in refused(tmp_path, GREY)
