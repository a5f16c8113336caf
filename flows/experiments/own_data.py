"""Data of one's own on the command line: a table or a folder of images, and a model and training that suit it."""

import os
from functools import cache
from pathlib import Path
from typing import Any

from hallmark.flows.experiments import presets
from hallmark.tasks.common import files
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.data import BY_COLUMN, TABLE_SUFFIXES, stem
from hallmark.tasks.ml.config.fields import names

Tree = dict[str, Any]

KINDS = ("table", "images")
SIZES = (500, 10_000, 100_000)
"""Rows at which another batch size and another number of epochs suit."""
TRAININGS: tuple[Tree, ...] = (
    {"epochs": 1000, "patience": 50, "batch_size": "full", "lr": 0.001},
    {"epochs": 200, "patience": 20, "batch_size": 32, "lr": 0.001},
    {"epochs": 60, "patience": 8, "batch_size": 128, "lr": 0.001},
    {"epochs": 20, "patience": 4, "batch_size": 1024, "lr": 0.003},
)
"""What suits a table of fewer rows than `SIZES` say, and the last of more."""
OF_NUMBERS, OF_TEXT = [64, 32], [32]
"""Hidden layers of a table's network. Text becomes many inputs that are rarely 1: of these a small network learns as
much, and overfits later."""
NETWORK: Tree = {"kind": "cnn", "channels": [16, 32, 64], "hidden": [128]}
"""What suits images."""
SIZES_OF_IMAGES = (100, 1_000, 10_000, 50_000)
"""Images at which another batch size and another number of epochs suit."""
TRAININGS_OF_IMAGES: tuple[Tree, ...] = (
    {"epochs": 100, "patience": 25, "batch_size": 4, "lr": 0.001},
    {"epochs": 100, "patience": 25, "batch_size": 16, "lr": 0.002},
    {"epochs": 60, "patience": 15, "batch_size": 32, "lr": 0.002},
    {"epochs": 30, "patience": 6, "batch_size": 64, "lr": 0.002},
    {"epochs": 10, "patience": 3, "batch_size": 128, "lr": 0.002},
)
"""What suits fewer images than `SIZES_OF_IMAGES` say, and the last of more."""


def is_own(source: str) -> bool:
    """Whether the command line means a file or a folder by this, and no preset."""
    path = Path(source)
    return path.suffix.lower() in TABLE_SUFFIXES or (
        source not in presets.PRESETS and (os.sep in source or path.is_dir())
    )


def read(source: str) -> Tree:
    """The fields of an experiment on the table or the folder that `source` names.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    path = Path(source)
    if not path.exists():
        raise InputError(files.missing(path, source))
    kind = "images" if path.is_dir() else "table"
    return {"name": stem(source), "data": {"kind": kind, "path": str(path.absolute())}}


def located(tree: Tree, folder: Path) -> Tree:
    """An experiment on data of one's own whose path starts from the folder of the file that says it."""
    if not _is_on_own(tree):
        return tree
    return tree | {"data": tree["data"] | {"path": str((folder / tree["data"]["path"]).absolute())}}


def complete(tree: Tree) -> Tree:
    """Give an experiment on data of one's own the model and training that suit it, as far as it names none itself.

    Args:
        tree: the fields of the experiment; others than those on data of one's own are returned as they are.
    """
    if not _is_on_own(tree):
        return tree
    model, training = suited(tree["data"])
    named, split = tree.get("model", {}), tree["data"].get("split", {})
    if str(split.get("validation", "")) in ("0", "0.0"):
        training = training | {"patience": 0}  # there is nothing to watch
    is_same = named.get("kind", model["kind"]) == model["kind"]
    return tree | {"model": model | named if is_same else named, "training": training | tree.get("training", {})}


def _is_on_own(tree: Tree) -> bool:
    data = tree.get("data")
    return isinstance(data, dict) and data.get("kind") in KINDS and isinstance(data.get("path"), str)


def refuse_without_target(tree: Tree, source: str) -> None:
    """Refuse a table of which nobody has said what is to be predicted.

    Raises:
        InputError: it names the columns; or the table cannot be read.
    """
    data = tree.get("data")
    if isinstance(data, dict) and data.get("kind") == "table" and "target" not in data:
        from hallmark.tasks.ml.data.tables import files as table_files

        path = Path(str(data.get("path")))
        columns = table_files.listed(table_files.names(path, data.get("separator", ",")))
        raise InputError(f"{source}: which column is to be predicted? Add --target and its name: it has {columns}")


def suited(data: Tree) -> tuple[Tree, Tree]:
    """A model and a training that suit the size of the data and the kinds of its columns.

    Args:
        data: the fields of a source, its kind and its path among them; others may not have been validated.

    Returns:
        The fields of both; no more than the kind of the model where nothing can be told.
    """
    path = Path(data["path"])
    if data["kind"] == "table" and path.is_file():
        from hallmark.tasks.ml.data.tables import files as table_files

        rows = table_files.estimate_rows(path)
        hidden = OF_TEXT if _has_text(data, path) else OF_NUMBERS
        return {"kind": "mlp", "hidden": hidden}, dict(TRAININGS[sum(rows >= size for size in SIZES)])
    if data["kind"] == "images":
        images = _images(path)
        return dict(NETWORK), dict(TRAININGS_OF_IMAGES[sum(images >= size for size in SIZES_OF_IMAGES)])
    return {"kind": "mlp"}, {}


def _has_text(data: Tree, path: Path) -> bool:
    """Whether a column of text is an input."""
    from hallmark.tasks.ml.data.tables import csv_file
    from hallmark.tasks.ml.data.tables import files as table_files

    split = data.get("split", {})
    apart = {data.get("target"), *names(data.get("ignore", ())), *(split.get(name) for name in BY_COLUMN)}
    separator = data.get("separator", ",")
    return bool(separator in csv_file.SEPARATORS and set(table_files.text_columns(path, separator)) - apart)


@cache
def _images(path: Path) -> int:
    """How many there are: counted once for all members of a sweep. The rows of a table are estimated in no time."""
    from hallmark.tasks.ml.data.images import folder as photos

    return len(photos.look(path).photos)
