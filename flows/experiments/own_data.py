"""Own data on the command line: a table or a folder of images, with default split, model and training settings."""

import json
import os
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from hallmark.flows.experiments import presets
from hallmark.tasks.common import files
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.data import BY_COLUMN, Data, Own, Points
from hallmark.tasks.ml.config.fields import names
from hallmark.tasks.ml.config.table_names import folder_name, is_address, require_address, stem, suffixes
from hallmark.tasks.ml.data.tables.formats import parts

if TYPE_CHECKING:
    from hallmark.tasks.ml.data.images.image_folder import Photo

Tree = dict[str, Any]

KINDS = ("table", "images")
TABLE_SIZES = (500, 10_000, 100_000)
"""Numbers of rows at which the next entry of `TABLE_TRAININGS` applies."""
TABLE_TRAININGS: tuple[Tree, ...] = (
    {"epochs": 1000, "patience": 50, "batch_size": "full", "lr": 0.001},
    {"epochs": 200, "patience": 20, "batch_size": 32, "lr": 0.001},
    {"epochs": 60, "patience": 8, "batch_size": 128, "lr": 0.001},
    {"epochs": 20, "patience": 4, "batch_size": 1024, "lr": 0.003},
)
"""Default training of a table, by its number of rows."""
HIDDEN_NUMERIC, HIDDEN_TEXT = [64, 32], [32]
"""Default hidden layers for a table with numeric inputs only, and for one with text. Text becomes many inputs that are
rarely 1, from which a smaller network learns as much and overfits later."""
BY_SEED = ("stratified", "shuffled")
"""Split methods by which a row may change its split as data grows."""
DIVIDED_ROWS = 10_000
"""Larger tables are split by content by default without trying, which would need to read them once more."""
DIVIDED_IMAGES = 25
"""Number of images of each class from which images are split by content by default: with 20 % of them in a split, it
has none of a given class with a probability of 0.8**25 = 0.4 %."""
IMAGE_NETWORK: Tree = {"kind": "cnn", "channels": [16, 32, 64], "hidden": [128]}
"""Default network for images."""
IMAGE_SIZES = (100, 1_000, 10_000, 50_000)
"""Numbers of images at which the next entry of `IMAGE_TRAININGS` applies."""
IMAGE_TRAININGS: tuple[Tree, ...] = (
    {"epochs": 100, "patience": 25, "batch_size": 4, "lr": 0.001},
    {"epochs": 100, "patience": 25, "batch_size": 16, "lr": 0.002},
    {"epochs": 60, "patience": 15, "batch_size": 32, "lr": 0.002},
    {"epochs": 30, "patience": 6, "batch_size": 64, "lr": 0.002},
    {"epochs": 10, "patience": 3, "batch_size": 128, "lr": 0.002},
)
"""Default training of images, by their number."""


def is_own(source: str) -> bool:
    """Return whether a source is a table or a folder of images rather than a preset."""
    return bool(suffixes(source)[0]) or (source not in presets.PRESETS and (os.sep in source or Path(source).is_dir()))


def read(source: str) -> Tree:
    """Return the fields of an experiment on a table or a folder of images.

    Raises:
        InputError: the path does not exist, and the message names the closest one; or an address is not accepted.
    """
    if is_address(source):
        try:
            require_address(source)
        except ValueError as error:
            raise InputError(str(error)) from error
        return {"name": stem(source), "data": {"kind": "table", "path": source}}
    path = Path(source)
    if not path.exists():
        raise InputError(files.missing_message(path, source))
    is_table = not path.is_dir() or parts.is_table(path)
    if not is_table and suffixes(source)[0]:
        raise InputError(f"{source}: is a folder: write its parts into one file, or give one of them")
    kind, name = ("table", stem(source)) if is_table else ("images", folder_name(source))
    return {"name": name, "data": {"kind": kind, "path": str(path.absolute())}}


def with_absolute_path(tree: Tree, folder: Path) -> Tree:
    """Make the path of an experiment's own data absolute.

    Args:
        tree: the fields of the experiment.
        folder: folder of the file that the fields were read from, to which the path is relative.
    """
    if not _is_on_own(tree) or is_address(tree["data"]["path"]):
        return tree
    return tree | {"data": tree["data"] | {"path": str((folder / tree["data"]["path"]).absolute())}}


def with_defaults(tree: Tree) -> Tree:
    """Add default split, model and training settings to an experiment on own data. Fields that are set stay.

    Rows are split by content if every split gets rows of every class that way, so that training and retraining split
    them alike as the data grows; else stratified. Images in a folder for each split are split as given.

    Args:
        tree: the fields of the experiment. Experiments on other data are returned unchanged.
    """
    given, trained = tree.get("model", {}), tree.get("training", {})
    if not (_is_on_own(tree) and _is_valid(tree["data"]) and isinstance(given, dict) and isinstance(trained, dict)):
        return tree  # the validation of the whole refuses what is invalid
    model, training = defaults(tree["data"])
    split = tree["data"].get("split", {})
    if not any(split.get(name) for name in ("method", *BY_COLUMN)):
        content = tree["data"] | {"split": split | {"method": "content"}}
        if _has_split_folders(tree["data"]):
            # The default fraction for validation applies where there is no folder for it.
            tree = tree | {"data": tree["data"] | {"split": {"method": "given", "test": 0} | split}}
        else:
            tree = tree | {"data": content if _suits(content) else tree["data"]}
    if str(split.get("validation", "")) in ("0", "0.0"):
        training = training | {"patience": 0}  # no validation loss for early stopping
    is_same_kind = given.get("kind", model["kind"]) == model["kind"]
    return tree | {"model": model | given if is_same_kind else given, "training": training | trained}


