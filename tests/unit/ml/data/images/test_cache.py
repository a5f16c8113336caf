import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.data import Images
from hallmark.tasks.ml.data.images import cache, image_file
from hallmark.tasks.ml.data.images.cache import Decoded
from hallmark.tasks.ml.data.images.image_file import Header
from hallmark.tasks.ml.data.images.image_folder import list_images
from hallmark.tasks.ml.data.source_rows import ShowProgress
from tests.support import photographed
from tests.unit.ml.data.images.test_image_file import bomb


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photographed.folder(tmp_path / "photos")


def images(folder: Path, **options: object) -> Images:
    return Images.model_validate({"kind": "images", "path": str(folder)} | options)


def read(folder: Path, **options: object) -> Decoded:
    return cache.read(images(folder, **options), folder.parent / "home")


def refused(folder: Path, **options: object) -> str:
    with pytest.raises(InputError) as error:
        read(folder, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def spoil(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / "red" / f"{number:03d}.png").write_bytes(b"no image")


def test_all_images_are_decoded_in_the_order_of_their_names(folder: Path) -> None:
    found = read(folder)
    assert found.classes == ("blue", "red")
    assert found.y.tolist() == [0] * 20 + [1] * 20
    assert isinstance(found.x.base, np.memmap)
    assert (found.x.dtype, found.x.flags.writeable) == (np.uint8, False)
    expected = [photographed.drawn(label, number) for label in (1, 0) for number in range(20)]
    np.testing.assert_array_equal(found.x, expected)
    assert found.notes == ("40 of 2 classes, each resized to 12 x 16 pixels (as most are) and in colour",)


def test_training_and_prediction_decode_the_same_pixels(folder: Path) -> None:
    photographed.folder(folder.parent / "more", count=3, height=90, width=31, suffix=".jpg").rename(folder / "x")
    for file in sorted((folder / "x").glob("*/*")):
        file.rename(folder / "red" / f"{file.parent.name}-{file.name}")
    for kind in ("red", "blue"):
        (folder / "x" / kind).rmdir()
    (folder / "x").rmdir()
    found = read(folder, height=9, width=7)
    files = [folder / photo.name for photo in list_images(folder).photos]
    assert len(files) == 46
    np.testing.assert_array_equal(found.x, [image_file.read_resized(file, (9, 7, 3)) for file in files])


@pytest.mark.parametrize(("colour", "shape"), [("auto", (12, 16, 3)), ("grey", (12, 16)), ("colour", (12, 16, 3))])
def test_mixed_grey_and_colour_images_are_converted_as_configured(
    folder: Path, colour: str, shape: tuple[int, ...]
) -> None:
    for file in sorted((folder / "red").iterdir())[1:]:
        photographed.save(file, photographed.drawn(0, 0)[:, :, 0])
    assert read(folder, colour=colour).x.shape[1:] == shape


def test_grey_images_stay_grey(folder: Path) -> None:
    for file in folder.glob("*/*"):
        photographed.save(file, photographed.drawn(0, 0)[:, :, 0])
    found = read(folder)
    assert found.x.shape == (40, 12, 16)
    assert found.notes[0].endswith("and grey")


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ([(8, 9)] * 3 + [(50, 50)] * 2, (8, 9)),
        ([(8, 9)] * 2 + [(50, 50)] * 2, (64, 64)),
        ([(64, 64)], (64, 64)),
        ([(64, 65)], (64, 64)),
        ([(3000, 4000)] * 5, (64, 64)),
    ],
)
def test_the_default_size_is_the_most_common_one_if_it_is_small(
    sizes: list[tuple[int, int]], shape: tuple[int, int]
) -> None:
    headers = [Header(*size, has_colour=False) for size in sizes]
    assert cache.choose_shape(headers, images(Path("x")))[0] == shape
    assert cache.choose_shape(headers, images(Path("x"), height=5, width=6)) == ((5, 6), "as given")


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """Yield a list of every path that is opened below a folder."""
    opened: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and str(arguments[0]).startswith(f"{folder}/"):
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)
    try:
        yield opened
    finally:
        watching = False


def test_a_second_run_opens_no_image(folder: Path) -> None:
    with watched(folder) as opened:
        first = read(folder)
        assert len(set(opened)) == 40
        opened.clear()
        second = read(folder)
        assert opened == []
    np.testing.assert_array_equal(first.x, second.x)
    assert first.notes == second.notes


def changed(folder: Path) -> None:
    photographed.save(folder / "red" / "000.png", photographed.drawn(0, 99))


def touched(folder: Path) -> None:
    file = folder / "red" / "000.png"
    pixels = photographed.drawn(0, 0)
    pixels[0, 0, 0] ^= 1
    before = file.stat()
    photographed.save(file, pixels)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def added(folder: Path) -> None:
    photographed.save(folder / "red" / "999.png", photographed.drawn(0, 99))


def removed(folder: Path) -> None:
    (folder / "red" / "000.png").unlink()


