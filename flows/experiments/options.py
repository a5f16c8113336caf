"""Build an experiment from the command line: a preset, a TOML file or data, overridden by dotted options."""

import copy
import difflib
import shutil
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
from hallmark.tasks.ml.config.fields import describe_problem
from hallmark.tasks.ml.config.losses import RETIRED

Tree = dict[str, Any]

SHORT = {"target": "data.target"}
"""Short forms of options."""
COLUMN_OPTION = "data.columns"
"""Option with a value for each column of a table: `data.columns.age`."""


def experiment(source: str, tokens: Sequence[str]) -> Experiment:
    """Build the experiment of `hallmark train SOURCE TOKENS...`.

    Args:
        source: name of a preset, a `.toml` file, a table, or a folder of images.
        tokens: options such as `--training.epochs 20` or `--training.epochs=20`, as on the command line.

    Raises:
        InputError: the source or an option is invalid; one line says where and why.
    """
    return build(read(source), dict(parse_tokens(tokens)), source)


def read(source: str) -> Tree:
    """Return the fields of the experiment that a preset, a TOML file or data defines, without options.

    Raises:
        InputError: there is no such preset, or the file cannot be read.
    """
    if not source.strip():
        raise InputError(f"expected a preset, a .toml file, a table or a folder of images, found {source!r}")
    if source.startswith("-") and not Path(source).exists():
        raise InputError(f"expected a preset, a .toml file, a table or a folder of images before '{source}'")
    if source.endswith(".toml"):
        return own_data.with_absolute_path(toml.load(Path(source)), Path(source).parent)
    return own_data.read(source) if own_data.is_own(source) else presets.get(source).model_dump(mode="json")


def build(base: Tree, overrides: dict[str, str], source: str) -> Experiment:
    """Override fields of an experiment and validate it once.

    Args:
        base: the fields that `read(source)` returned.
        overrides: values as on the command line, by the path of the option.
        source: source of the experiment, for messages.

    Raises:
        InputError: a field is invalid, or fields contradict each other; one line says where and why.
    """
    tree = copy.deepcopy(base)
    # Kinds first: a new kind clears the other fields of its part, but must not clear other overrides.
    for path in sorted(overrides, key=lambda path: not path.endswith(".kind")):
        _set(tree, _steps(path), overrides[path])
    own_data.refuse_without_target(tree, source)
    tree = own_data.with_defaults(tree)
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        raise InputError(_explain(error, tree, source, overrides)) from error


