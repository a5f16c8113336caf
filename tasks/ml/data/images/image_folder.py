"""List a user's images: a folder with one folder for each class, or such a folder for each split. Opens no image."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hallmark.tasks.common.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".avif")
"""Suffixes of image files, for training and for prediction. Files with another suffix count as unreadable."""
SPLIT_FOLDERS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2}
"""Names of folders that hold the classes of one split each, with the index of the split in `SPLITS`."""
JUNK = ("thumbs.db", "desktop.ini", "__macosx")
"""Names, in lower case, of what operating systems add to folders. They are ignored, as are hidden files."""
UNREADABLE = 0.01
"""Fraction of the files of a folder that may be unreadable. One file may always be."""


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
    split: int = -1
    """Index in `SPLITS`, if the folder has a folder for each split; else -1."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of all classes, sorted by class and name."""

    folder: Path
    classes: tuple[str, ...]
    photos: tuple[Photo, ...]


def list_images(folder: Path) -> Listing:
    """List a folder that has one folder for each class, or folders `train`, `test` and maybe `val` that have.

    Hidden files and folders are ignored.

    Raises:
        InputError: the folder does not exist or has fewer than two class folders; a class folder is empty or contains
            folders; there are images beside the class folders; or a link leads out of the folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder that contains one folder of images for each class")
    names = _folders(folder, folder)
    parts = {name: _folders(folder / name, folder) for name in names} if _are_splits(folder, names) else {"": names}
    classes = sorted({name for found in parts.values() for name in found})
    if len(classes) < 2:
        found = f"found only '{as_text(classes[0])}'" if classes else "found none"
        raise InputError(f"{folder}: expected folders of images for at least two classes, {found}")
    _refuse_unnameable(folder, classes)
    photos = (
        photo
        for label, name in enumerate(classes)
        for part, found in parts.items()
        if name in found
        for photo in _class(folder, label, f"{part}/{name}".lstrip("/"), SPLIT_FOLDERS.get(part.lower(), -1))
    )
    return Listing(folder, tuple(classes), tuple(photos))


def list_files(folder: Path) -> list[Path]:
    """Return all files of a folder without classes, sorted by name.

    Raises:
        InputError: the folder contains a folder.
    """
    entries = _visible(folder)
    if inner := [entry.name for entry in entries if _is_folder(entry)]:
        raise InputError(f"{folder}: expected only images, found the folder '{as_text(inner[0])}'")
    return [Path(entry.path) for entry in entries]


def are_too_many(bad: int, total: int, share: float = UNREADABLE) -> bool:
    """Return whether more files are unreadable than the accepted fraction. A fraction above 0 accepts one file."""
    return bad > max(share * total, 1 if share else 0)


def _folders(folder: Path, root: Path) -> list[str]:
    """Return the names of the folders in a folder that has no images."""
    entries = _entries(folder, root)
    if loose := [entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES)]:
        raise InputError(
            f"{folder}: '{as_text(loose[0])}' is beside the class folders and so has no class: "
            "move it into the folder of its class"
        )
    return [entry.name for entry in entries if _is_folder(entry)]


def _are_splits(folder: Path, names: list[str]) -> bool:
    """Return whether folders are those of splits: by their names, and because they contain folders."""
    found = sorted(SPLIT_FOLDERS.get(name.lower(), -1) for name in names)
    if not names or -1 in found:
        return False
    if not all(any(_is_folder(entry) for entry in _visible(folder / name)) for name in names):
        return False
    if found not in ([0, 2], [0, 1, 2]):
        raise InputError(f"{folder}: expected the folders train and test, and maybe val, found {', '.join(names)}")
    return True


def _class(folder: Path, label: int, name: str, split: int) -> Iterator[Photo]:
    entries = _entries(folder / name, folder)
    if not entries:
        raise InputError(f"{folder / name}: has no images: add some, or remove the folder of this class")
    for entry in entries:
        if _is_folder(entry):
            raise InputError(
                f"{folder / name}: expected images, found the folder '{as_text(entry.name)}': "
                "give the folder that contains the class folders"
            )
        yield Photo(label, f"{name}/{entry.name}", *_facts(entry), split)


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are neither hidden nor junk, sorted by name."""
    try:
        with os.scandir(folder) as listed:
            entries = (one for one in listed if not one.name.startswith(".") and one.name.lower() not in JUNK)
            return sorted(entries, key=lambda one: one.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error


def _entries(folder: Path, root: Path) -> list[os.DirEntry[str]]:
    """Return the visible entries of a folder, whose links do not leave `root`."""
    entries = _visible(folder)
    inside = root.resolve()
    for entry in entries:
        if entry.is_symlink() and not _leads_within(entry, inside):
            raise InputError(
                f"{as_text(entry.path)}: is a link that leaves {root} and is not followed: copy its target instead"
            )
    return entries


def _leads_within(link: os.DirEntry[str], folder: Path) -> bool:
    """Return whether a link does not leave a folder. A link to itself does not: it is an unreadable file."""
    try:
        return Path(link.path).resolve().is_relative_to(folder)
    except (OSError, RuntimeError):
        return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


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
