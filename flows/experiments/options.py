"""From what was typed to an experiment: a preset or a TOML file, with dotted options laid over it."""

import copy
import difflib
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from hallmark.flows.experiments import own_data, presets
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config import toml
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.config.losses import RETIRED

Tree = dict[str, Any]

SHORT = {"target": "data.target"}
"""Options that may be said without the part they belong to."""
NAMED = "data.columns"
"""An option of which each column of a table has its own: `data.columns.age`."""


def experiment(source: str, tokens: Sequence[str]) -> Experiment:
    """Build the experiment that `hallmark train SOURCE TOKENS...` names.

    Args:
        source: name of a preset, a `.toml` file, a table, or a folder of images.
        tokens: `--training.epochs 20` or `--training.epochs=20`, as typed.

    Raises:
        InputError: anything that does not fit, in one line.
    """
    return build(read(source), dict(pairs(tokens)), source)


def read(source: str) -> Tree:
    """The fields of the preset, the TOML file or the data that `source` names, without any option.

    Raises:
        InputError: there is no such preset, or the file cannot be read.
    """
    if source.endswith(".toml"):
        return own_data.located(toml.load(Path(source)), Path(source).parent)
    return own_data.read(source) if own_data.is_own(source) else presets.get(source).model_dump(mode="json")


def build(base: Tree, overrides: dict[str, str], source: str) -> Experiment:
    """Lay options, by path as typed, over `base`, what `source` reads, and validate the whole once.

    Raises:
        InputError: anything that does not fit, in one line.
    """
    tree = copy.deepcopy(base)
    # Kinds first: a new kind clears its part, and must not clear what was given beside it.
    for path in sorted(overrides, key=lambda path: not path.endswith(".kind")):
        _set(tree, _steps(path), overrides[path])
    own_data.refuse_without_target(tree, source)
    tree = own_data.complete(tree)
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        raise InputError(_explain(error, tree, source, overrides)) from error


def pairs(tokens: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Take `--training.epochs 20` and `--training.epochs=20` apart into path and value.

    Raises:
        InputError: there is no such option, or a value is missing.
    """
    rest = iter(tokens)
    for token in rest:
        if not token.startswith("--"):
            raise InputError(f"'{token}': expected an option such as --training.epochs 20")
        path, equals, value = token.removeprefix("--").partition("=")
        path = SHORT.get(path, path)
        # A retired option is refused by its part, with today's spelling.
        if path not in fields() and not _is_named(path) and path.rpartition(".")[2] not in RETIRED:
            raise InputError(f"--{path}: there is no such option: {_nearest(path)}")
        if not equals:
            following = next(rest, None)
            if following is None or following.startswith("--"):
                raise InputError(f"--{path}: expected a value after it")
            value = following
        yield path, value


def fields(model: type[BaseModel] = Experiment, prefix: str = "") -> dict[str, list[FieldInfo]]:
    """Every option by its path, as `training.epochs`; several fields where several kinds have the option."""
    found: dict[str, list[FieldInfo]] = {}
    for name, field in model.model_fields.items():
        parts = [kind for kind in _types(field.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        for part in parts:
            for path, known in fields(part, f"{prefix}{name}.").items():
                found.setdefault(path, []).extend(known)
        if not parts:
            found[prefix + name] = [field]
    return found


def describe() -> str:
    """One paragraph an option, for `hallmark train --help`."""
    lines = ["Every field of the experiment is an option, followed by its value:", ""]
    for path, known in fields().items():
        text = f"{known[0].description}{_choices(known)}{_only(path)}"
        lines += [f"--{path}", *textwrap.wrap(text, 76, initial_indent="    ", subsequent_indent="    ")]
    short = "--target COLUMN is short for --data.target; --data.columns.NAME says what the column NAME of a table is."
    return "\n".join([*lines, "", short])


def _choices(known: list[FieldInfo]) -> str:
    values = dict.fromkeys(value for field in known for value in _types(field.annotation) if isinstance(value, str))
    return f" [{', '.join(values)}]" if len(values) > 1 else ""


def _only(path: str) -> str:
    """The kinds that have an option, where others of the same part have it not."""
    of, _, name = path.rpartition(".")
    parts: list[type[BaseModel]] = [Experiment]
    for step in of.split(".") if of else []:
        parts = [
            kind for part in parts if step in part.model_fields for kind in _types(part.model_fields[step].annotation)
        ]
    having = [part for part in parts if name in part.model_fields]
    if len(having) == len(parts):
        return ""
    kinds = [kind for part in having for kind in _types(part.model_fields["kind"].annotation)]
    return f" (kind {', '.join(kinds)})"


def _types(annotation: Any) -> tuple[Any, ...]:  # noqa: ANN401 - what typing gives
    return get_args(annotation) or (annotation,)


def _is_named(path: str) -> bool:
    return path.startswith(f"{NAMED}.")


def _steps(path: str) -> list[str]:
    """A path taken apart; the name of a column may have dots of its own."""
    return [*NAMED.split("."), path.removeprefix(f"{NAMED}.")] if _is_named(path) else path.split(".")


def _set(tree: Tree, path: list[str], value: str) -> None:
    part = tree
    for name in path[:-1]:
        part = part.setdefault(name, {})
        if not isinstance(part, dict):
            return  # pydantic will say that a table belongs here
    if path[-1] == "kind" and part.get("kind") != value:
        # Another kind has other fields, and starts from their defaults.
        part.clear()
    part[path[-1]] = value


def _explain(error: ValidationError, tree: Tree, source: str, overrides: dict[str, str]) -> str:
    """The first thing that is wrong: where, what was expected, what was found."""
    problems = error.errors(include_url=False)
    path = _path(problems[0]["loc"], tree)
    where = f"--{path}" if path in overrides else f"{source}: {path}" if path else source
    if problems[0]["type"] == "extra_forbidden":
        if path in fields():
            return f"{where}: kind '{_kind(path, tree)}' has no such option"
        return f"{where}: there is no such option: {_nearest(path)}"
    if problems[0]["type"] == "union_tag_not_found":
        return f"{where}: kind is missing: expected one of{_choices(fields()[f'{path}.kind'])}"
    expected = [_sentence(problem["msg"]) for problem in problems if _path(problem["loc"], tree) == path]
    found = problems[0]["input"]
    return f"{where}: {' or '.join(expected)}" + ("" if isinstance(found, dict | BaseModel) else f", found {found!r}")


def _kind(path: str, tree: Tree) -> str:
    """The kind of the part that holds a field."""
    part = tree
    for name in path.split(".")[:-1]:
        part = part[name]
    return str(part["kind"])


def _path(location: tuple[int | str, ...], tree: Tree) -> str:
    """Pydantic's location without the tags of unions and the branches of types."""
    names: list[str] = []
    part: Any = tree
    for step in location:
        if isinstance(part, dict) and step in (part.get("kind"), None):
            continue
        if not isinstance(part, dict):
            break
        names.append(str(step))
        part = part.get(step)
    return ".".join(names)


def _sentence(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _nearest(path: str) -> str:
    near = difflib.get_close_matches(path, fields(), n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else "`hallmark train --help` lists them"
