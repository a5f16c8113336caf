"""Build the experiments of a sweep from the command line: all combinations of values, or members drawn at random."""

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
An option of the model or the training varies if its value is

0.001,0.01,0.1
    a list of numbers, choices or true,false
0..4
    the integers from 0 to 4
32/64/64,32
    lists separated by slashes, for an option
    that takes a list, such as --model.hidden
uniform:0:0.1
    with --random: a number from 0 to 0.1
loguniform:1e-4:1
    with --random: a number from 1e-4 to 1, all
    orders of magnitude equally likely

Without --random, the members are all combinations of the values. With --random, each value is drawn \
independently, also from lists and ranges. No member is drawn twice. Options that take integers are given integers, \
with both ends included."""

MAX_MEMBERS = 500
"""Maximum number of members of a sweep. Prefect limits the parameters of a flow to half a megabyte."""

MAX_DRAWS = 100
"""Maximum number of draws for each requested member; after these, no more different members are expected."""

INCOMPARABLE = {
    "name": "all members share one name",
    "data": "members are compared by validation loss, which requires the same rows for all",
    "export": "members are compared by validation loss, which does not depend on the export",
    "training.loss": "validation losses can only be compared if all members use the same loss",
}
"""Options that cannot vary, with the reason. `training.loss.reduction` can: a validation loss is always a mean."""

NAMES = ("data.path", "data.target", "data.ignore", "data.columns.", *(f"data.split.{by}" for by in BY_COLUMN))
"""Options that name files and columns, whose values may contain commas, slashes and dots, so they are not lists."""

Value = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Grid:
    """The experiments of a sweep and the options in which they differ.

    axes: dotted paths, in the order of the command line.
    members: different, validated experiments. In a grid, the last axis varies fastest.
    """

    axes: tuple[str, ...]
    members: tuple[Experiment, ...]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Uniform or log-uniform distribution from `low` to `high`."""

    low: float
    high: float
    logarithmic: bool
    whole: bool

    def draw(self, stream: Random) -> float | int:
        """Draw a number, both ends included: integers as Optuna's `suggest_int`, others rounded to 6 digits.

        A label shows six digits, so an option with the value of a label gives the same experiment.
        """
        # With half a unit added at both ends, rounding gives the ends the same probability as the other integers.
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
    """Build all combinations of the values in `hallmark sweep SOURCE TOKENS...`.

    Args:
        source: name of a preset, a `.toml` file, a table, or a folder of images.
        tokens: options such as `--training.lr 0.01,0.1`, as on the command line; see `GRAMMAR`.

    Raises:
        InputError: the source or an option is invalid; one line says where and why.
    """
    listed: dict[str, list[str] | range] = {}
    for path, values in _read(tokens).items():
        if isinstance(values, Distribution):
            raise InputError(
                f"--{path}: a distribution needs --random, such as --random 32: add it, or list values as 0.01,0.1"
            )
        listed[path] = values
    if (count := math.prod(map(len, listed.values()))) > MAX_MEMBERS:
        raise InputError(
            f"{source}: the grid has {count:,} members: expected at most {MAX_MEMBERS:,}: "
            "list fewer values, or draw some of the members with --random 32"
        )
    return _grid(source, listed, itertools.product(*listed.values()))


def random(source: str, tokens: Sequence[str], members: int, seed: int) -> Grid:
    """Draw the members of `hallmark sweep SOURCE --random MEMBERS TOKENS...` at random.

    Each option has its own random stream, so neither the order of the options nor the number of members changes the
    values that are drawn.

    Args:
        source: name of a preset, a `.toml` file, a table, or a folder of images.
        tokens: options such as `--training.lr loguniform:1e-4:1`, as on the command line; see `GRAMMAR`.
        members: number of members.
        seed: the same seed gives the same members on every machine.

    Raises:
        InputError: the source or an option is invalid; one line says where and why.
    """
    if not 1 <= members <= MAX_MEMBERS:
        raise InputError(f"--random: expected 1 to {MAX_MEMBERS:,} members, found {members:,}")
    values = _read(tokens)
    streams = {path: Random(f"{seed} {path}") for path in values}  # noqa: S311 - guards no secret
    drawn: dict[tuple[object, ...], None] = {}
    for _ in range(MAX_DRAWS * members):
        drawn.setdefault(tuple(_draw(among, streams[path]) for path, among in values.items()))
        if len(drawn) == members:
            return _grid(source, values, drawn)
    raise InputError(
        f"--random: expected {members:,} different members, found {len(drawn):,}: "
        "request fewer members, give more values, or omit --random"
    )


def axis_values(axes: Sequence[str], experiment: Experiment) -> dict[str, Value]:
    """Return the value of a member on each axis; a list as on the command line, `64,32`."""
    flat = experiment.flat()
    return {path: ",".join(map(str, flat[path])) if isinstance(flat[path], list) else flat[path] for path in axes}


def label(axes: Sequence[str], experiment: Experiment) -> str:
    """Return the options that distinguish a member: `training.lr=0.01 training.seed=3`, floats to 6 digits."""
    return " ".join(f"{path}={_short(value)}" for path, value in axis_values(axes, experiment).items())


