"""List a user's images: a folder with one folder for each class. No image is opened."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hallmark.tasks.common.errors import InputError

TRAINING_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Suffixes of image files. Other files in a class folder count as unreadable."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A file in a class folder."""

    label: int
    """Index of the class."""
    name: str
    """Path relative to the listed folder."""
    size: int
    """Size in bytes; -1 if it is not a regular file."""
    changed: int
    """Modification time in nanoseconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of all classes, sorted by class and name."""

    folder: Path
    classes: tuple[str, ...]
    photos: tuple[Photo, ...]


def list_images(folder: Path) -> Listing:
    """List a folder that has one folder for each class. Hidden files and folders are ignored.

    Raises:
        InputError: the folder does not exist or has fewer than two class folders; a class folder is empty or contains
            folders; there are images beside the class folders; or a link leads out of the folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder that contains one folder of images for each class")
    entries = _entries(folder, folder)
    if loose := [entry.name for entry in entries if entry.name.lower().endswith(TRAINING_SUFFIXES)]:
        raise InputError(
            f"{folder}: '{as_text(loose[0])}' is beside the class folders and so has no class: "
            "move it into the folder of its class"
        )
    classes = [entry.name for entry in entries if entry.is_dir()]
    if len(classes) < 2:
        found = f"found only '{as_text(classes[0])}'" if classes else "found none"
        raise InputError(f"{folder}: expected folders of images for at least two classes, {found}")
    _refuse_unnameable(folder, classes)
    photos = tuple(photo for label, name in enumerate(classes) for photo in _class(folder, label, name))
    return Listing(folder, tuple(classes), photos)


def _class(folder: Path, label: int, name: str) -> Iterator[Photo]:
    entries = _entries(folder / name, folder)
    if not entries:
        raise InputError(f"{folder / name}: has no images: add some, or remove the folder of this class")
    for entry in entries:
        if entry.is_dir():
            raise InputError(
                f"{folder / name}: expected images, found the folder '{as_text(entry.name)}': "
                "give the folder that contains the class folders"
            )
        yield Photo(label, f"{name}/{entry.name}", *_facts(entry))


def _entries(folder: Path, root: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are not hidden, sorted by name."""
    try:
        with os.scandir(folder) as listed:
            entries = sorted((entry for entry in listed if not entry.name.startswith(".")), key=lambda one: one.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    inside = root.resolve()
    for entry in entries:
        if entry.is_symlink() and not _target(entry).is_relative_to(inside):
            raise InputError(
                f"{as_text(entry.path)}: is a link that leaves {root} and is not followed: copy its target instead"
            )
    return entries


def _target(link: os.DirEntry[str]) -> Path:
    try:
        return Path(link.path).resolve()
    except (OSError, RuntimeError) as error:
        raise InputError(f"{as_text(link.path)}: is a link to itself: remove it") from error


def _facts(entry: os.DirEntry[str]) -> tuple[int, int]:
    """Return size and modification time of a file; the size is -1 if it is not a regular file."""
    try:
        status = entry.stat()
    except OSError:
        return -1, 0
    return (status.st_size if stat.S_ISREG(status.st_mode) else -1), status.st_mtime_ns


def _refuse_unnameable(folder: Path, classes: list[str]) -> None:
    for name in classes:
        if not name.isprintable():  # also rejects bytes that are not UTF-8
            raise InputError(f"{folder}: the folder {name!r} has a name with unprintable characters: rename it")


def as_text(name: str) -> str:
    """Return the name of a file as text, even if its bytes are not UTF-8."""
    return os.fsencode(name).decode(errors="replace")