def parse_tokens(tokens: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield path and value of each option, given as `--training.epochs 20` or `--training.epochs=20`.

    Raises:
        InputError: an option does not exist, or its value is missing.
    """
    rest = iter(tokens)
    for token in rest:
        if not token.startswith("--"):
            raise InputError(f"expected an option such as --training.epochs 20, found '{token}'")
        path, equals, value = token.removeprefix("--").partition("=")
        path = SHORT.get(path, path)
        # A retired option is refused by its part, with a hint at its replacement.
        if path not in fields() and not _is_column(path) and path.rpartition(".")[2] not in RETIRED:
            raise InputError(f"--{path}: there is no such option: {_nearest(path)}")
        if not equals:
            following = next(rest, None)
            if following is None or following.startswith("--"):
                raise InputError(f"--{path}: expected a value after it")
            value = following
        yield path, value


def fields(model: type[BaseModel] = Experiment, prefix: str = "") -> dict[str, list[FieldInfo]]:
    """Return the fields of each option by its path, such as `training.epochs`.

    An option has several fields if several kinds of a part have it.
    """
    by_path: dict[str, list[FieldInfo]] = {}
    for name, field in model.model_fields.items():
        parts = [kind for kind in _types(field.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        for part in parts:
            for path, known in fields(part, f"{prefix}{name}.").items():
                by_path.setdefault(path, []).extend(known)
        if not parts:
            by_path[prefix + name] = [field]
    return by_path


def describe() -> str:
    """Describe each option in one paragraph, for `hallmark train --help`."""
    width = min(shutil.get_terminal_size().columns, 100) - 4
    lines = ["Each field of the experiment is an option, followed by its value:", ""]
    for path, known in fields().items():
        text = f"{known[0].description}{_choices(known)}{_only(path)}"
        lines += [f"--{path}", *textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="    ")]
    short = (
        "--target COLUMN is short for --data.target. --data.columns.NAME sets the kind of the column NAME of a table."
    )
    return "\n".join([*lines, "", short])


def _choices(known: list[FieldInfo]) -> str:
    values = dict.fromkeys(value for field in known for value in _types(field.annotation) if isinstance(value, str))
    return f" [{', '.join(values)}]" if len(values) > 1 else ""


def _only(path: str) -> str:
    """Name the kinds that have an option, unless all kinds of its part have it."""
    parent, _, name = path.rpartition(".")
    parts: list[type[BaseModel]] = [Experiment]
    for step in parent.split(".") if parent else []:
        parts = [
            kind for part in parts if step in part.model_fields for kind in _types(part.model_fields[step].annotation)
        ]
    owners = [part for part in parts if name in part.model_fields]
    if len(owners) == len(parts):
        return ""
    kinds = [kind for part in owners for kind in _types(part.model_fields["kind"].annotation)]
    return f" (kind {', '.join(kinds)})"


def _types(annotation: Any) -> tuple[Any, ...]:  # noqa: ANN401 - typing has no common type
    return get_args(annotation) or (annotation,)


def _is_column(path: str) -> bool:
    return path.startswith(f"{COLUMN_OPTION}.")


def _steps(path: str) -> list[str]:
    """Split a path. The name of a column may contain dots."""
    return [*COLUMN_OPTION.split("."), path.removeprefix(f"{COLUMN_OPTION}.")] if _is_column(path) else path.split(".")


def _set(tree: Tree, path: list[str], value: str) -> None:
    part = tree
    for name in path[:-1]:
        part = part.setdefault(name, {})
        if not isinstance(part, dict):
            return  # pydantic reports that a table was expected
    if path[-1] == "kind" and part.get("kind") != value:
        # Another kind has other fields, which start from their defaults.
        part.clear()
    part[path[-1]] = value


def _explain(error: ValidationError, tree: Tree, source: str, overrides: dict[str, str]) -> str:
    """Describe the first error: where, what was expected, what was found."""
    problems = error.errors(include_url=False)
    path = _path(problems[0]["loc"], tree)
    where = f"--{path}" if path in overrides else f"{source}: {path}" if path else source
    if problems[0]["type"] == "extra_forbidden":
        if path in fields():
            return f"{where}: kind '{_kind(path, tree)}' has no such option"
        return f"{where}: there is no such option: {_nearest(path)}"
    if problems[0]["type"] == "union_tag_not_found":
        return f"{where}: kind is missing: expected one of{_choices(fields()[f'{path}.kind'])}"
    expected = [describe_problem(problem["msg"]) for problem in problems if _path(problem["loc"], tree) == path]
    given = problems[0]["input"]
    text = repr(given)
    found = "" if isinstance(given, dict | BaseModel) else f", found {text[:80]}{'...' * (len(text) > 80)}"
    return f"{where}: {' or '.join(expected)}{found}"


def _kind(path: str, tree: Tree) -> str:
    """Return the kind of the part that a field belongs to."""
    part = tree
    for name in path.split(".")[:-1]:
        part = part[name]
    return str(part["kind"])


def _path(location: tuple[int | str, ...], tree: Tree) -> str:
    """Convert pydantic's location into a path, without tags of unions and branches of types."""
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


def _nearest(path: str) -> str:
    near = difflib.get_close_matches(path, fields(), n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else "run `hallmark train --help` to list them"
