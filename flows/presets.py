"""Named experiments, each a few lines derived from another. The first line of a docstring is its description."""

import difflib
from collections.abc import Callable
from typing import Any, Literal

from tasks.ml.config import MLP, Digits, Experiment, Iris, Split, Training
from tasks.ml.errors import InputError

Kind = Literal["published", "corrected", "reference", "own"]


def iris() -> Experiment:
    """Iris flowers, MLP, scaled by the training rows alone, with a validation split."""
    return Experiment(
        name="iris",
        data=Iris(kind="iris"),
        model=MLP(kind="mlp", hidden=(50, 50)),
        training=Training(epochs=100),
    )


def iris_as_published() -> Experiment:
    """The Iris tutorial as it stands: scaler fitted on all rows, no validation split."""
    return _derive(
        iris(),
        name="iris_as_published",
        data=Iris(
            kind="iris",
            split=Split(method="shuffled", validation=0, test=0.2, seed=2),
            scaling_fitted_on="all",
        ),
        training=Training(epochs=100, lr=0.001),
    )


def digits() -> Experiment:
    """8 x 8 handwritten digits, MLP in batches of 32."""
    return Experiment(
        name="digits",
        data=Digits(kind="digits"),
        model=MLP(kind="mlp", hidden=(128,)),
        training=Training(epochs=60, batch_size=32, lr=0.002),
    )


PRESETS: dict[str, tuple[Kind, Callable[[], Experiment]]] = {
    "iris": ("corrected", iris),
    "iris_as_published": ("published", iris_as_published),
    "digits": ("corrected", digits),
}


def get(name: str) -> Experiment:
    """Build the preset of this name.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(PRESETS)}"
        raise InputError(f"there is no preset '{name}': {hint}")
    return PRESETS[name][1]()


def kind_of(experiment: Experiment) -> Kind:
    """The kind of the preset that computes the same, whatever its name; `own` for any other experiment.

    A published preset with one option changed is no longer what was published.
    """
    return next((kind for kind, build in PRESETS.values() if build().digest == experiment.digest), "own")


def run_name(experiment: Experiment) -> str:
    """The experiment's name and what was changed in the preset it names: `iris training.epochs=20`."""
    if experiment.name not in PRESETS:
        return experiment.name
    preset = get(experiment.name).flat()
    changed = [f"{path}={value}" for path, value in experiment.flat().items() if preset.get(path) != value]
    return " ".join([experiment.name, *changed])


def _derive(experiment: Experiment, **changes: Any) -> Experiment:  # noqa: ANN401 - any field of the experiment
    return Experiment.model_validate(dict(experiment) | changes)
