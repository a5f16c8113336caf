import pytest

from hallmark.flows.experiments import presets
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.experiment import Experiment


def changed(experiment: Experiment, **training: object) -> Experiment:
    return experiment.model_copy(update={"training": experiment.training.model_copy(update=training)})


def test_each_preset_has_a_kind() -> None:
    for name, (kind, build) in presets.PRESETS.items():
        assert presets.kind_of(build()) == kind
        assert name.endswith("_as_published") == (kind == "published")
    assert {name: presets.PRESETS[name][0] for name in ("iris", "iris_as_published", "digits")} == {
        "iris": "corrected",
        "iris_as_published": "published",
        "digits": "corrected",
    }
    reference_presets = {name for name, (kind, _) in presets.PRESETS.items() if kind == "reference"}
    assert reference_presets == {"iris_softmax", "iris_softmax_l2", "iris_softmax_sigmoid"}


def test_presets_are_different_experiments() -> None:
    assert len({presets.get(name).digest for name in presets.PRESETS}) == len(presets.PRESETS) == 18


def test_changed_preset_has_kind_own_but_renamed_preset_keeps_its_kind() -> None:
    published = presets.get("iris_as_published")
    assert presets.kind_of(changed(published, epochs=7)) == "own"
    assert presets.kind_of(published.model_copy(update={"name": "mine"})) == "published"


def test_run_name_lists_the_changes_to_the_preset() -> None:
    assert presets.run_name(presets.get("iris")) == "iris"
    assert (
        presets.run_name(changed(presets.get("iris"), epochs=20, seed=3)) == "iris training.epochs=20 training.seed=3"
    )
    assert presets.run_name(presets.get("iris").model_copy(update={"name": "mine"})) == "mine"


def test_iris_as_published_has_the_settings_of_the_tutorial() -> None:
    flat = presets.get("iris_as_published").flat()
    expected = {
        "data.scaling_fitted_on": "all",
        "data.split.test": 0.2,
        "data.split.seed": 2,
        "data.split.validation": 0.0,
        "model.hidden": [50, 50],
        "training.optimizer": "adam",
        "training.lr": 0.001,
        "training.epochs": 100,
        "training.batch_size": "full",
    }
    assert expected.items() <= flat.items()


def test_unknown_preset_is_refused_with_the_closest_name() -> None:
    with pytest.raises(InputError, match=r"'irsi'.*did you mean 'iris'"):
        presets.get("irsi")
    with pytest.raises(InputError, match="run `hallmark presets` to list them"):
        presets.get("zzzzzz")
