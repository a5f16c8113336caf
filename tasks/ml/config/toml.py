"""Read and write experiments as TOML files."""

import re
import tomllib
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import BaseModel
from tomlkit.items import Comment, Table

from hallmark.tasks.common.digests import SHOWN
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.experiment import Experiment

MOST_LEVELS = 20
"""Maximum number of levels of tables and arrays in a file."""
_MOST_DOTS = 200
"""Maximum number of dots in a key. tomllib takes minutes to read a key with a hundred thousand."""
_TOO_DEEP = f"{{}}: tables and arrays are nested more than {MOST_LEVELS} levels deep"


def dump(experiment: Experiment) -> str:
    """Return an experiment as TOML, each field with its description as a comment. `load` restores the same digest."""
    document = tomlkit.document()
    document.add(tomlkit.comment(f"Experiment {experiment.digest[:SHOWN]}. Run it with: hallmark train FILE.toml"))
    for key, item in _items(experiment).items():
        document.add(key, item)
    return tomlkit.dumps(document)


def load(path: Path) -> dict[str, Any]:
    """Read a TOML file as plain values. The file's stem is the experiment's name unless the file sets `name`.

    Raises:
        InputError: the file cannot be read or is not valid TOML; the message gives the line.
    """
    return {"name": path.stem} | _read(path)


def sets_name(path: Path) -> bool:
    """Return whether a TOML file sets `name`.

    Raises:
        InputError: the file cannot be read or is not valid TOML.
    """
    return "name" in _read(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if any(part.count(".") > _MOST_DOTS for part in re.split(r"[=,\n]", text)):
            raise InputError(_TOO_DEEP.format(path))
        tree = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except ValueError as error:  # also an integer with more digits than Python converts
        raise InputError(f"{path}: is not valid TOML: {error}") from error
    except RecursionError as error:
        raise InputError(_TOO_DEEP.format(path)) from error
    if _is_deep(tree):
        raise InputError(_TOO_DEEP.format(path))
    return tree


def _is_deep(tree: dict[str, Any]) -> bool:
    """Return whether tables and arrays are nested deeper than any experiment needs, as by a key with many dots."""
    level: list[Any] = [tree]
    for _ in range(MOST_LEVELS):
        level = [child for part in level for child in (part.values() if isinstance(part, dict) else part)]
        level = [child for child in level if isinstance(child, dict | list)]
    return bool(level)


def _items(part: BaseModel) -> dict[str, Any]:
    """Return plain fields first, then the parts as tables, as TOML requires."""
    fields = type(part).model_fields
    values = {name: getattr(part, name) for name in sorted(fields, key=lambda name: name != "kind")}
    # TOML has no null: fields that are None become comments.
    given = {name: value for name, value in values.items() if value is not None and not _is_part(value)}
    plain = {name: _commented(value, fields[name].description) for name, value in given.items()}
    plain |= {
        name: tomlkit.comment(f"{name} = {fields[name].description}") for name, value in values.items() if value is None
    }
    return plain | {name: _table(value) for name, value in values.items() if _is_part(value)}


def _is_part(value: object) -> bool:
    return isinstance(value, BaseModel | dict)


def _table(part: BaseModel | dict[str, str]) -> Table:
    table = tomlkit.table()
    for key, item in (part if isinstance(part, dict) else _items(part)).items():
        table.add(item) if isinstance(item, Comment) else table.add(key, item)
    return table


def _commented(value: object, description: str | None) -> Any:  # noqa: ANN401 - tomlkit's items share no useful type
    item = tomlkit.item(list(value) if isinstance(value, tuple) else value)
    return item.comment(description) if description else item
