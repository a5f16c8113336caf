"""Refuse a name that was derived from a file or folder and belongs to a model of another source."""

from collections.abc import Collection, Sequence
from pathlib import Path

from hallmark.flows.experiments import options, presets
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config import toml
from hallmark.tasks.ml.config.data import Data, Own
from hallmark.tasks.ml.config.experiment import Experiment


def refuse(source: str, tokens: Sequence[str], experiment: Experiment) -> None:
    """Refuse the experiment of a command whose name was derived and is taken; see `refuse_derived`.

    Args:
        source: the source on the command line.
        tokens: its options.
        experiment: the experiment that they define.

    Raises:
        InputError: the name is taken.
    """
    if is_derived(experiment, source, dict(options.parse_tokens(tokens))):
        refuse_derived(experiment, source, "--name")


def is_derived(experiment: Experiment, source: str, given: Collection[str]) -> bool:
    """Return whether the name of own data was derived from its source, not chosen by an option or in a TOML file.

    A chosen name is used as it is, so that a file or folder can be moved.

    Args:
        experiment: the experiment.
        source: what it was read from: a preset, a TOML file, a table or a folder of images.
        given: paths of the options that are given, such as `training.epochs`.
    """
    is_chosen = "name" in given or (source.endswith(".toml") and toml.sets_name(Path(source)))
    return isinstance(experiment.data, Own) and not is_chosen


def refuse_derived(experiment: Experiment, source: str, option: str) -> None:
    """Refuse own data whose name is that of a preset, or of a model whose champion was trained on something else.

    Args:
        experiment: an experiment whose name was derived from its source.
        source: source of the experiment, for the message.
        option: the option that sets a name, for the message.

    Raises:
        InputError: the name is taken.
    """
    name = experiment.name
    if name in presets.PRESETS:
        raise InputError(f"{source}: '{name}' is the name of a preset: add {option} and another name")
    from hallmark.tasks.promotion import champions  # imports MLflow

    version = champions.champion(name)
    before = champions.experiment(name, version) if version else None
    if before is None:
        return
    other = before.data
    if are_of_one_source(experiment.data, other):
        return
    origin = other.path if isinstance(other, Own) else other.kind
    raise InputError(
        f"{source}: the model '{name}' was trained on {origin}: add {option} and another name, or {option} {name} if "
        "this is the same data"
    )


def are_of_one_source(data: Data, other: Data) -> bool:
    """Return whether two experiments are trained on the same file or folder, or both on data of the same kind."""
    if isinstance(data, Own) and isinstance(other, Own):
        return Path(other.path).resolve() == Path(data.path).resolve()
    return data.kind == other.kind
