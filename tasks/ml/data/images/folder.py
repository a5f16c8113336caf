"""Images of one's own as they lie on disk: a folder with a folder for each class, listed and not yet opened."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hallmark.tasks.common.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Of files that are decoded. Others in the folder of a class count as unreadable."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A file in the folder of a class."""

    label: int
    """Index of its class."""
    name: str
    """Path within the folder."""
    size: int
    """Bytes; -1 of what is no file."""
    changed: int
    """Nanoseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of all classes, sorted by class and name."""

    folder: Path
    classes: tuple[str, ...]
    photos: tuple[Photo, ...]


def look(folder: Path) -> Listing:
    """List a folder that has a folder for each class. Hidden files and folders are left out.

    Raises:
        InputError: there is no such folder, it has fewer than two class folders, one of them is empty or holds folders
            itself, images lie beside them, or a link leads out of the folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder with a folder of images for each class")
    entries = _entries(folder, folder)
    if loose := [entry.name for entry in entries if _is_image(entry.name)]:
        raise InputError(
            f"{folder}: '{_shown(loose[0])}' lies beside the class folders, where it is of no class: "
            "move it into the folder of its class"
        )
    classes = [entry.name for entry in entries if entry.is_dir()]
    if len(classes) < 2:
        found = f"found '{_shown(classes[0])}' alone" if classes else "found none"
        raise InputError(f"{folder}: expected a folder of images for each of two classes or more, {found}")
    _refuse_unnameable(folder, classes)
    photos = tuple(photo for label, name in enumerate(classes) for photo in _class(folder, label, name))
    return Listing(folder, tuple(classes), photos)


def _class(folder: Path, label: int, name: str) -> Iterator[Photo]:
    entries = _entries(folder / name, folder)
    if not entries:
        raise InputError(f"{folder / name}: has no images: add some, or take the folder of this class away")
    for entry in entries:
        if entry.is_dir():
            raise InputError(
                f"{folder / name}: expected images, found the folder '{_shown(entry.name)}': "
                "give the folder whose folders are the classes"
            )
        yield Photo(label, f"{name}/{entry.name}", *_facts(entry))


def _entries(folder: Path, root: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder and is not hidden, sorted by name."""
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda one: one.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    inside = root.resolve()
    for entry in entries:
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(inside):
            raise InputError(
                f"{_shown(entry.path)}: is a link that leaves {root}, and is not followed: copy what it leads to"
            )
    return entries


def _facts(entry: os.DirEntry[str]) -> tuple[int, int]:
    """Size and time of a file, which tell whether it has changed; of what is no file, that it is none."""
    try:
        found = entry.stat()
    except OSError:
        return -1, 0
    return (found.st_size if stat.S_ISREG(found.st_mode) else -1), found.st_mtime_ns


def _refuse_unnameable(folder: Path, classes: list[str]) -> None:
    for name in classes:
        if not name.isprintable():  # neither are bytes that are no UTF-8
            raise InputError(f"{folder}: the folder {name!r} has a name that no class can have: rename it")


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _shown(name: str) -> str:
    return os.fsencode(name).decode(errors="replace")