def _is_on_own(tree: Tree) -> bool:
    data = tree.get("data")
    return isinstance(data, dict) and data.get("kind") in KINDS and isinstance(data.get("path"), str)


def _is_valid(data: Tree) -> bool:
    try:
        TypeAdapter[Data](Data).validate_python(data)
    except ValidationError:
        return False
    return True


def refuse_without_target(tree: Tree, source: str) -> None:
    """Refuse a table without a target column.

    Raises:
        InputError: the target is missing, and the message lists the columns; or the table cannot be read.
    """
    data = tree.get("data")
    if isinstance(data, dict) and data.get("kind") == "table" and "target" not in data:
        from hallmark.tasks.ml.data.tables import files as table_files
        from hallmark.tasks.ml.data.tables.formats import web_file

        path, separator, sheet = web_file.local(str(data.get("path"))), data.get("separator"), data.get("sheet")
        known = table_files.names(
            path, separator if isinstance(separator, str) else ",", sheet if isinstance(sheet, str) else None
        )
        columns = table_files.listed(known)
        raise InputError(f"{source}: the column to predict is missing: add --target and one of the columns: {columns}")


def may_grow(data: Data) -> bool:
    """Return whether the rows of a source may become more: a file, a folder, or points listed in the experiment."""
    return isinstance(data, Own | Points)


def suits(data: Data) -> bool:
    """Return whether the split of data that may grow gives every split rows of every class, as far as is known."""
    return _suits(data.model_dump(mode="json"))


def _suits(data: Tree) -> bool:
    """Try a split. Returns True where the data is not valid or cannot be read: reading it later reports why.

    Args:
        data: the fields of the data, which may not have been validated.
    """
    if data["kind"] == "points":
        return _divides(json.dumps(data), 0, 0)
    try:
        if data["kind"] == "images":
            photos = _list_images(Path(data["path"]))
            return min(Counter(photo.label for photo in photos).values()) >= DIVIDED_IMAGES
        path, rows = _estimated(data)
    except InputError:
        return True
    if rows >= DIVIDED_ROWS:
        return True
    size, changed = files.size(path.resolve()), files.last_changed(path.resolve())
    return _divides(json.dumps(data, sort_keys=True, default=str), size, changed)


def _estimated(data: Tree) -> tuple[Path, int]:
    """Return the path of a table, after its download if it has an address, and the number of its rows, estimated."""
    from hallmark.tasks.ml.data.tables import files as table_files
    from hallmark.tasks.ml.data.tables.formats import web_file

    path = web_file.local(data["path"])
    if not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: is neither a regular file nor a folder")
    return path, table_files.estimate_rows(path, data.get("sheet"))


@cache
def _divides(fields: str, size: int, changed: float) -> bool:  # noqa: ARG001 - size and time tell contents apart
    """Divide rows, once for all members of a sweep."""
    from hallmark.tasks.ml.data import sources, splits

    try:
        data = TypeAdapter[Data](Data).validate_json(fields)
        source = sources.read(data, Path())
    except (ValidationError, InputError):
        return True
    try:
        splits.divide(source, data.split)
    except InputError:
        return False
    return True


def defaults(data: Tree) -> tuple[Tree, Tree]:
    """Choose a model and training settings by the size of the data and the kinds of its columns.

    Args:
        data: the fields of the data. Kind and path are present; other fields may not have been validated.

    Returns:
        the fields of the model and of the training; only the kind of the model if the data cannot be read.
    """
    if data["kind"] == "table" and (
        is_address(data["path"]) or Path(data["path"]).is_file() or Path(data["path"]).is_dir()
    ):
        path, rows = _estimated(data)
        hidden = HIDDEN_TEXT if _has_text(data, path) else HIDDEN_NUMERIC
        return {"kind": "mlp", "hidden": hidden}, dict(TABLE_TRAININGS[sum(rows >= size for size in TABLE_SIZES)])
    if data["kind"] == "images":
        images = len(_list_images(Path(data["path"])))
        return dict(IMAGE_NETWORK), dict(IMAGE_TRAININGS[sum(images >= size for size in IMAGE_SIZES)])
    return {"kind": "mlp"}, {}


def _has_text(data: Tree, path: Path) -> bool:
    """Return whether an input column holds text."""
    from hallmark.tasks.ml.data.tables import files as table_files
    from hallmark.tasks.ml.data.tables.formats import csv_file

    split = data.get("split", {})
    excluded = {data.get("target"), *names(data.get("ignore", ())), *(split.get(name) for name in BY_COLUMN)}
    separator = data.get("separator", ",")
    if separator not in csv_file.SEPARATORS:
        return False
    return bool(set(table_files.text_columns(path, separator, data.get("sheet"))) - excluded)


def _has_split_folders(data: Tree) -> bool:
    """Return whether data is a folder of images with a folder for each split."""
    return data["kind"] == "images" and any(photo.split >= 0 for photo in _list_images(Path(data["path"])))


@cache
def _list_images(path: Path) -> "tuple[Photo, ...]":
    """List the images in a folder, once for all members of a sweep."""
    from hallmark.tasks.ml.data.images.image_folder import list_images

    return list_images(path).photos
