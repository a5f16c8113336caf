"""From what was typed to the experiments of a sweep: every combination of listed values, or members drawn at random."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any, Literal, get_args, get_origin

from hallmark.flows.experiments import options
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.data import BY_COLUMN
from hallmark.tasks.ml.config.experiment import Experiment

GRAMMAR = """\
An option of the model or the training varies where its value is

0.001,0.01,0.1
    a list, of numbers, choices or true,false
0..4
    the whole numbers from 0 to 4
32/64/64,32
    of an option that takes a list itself, such as --model.hidden:
    lists between slashes
uniform:0:0.1
    with --random: any number from 0 to 0.1, each as likely
loguniform:1e-4:1
    with --random: any number from 1e-4 to 1, each order of magnitude as likely

Without --random, every combination is a member. With it, values of lists
and ranges are drawn too, each as likely; no member is drawn twice; options
that take whole numbers are given whole numbers, both ends included."""

MOST = 500
"""So many members a sweep may have: Prefect takes half a megabyte of a flow's parameters."""

TRIES = 100
"""So many draws for each member that was asked for, before there are taken to be no more."""

INCOMPARABLE = {
    "name": "the members share one name",
    "data": "members are compared by their validation loss, which takes the same rows for all",
    "export": "members are compared by their validation loss, and the export changes none",
    "training.loss": "a validation loss is compared with others of the same loss only",
}
"""What may not vary. `training.loss.reduction` may: a validation loss is a mean under each."""

NAMES = ("data.path", "data.target", "data.ignore", "data.columns.", *(f"data.split.{by}" for by in BY_COLUMN))
"""Options that name files and columns, which may have commas, slashes and dots of their own: they list no values."""

