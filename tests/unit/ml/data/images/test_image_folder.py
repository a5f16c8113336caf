import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.data.images import image_folder
from tests.support import photographed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photographed.folder(tmp_path / "photos", count=2)


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        image_folder.list_images(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_classes_and_files_are_listed_in_the_order_of_their_names(folder: Path) -> None:
    (folder / "blue" / "a.JPG").write_bytes(b"x")
    listing = image_folder.list_images(folder)
    assert listing.classes == ("blue", "red")
    names = ["blue/000.png", "blue/001.png", "blue/a.JPG", "red/000.png", "red/001.png"]
    assert [photo.name for photo in listing.photos] == names
    assert [photo.label for photo in listing.photos] == [0, 0, 0, 1, 1]
    assert listing.photos[2].size == 1
    assert listing.photos[0].changed == (folder / "blue" / "000.png").stat().st_mtime_ns


def test_hidden_files_and_other_files_beside_the_classes_are_ignored(folder: Path) -> None:
    before = image_folder.list_images(folder)
    (folder / ".cache").mkdir()
    (folder / "README.txt").write_text("about")
    for name in (".DS_Store", "._000.png", "Thumbs.db", "desktop.ini"):
        (folder / "red" / name).write_text("x")
    for place in (folder, folder / "red"):
        (place / "__MACOSX").mkdir()
    assert image_folder.list_images(folder) == before


def empty(folder: Path) -> None:
    (folder / "green").mkdir()
    (folder / "green" / ".hidden.png").write_bytes(b"")


def single_class(folder: Path) -> None:
    for file in (folder / "red").iterdir():
        file.unlink()
    (folder / "red").rmdir()


def stray_image(folder: Path) -> None:
    photographed.save(folder / "stray.jpeg", photographed.drawn(0, 0))


def nested(folder: Path) -> None:
    (folder / "red" / "more").mkdir()


def misnamed(folder: Path) -> None:
    (folder / "red").rename(os.fsdecode(os.fsencode(folder) + b"/r\xe9d"))


def link_to_file(folder: Path) -> None:
    outside = photographed.save(folder.parent / "outside.png", photographed.drawn(0, 0))
    (folder / "red" / "link.png").symlink_to(outside)


def link_to_folder(folder: Path) -> None:
    (folder / "etc").symlink_to("/etc")


def link_upwards(folder: Path) -> None:
    (folder / "up").symlink_to("..")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty, "green: has no images: add some, or remove the folder of this class"),
        (single_class, "expected folders of images for at least two classes, found only 'blue'"),
        (stray_image, "'stray.jpeg' is beside the class folders"),
        (nested, "red: expected images, found the folder 'more': give the folder that contains the class folders"),
        (misnamed, "has a name with unprintable characters: rename it"),
        (link_to_file, "red/link.png: is a link that leaves "),
        (link_to_folder, "etc: is a link that leaves "),
        (link_upwards, "up: is a link that leaves "),
    ],
)
def test_a_folder_with_another_layout_is_refused(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(folder)
    assert message in refused(folder)


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    assert "expected folders of images for at least two classes, found none" in refused(tmp_path)
    assert "expected a folder that contains one folder of images for each class" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "validation", "test"), ("train", "test")])
def test_a_folder_for_each_split_gives_the_split(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        photographed.folder(tmp_path / "all" / name, count=2)
    listing = image_folder.list_images(tmp_path / "all")
    assert listing.classes == ("blue", "red")
    found = {(photo.name.split("/")[0], photo.split) for photo in listing.photos}
    assert found == set(zip(names, (0, 2) if len(names) == 2 else (0, 1, 2), strict=True))
    assert [photo.label for photo in listing.photos] == sorted(2 * len(names) * [0, 1])
    (tmp_path / "all" / "test").rename(tmp_path / "all" / "valid")
    assert "expected the folders train and test, and maybe val, found " in refused(tmp_path / "all")


def test_classes_may_have_the_names_of_splits(folder: Path) -> None:
    (folder / "red").rename(folder / "train")
    (folder / "blue").rename(folder / "test")
    assert image_folder.list_images(folder).classes == ("test", "train")


def test_a_link_within_the_folder_is_followed(folder: Path) -> None:
    (folder / "red" / "again.png").symlink_to(folder / "red" / "000.png")
    photo = next(photo for photo in image_folder.list_images(folder).photos if photo.name == "red/again.png")
    assert photo.size == (folder / "red" / "000.png").stat().st_size


def test_an_entry_that_is_not_a_file_has_size_minus_one(folder: Path) -> None:
    os.mkfifo(folder / "red" / "pipe.png")
    (folder / "red" / "broken.png").symlink_to(folder / "red" / "gone.png")
    (folder / "red" / "loop.png").symlink_to("loop.png")
    sizes = {photo.name: photo.size for photo in image_folder.list_images(folder).photos}
    assert sizes["red/pipe.png"] == sizes["red/broken.png"] == sizes["red/loop.png"] == -1
    assert folder / "red" / "loop.png" in image_folder.list_files(folder / "red")  # left out when it is read