def _short(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _grid(source: str, values: Mapping[str, Values], combinations: Iterable[tuple[object, ...]]) -> Grid:
    """Build the members with these combinations of values, in this order."""
    base = options.read(source)
    axes = tuple(path for path, among in values.items() if _varies(among))
    members: dict[str, Experiment] = {}
    overrides_of: dict[str, dict[str, str]] = {}
    for combination in combinations:
        overrides = dict(zip(values, map(str, combination), strict=True))
        member = _member(base, overrides, source, axes)
        if (known := overrides_of.get(member.digest)) is not None:
            path = next(path for path in axes if known[path] != overrides[path])
            raise InputError(
                f"--{path}: {known[path]} and {overrides[path]} give the same experiment: remove one of them"
            )
        members[member.digest], overrides_of[member.digest] = member, overrides
    return Grid(axes, tuple(members.values()))


def _member(base: options.Tree, overrides: dict[str, str], source: str, axes: Sequence[str]) -> Experiment:
    try:
        member = options.build(base, overrides, source)
    except InputError as error:
        # A message that names an option is complete. A contradiction may come from any option of the member.
        which = "" if str(error).startswith("--") else f" (member {' '.join(f'{p}={overrides[p]}' for p in axes)})"
        raise InputError(f"{error}{which}") from error
    _refuse_without_validation(member, overrides, source)
    return member


def _refuse_without_validation(member: Experiment, overrides: dict[str, str], source: str) -> None:
    """Refuse a member without a validation loss, by which the sweep chooses."""
    if not member.data.split.validation:
        path, value, remedy = "data.split.validation", "0", "--data.split.validation 0.2"
        if member.data.split.method == "resubstitution":
            remedy = f"--data.split.method stratified {remedy} --data.split.test 0.2"
    elif member.training.monitor != "validation":
        path, value, remedy = "training.monitor", member.training.monitor, "--training.monitor validation"
    else:
        return
    where = f"--{path}" if path in overrides else f"{source}: {path}"
    raise InputError(f"{where}: a sweep chooses by validation loss, found '{value}': use {remedy}")


def _read(tokens: Sequence[str]) -> dict[str, Values]:
    """Return the values of each option by its path: one value, or several if the option varies."""
    values: dict[str, Values] = {}
    for path, text in options.parse_tokens(tokens):
        if path in values:
            raise InputError(f"--{path}: given twice: put all values into one list")
        values[path] = _values(path, text)
        if _varies(values[path]):
            _refuse_incomparable(path)
    if not any(map(_varies, values.values())):
        commas = [path for path in values if _takes_a_list(path)]
        hint = f"; separate the lists of --{commas[0]} by slashes, as 32/64/64,32" if commas else ""
        raise InputError(f"no option varies: give at least one option several values, as --training.seed 0..4{hint}")
    return values


def _varies(values: Values) -> bool:
    return isinstance(values, Distribution) or len(values) > 1


def _refuse_incomparable(path: str) -> None:
    for part, why in INCOMPARABLE.items():
        if f"{path}.".startswith(f"{part}.") and path != "training.loss.reduction":
            raise InputError(f"--{path}: cannot vary within a sweep, because {why}: give one value")


def _values(path: str, text: str) -> Values:
    """Parse the value of an option: one value, or a list, range or distribution if its type allows it."""
    if path.startswith(NAMES):
        return [text]
    separator = "/" if _takes_a_list(path) else ","
    types = _types(path)
    # The value of a text option may look like a range.
    if str in types or not (":" in text or ".." in text):
        return _list(path, text, separator)
    if int not in types and float not in types:
        raise InputError(
            f"--{path}: expected no range or distribution, found '{text}': list values separated by '{separator}'"
        )
    return _distribution(path, text, whole=float not in types) if ":" in text else _range(path, text)


def _takes_a_list(path: str) -> bool:
    return any(get_origin(kind) is tuple for kind in _types(path))


def _types(path: str) -> list[Any]:
    """Return the types of an option in all kinds that have it: int, float, Literal[...], tuple[...]."""
    # A retired option has no fields here and is refused by its part.
    return [kind for field in options.fields().get(path, []) for kind in _leaves(field.annotation)]


def _leaves(annotation: Any) -> list[Any]:  # noqa: ANN401 - typing has no common type
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
        raise InputError(f"--{path}: expected values separated by '{separator}', found '{text}'")
    if repeated := [item for item in items if items.count(item) > 1]:
        raise InputError(f"--{path}: {repeated[0]} is in the list twice: remove one of them")
    return items


def _range(path: str, text: str) -> range:
    # At most 15 digits, because the random generator draws 53 bits.
    ends = re.fullmatch(r"(-?[0-9]{1,15})\.\.(-?[0-9]{1,15})", text)
    if not ends:
        raise InputError(
            f"--{path}: expected whole numbers as 0..4 (15 digits at most) or a list as 0,1,2, found '{text}'"
        )
    low, high = map(int, ends.groups())
    if high < low:
        raise InputError(f"--{path}: the range is reversed, found '{text}': write {high}..{low}")
    return range(low, high + 1)


def _distribution(path: str, text: str, *, whole: bool) -> Distribution:
    name, *ends = text.split(":")
    if name not in ("uniform", "loguniform") or len(ends) != 2:
        raise InputError(f"--{path}: expected uniform:LOW:HIGH or loguniform:LOW:HIGH, found '{text}'")
    low, high = (_number(path, end, text, whole=whole) for end in ends)
    if low >= high:
        raise InputError(f"--{path}: expected LOW below HIGH, found '{text}': swap them, or give one value")
    if name == "loguniform" and low <= 0:
        raise InputError(f"--{path}: expected LOW above 0 for loguniform, found '{text}': increase it or use uniform")
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
    """Draw one value using only `random()`, whose numbers for a seed are the same in all versions of Python."""
    if isinstance(values, Distribution):
        return values.draw(stream)
    return values[int(stream.random() * len(values))]