Value = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Grid:
    """The experiments of a sweep, and the options in which they differ.

    axes: dotted paths, in the order typed.
    members: each validated whole, no two the same. Of a grid, the last axis varies fastest.
    """

    axes: tuple[str, ...]
    members: tuple[Experiment, ...]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Where numbers are drawn from: `low` to `high`, evenly or evenly in their logarithm."""

    low: float
    high: float
    logarithmic: bool
    whole: bool

    def draw(self, stream: Random) -> float | int:
        """One number, both ends included; whole ones as Optuna's `suggest_int` draws them, others to 6 digits.

        Six digits are what a label shows: typed again, they make the same experiment.
        """
        # Rounded, half a unit beyond the ends gives the ends the same chance as the others.
        margin = 0.5 if self.whole else 0.0
        low, high = self.low - margin, self.high + margin
        share = stream.random()
        if self.logarithmic:
            drawn = math.exp(math.log(low) + (math.log(high) - math.log(low)) * share)
        else:
            drawn = low + (high - low) * share
        drawn = round(drawn) if self.whole else float(f"{drawn:.6g}")
        return min(max(drawn, self.low), self.high)


Values = list[str] | range | Distribution


def grid(source: str, tokens: Sequence[str]) -> Grid:
    """Every combination of the values that `hallmark sweep SOURCE TOKENS...` lists.

    Args:
        source: a preset's name, or a file that ends in `.toml`.
        tokens: `--training.lr 0.01,0.1` and the like, as typed; see `GRAMMAR`.

    Raises:
        InputError: anything that does not fit, in one line.
    """
    listed: dict[str, list[str] | range] = {}
    for path, values in _read(tokens).items():
        if isinstance(values, Distribution):
            raise InputError(f"--{path}: a distribution needs --random: say --random 32, or list values as 0.01,0.1")
        listed[path] = values
    if (count := math.prod(map(len, listed.values()))) > MOST:
        raise InputError(
            f"{source}: the grid has {count:,} members: expected at most {MOST:,}: "
            "list fewer values, or draw some of them with --random 32"
        )
    return _grid(source, listed, itertools.product(*listed.values()))


def random(source: str, tokens: Sequence[str], members: int, seed: int) -> Grid:
    """Members drawn at random, as `hallmark sweep SOURCE --random MEMBERS TOKENS...` says.

    Each option has a stream of its own, so that neither their order nor a further member changes what was drawn.

    Args:
        source: a preset's name, or a file that ends in `.toml`.
        tokens: `--training.lr loguniform:1e-4:1` and the like, as typed; see `GRAMMAR`.
        members: how many.
        seed: the same seed draws the same members, on any machine.

    Raises:
        InputError: anything that does not fit, in one line.
    """
    if not 1 <= members <= MOST:
        raise InputError(f"--random: expected 1 to {MOST:,} members, found {members:,}")
    values = _read(tokens)
    streams = {path: Random(f"{seed} {path}") for path in values}  # noqa: S311 - guards no secret
    drawn: dict[tuple[object, ...], None] = {}
    for _ in range(TRIES * members):
        drawn.setdefault(tuple(_draw(among, streams[path]) for path, among in values.items()))
        if len(drawn) == members:
            return _grid(source, values, drawn)
    raise InputError(
        f"--random: expected {members:,} different members, found {len(drawn):,}: "
        "ask for fewer, give more values, or leave --random out"
    )


def row(axes: Sequence[str], experiment: Experiment) -> dict[str, Value]:
    """What a member has on each axis; a list as it is typed, `64,32`."""
    flat = experiment.flat()
    return {path: ",".join(map(str, flat[path])) if isinstance(flat[path], list) else flat[path] for path in axes}


def label(axes: Sequence[str], experiment: Experiment) -> str:
    """What tells a member from the others: `training.lr=0.01 training.seed=3`, fractions to 6 digits."""
    return " ".join(f"{path}={_short(value)}" for path, value in row(axes, experiment).items())


def _short(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _grid(source: str, values: Mapping[str, Values], combinations: Iterable[tuple[object, ...]]) -> Grid:
    """The members with these values, in this order."""
    base = options.read(source)
    axes = tuple(path for path, among in values.items() if _varies(among))
    members: dict[str, Experiment] = {}
    typed: dict[str, dict[str, str]] = {}
    for combination in combinations:
        overrides = dict(zip(values, map(str, combination), strict=True))
        member = _member(base, overrides, source, axes)
        if (known := typed.get(member.digest)) is not None:
            path = next(path for path in axes if known[path] != overrides[path])
            raise InputError(f"--{path}: {known[path]} and {overrides[path]} make the same experiment: leave one out")
        members[member.digest], typed[member.digest] = member, overrides
    return Grid(axes, tuple(members.values()))


def _member(base: options.Tree, overrides: dict[str, str], source: str, axes: Sequence[str]) -> Experiment:
    try:
        member = options.build(base, overrides, source)
    except InputError as error:
        # An option that is named is enough. A contradiction may lie in any of them.
        which = "" if str(error).startswith("--") else f" (member {' '.join(f'{p}={overrides[p]}' for p in axes)})"
        raise InputError(f"{error}{which}") from error
    _refuse_without_validation(member, overrides, source)
    return member


def _refuse_without_validation(member: Experiment, overrides: dict[str, str], source: str) -> None:
    """What a sweep chooses by must be there, and be validation."""
    if not member.data.split.validation:
        path, found, remedy = "data.split.validation", "0", "--data.split.validation 0.2"
        if member.data.split.method == "resubstitution":
            remedy = f"--data.split.method stratified {remedy} --data.split.test 0.2"
    elif member.training.monitor != "validation":
        path, found, remedy = "training.monitor", member.training.monitor, "--training.monitor validation"
    else:
        return
    where = f"--{path}" if path in overrides else f"{source}: {path}"
    raise InputError(f"{where}: a sweep chooses by the validation loss, found '{found}': give {remedy}")


def _read(tokens: Sequence[str]) -> dict[str, Values]:
    """The values of each option by its path: one, or several to vary over."""
    found: dict[str, Values] = {}
    for path, text in options.pairs(tokens):
        if path in found:
            raise InputError(f"--{path}: given twice: give all its values in one list")
        found[path] = _values(path, text)
        if _varies(found[path]):
            _refuse_incomparable(path)
    if not any(map(_varies, found.values())):
        commas = [path for path in found if _takes_a_list(path)]
        hint = f"; of --{commas[0]} lists between slashes, as 32/64/64,32" if commas else ""
        raise InputError(f"nothing varies: give at least one option several values, as --training.seed 0..4{hint}")
    return found


def _varies(values: Values) -> bool:
    return isinstance(values, Distribution) or len(values) > 1


def _refuse_incomparable(path: str) -> None:
    for part, why in INCOMPARABLE.items():
        if f"{path}.".startswith(f"{part}.") and path != "training.loss.reduction":
            raise InputError(f"--{path}: cannot vary within a sweep: {why}: give one value")


def _values(path: str, text: str) -> Values:
    """What follows an option: one value, a list, a range or a distribution, as far as its type has them."""
    if path.startswith(NAMES):
        return [text]
    separator = "/" if _takes_a_list(path) else ","
    types = _types(path)
    # A name may hold what looks like a range.
    if str in types or not (":" in text or ".." in text):
        return _list(path, text, separator)
    if int not in types and float not in types:
        raise InputError(
            f"--{path}: it takes no numbers from a range, found '{text}': list values between '{separator}'"
        )
    return _distribution(path, text, whole=float not in types) if ":" in text else _range(path, text)


def _takes_a_list(path: str) -> bool:
    return any(get_origin(kind) is tuple for kind in _types(path))


def _types(path: str) -> list[Any]:
    """The types that an option takes, of all kinds that have it: int, float, Literal[...], tuple[...]."""
    # A retired option is unknown here and refused by its part.
    return [kind for field in options.fields().get(path, []) for kind in _leaves(field.annotation)]


def _leaves(annotation: Any) -> list[Any]:  # noqa: ANN401 - what typing gives
    origin = get_origin(annotation)
    if origin in (None, tuple, Literal):
        return [annotation]
    inside = get_args(annotation)[:1] if origin is Annotated else get_args(annotation)
    return [leaf for part in inside for leaf in _leaves(part)]


def _list(path: str, text: str, separator: str) -> list[str]:
    if separator not in text:
        return [text]
    items = [item.strip() for item in text.split(separator) if item.strip()]
    if not items:
        raise InputError(f"--{path}: expected values between '{separator}', found '{text}'")
    if twice := [item for item in items if items.count(item) > 1]:
        raise InputError(f"--{path}: {twice[0]} is in the list twice: leave one out")
    return items


def _range(path: str, text: str) -> range:
    # Fifteen digits: more would not fit the generator, which draws 53 bits.
    ends = re.fullmatch(r"(-?[0-9]{1,15})\.\.(-?[0-9]{1,15})", text)
    if not ends:
        raise InputError(
            f"--{path}: expected whole numbers as 0..4 (15 digits at most) or a list as 0,1,2, found '{text}'"
        )
    low, high = map(int, ends.groups())
    if high < low:
        raise InputError(f"--{path}: the range runs backwards, found '{text}': write {high}..{low}")
    return range(low, high + 1)


def _distribution(path: str, text: str, *, whole: bool) -> Distribution:
    name, *ends = text.split(":")
    if name not in ("uniform", "loguniform") or len(ends) != 2:
        raise InputError(f"--{path}: expected uniform:LOW:HIGH or loguniform:LOW:HIGH, found '{text}'")
    low, high = (_number(path, end, text, whole=whole) for end in ends)
    if low >= high:
        raise InputError(f"--{path}: expected LOW below HIGH, found '{text}': swap them, or give one value")
    if name == "loguniform" and low <= 0:
        raise InputError(f"--{path}: expected LOW above 0, as logarithms need, found '{text}': raise it or use uniform")
    return Distribution(low, high, logarithmic=name == "loguniform", whole=whole)


def _number(path: str, end: str, text: str, *, whole: bool) -> float:
    try:
        number = float(end)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (whole and not (number.is_integer() and abs(number) < 1e15)):
        kind = "whole number (15 digits at most)" if whole else "number"
        raise InputError(f"--{path}: expected a {kind} at each end, found '{end}' in '{text}'")
    return int(number) if whole else number


def _draw(values: Values, stream: Random) -> object:
    """One value, by `random()` alone: Python keeps the numbers it gives for a seed from version to version."""
    if isinstance(values, Distribution):
        return values.draw(stream)
    return values[int(stream.random() * len(values))]