@pytest.mark.parametrize("change", [changed, touched, added, removed])
def test_a_changed_folder_is_decoded_again_in_the_same_place(folder: Path, change: Callable[[Path], None]) -> None:
    before = np.array(read(folder).x)
    change(folder)
    after = read(folder).x
    assert before.shape != after.shape or (before != after).any()
    assert len(list((folder.parent / "home" / "images").iterdir())) == 1


def test_damaged_pixels_are_decoded_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = np.array(read(folder).x)
    [file] = (folder.parent / "home" / "images").glob("*/pixels.bin")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    np.testing.assert_array_equal(read(folder).x, before)
    assert "are damaged and are decoded again" in caplog.text


def test_unreadable_files_are_left_out_counted_and_listed(folder: Path) -> None:
    spoil(folder, 2)
    whole = (folder / "red" / "002.png").read_bytes()
    (folder / "red" / "002.png").write_bytes(whole[: len(whole) // 2])
    (folder / "red" / "notes.txt").write_text("about")
    os.mkfifo(folder / "blue" / "pipe.png")
    for _ in range(2):  # first decoded, then read from the cache
        found = read(folder, unreadable=0.2)
        assert np.bincount(found.y).tolist() == [20, 17]
        np.testing.assert_array_equal(found.x[20], photographed.drawn(0, 3))
        note = found.notes[1]
        assert note.startswith("5 of 42 files (11.9%) cannot be read (blue/pipe.png: is not a file; red/000.png: its")
        listed = Path(note.rpartition("listed in ")[2]).read_text().splitlines()
        reasons = dict(line.split("\t") for line in listed)
        assert list(reasons) == ["blue/pipe.png", "red/000.png", "red/001.png", "red/002.png", "red/notes.txt"]
        assert "truncated" in reasons["red/002.png"]
        assert "is no image" in reasons["red/notes.txt"]


def test_more_unreadable_files_than_accepted_are_refused(folder: Path) -> None:
    spoil(folder, 2)
    message = refused(folder)
    assert "2 of 40 files (5.0%) cannot be read (red/000.png: its format" in message
    assert message.endswith("more than the fraction of 0.01 that --data.unreadable accepts")
    assert len(Path(message.partition("listed in ")[2].partition(": ")[0]).read_text().splitlines()) == 2
    assert "0.049" in refused(folder, unreadable=0.049)
    assert len(read(folder, unreadable=0.05).y) == 38
    assert "0.01" in refused(folder)  # although the images are cached by now


@pytest.mark.parametrize("fault", ["bomb", "truncated"])
def test_one_unreadable_file_is_left_out_of_a_folder_of_any_size(folder: Path, fault: str) -> None:
    if fault == "bomb":
        bomb(folder / "red" / "002.png", 10_392)  # 108 megapixels
    else:  # truncated, with a valid header
        whole = (folder / "red" / "002.png").read_bytes()
        (folder / "red" / "002.png").write_bytes(whole[: len(whole) // 2])
    found = read(folder)
    assert len(found.y) == len(found.names) == len(found.headers) == 39
    assert "1 of 40 files (2.5%) cannot be read (red/002.png" in found.notes[1]
    assert "red/002.png" not in found.names
    assert "1 of 40 files" in refused(folder, unreadable=0)


def test_a_class_without_readable_images_is_refused(folder: Path) -> None:
    spoil(folder, 20)
    message = "red: none of its files can be read as an image (red/000.png: its format is unknown"
    assert message in refused(folder, unreadable=0.9)
    for file in (folder / "red").iterdir():
        file.write_bytes(photographed.save(folder.parent / "x.png", photographed.drawn(0, 0)).read_bytes()[:100])
    assert "red: none of its files can be read as an image" in refused(folder, unreadable=0.9)


def test_bits_in_use_are_those_of_the_largest_value_of_all_files(folder: Path) -> None:
    files = sorted(folder.glob("*/*"))
    for number, file in enumerate(files):
        photographed.save(file, np.full((12, 16), 40 * number, np.uint16))
    found = read(folder)
    assert (found.bits, found.x.shape) == (12, (40, 12, 16))  # 1560 needs more than 10 bits
    assert found.x[:, 0, 0].tolist() == [40 * number >> 4 for number in range(40)]
    assert found.notes[0].endswith("12 bits are in use, and the upper eight are kept")
    again = read(folder, bits=16)
    assert (again.bits, again.x.max()) == (16, 1560 >> 8)


def test_progress_reports_both_passes(tmp_path: Path) -> None:
    folder = photographed.folder(tmp_path / "photos", count=100)
    reported: dict[str, list[tuple[int, int | None]]] = {}

    @contextmanager
    def progress(what: str) -> Iterator[ShowProgress]:
        reported[what] = []
        yield lambda passed, total: reported[what].append((passed, total))

    cache.read(images(folder), tmp_path / "home", progress)
    assert list(reported) == ["looked at", "decoded"]
    for passed in reported.values():
        assert passed == sorted(passed)
        assert {total for _, total in passed} == {200}


def test_the_facts_of_a_folder_are_json(folder: Path) -> None:
    read(folder)
    [file] = (folder.parent / "home" / "images").glob("*/images.json")
    facts = json.loads(file.read_text())
    assert (facts["shape"], facts["counts"], facts["unreadable"]) == ([12, 16, 3], [20, 20], [])
