"""Refuse a name that was derived from a folder and belongs to a model of another source."""

from collections.abc import Sequence
from pathlib import Path

from hallmark.flows.experiments import options, presets
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.data import Images, Own
from hallmark.tasks.ml.config.experiment import Experiment


def refuse(source: str, tokens: Sequence[str], experiment: Experiment) -> None:
    """Refuse a folder whose name is that of a preset, or of a model whose champion was trained on something else.

    A name that is given with `--name` or in a TOML file is used as it is, so that a folder can be moved.

    Args:
        source: the source on the command line.
        tokens: its options.
        experiment: the experiment that they define.

    Raises:
        InputError: the name is taken.
    """
    data, name = experiment.data, experiment.name
    if not isinstance(data, Images) or source.endswith(".toml") or "name" in dict(options.parse_tokens(tokens)):
        return
    if name in presets.PRESETS:
        raise InputError(f"{source}: '{name}' is the name of a preset: add --name and another name")
    from hallmark.tasks.promotion import champions  # imports MLflow

    version = champions.champion(name)
    before = champions.experiment(name, version) if version else None
    if before is None:
        return
    other = before.data
    if isinstance(other, Images) and Path(other.path).resolve() == Path(data.path).resolve():
        return
    origin = other.path if isinstance(other, Own) else other.kind
    raise InputError(
        f"{source}: the model '{name}' was trained on {origin}: add --name and another name, or --name {name} if this "
        "is the same data"
    )
