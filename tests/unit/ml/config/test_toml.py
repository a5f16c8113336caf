from pathlib import Path

import pytest

from hallmark.flows.experiments import options, presets
from hallmark.tasks.ml.config import toml
from hallmark.tasks.ml.config.data import Iris
from hallmark.tasks.ml.config.experiment import Experiment, Training
from hallmark.tasks.ml.config.models import MLP


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_survives_a_toml_round_trip(name: str, tmp_path: Path) -> None:
    preset = presets.get(name)
    path = tmp_path / "file.toml"
    path.write_text(toml.dump(preset))
    again = options.experiment(str(path), [])
    assert again == preset
    assert again.digest == preset.digest


def test_floats_with_many_digits_survive_a_toml_round_trip(tmp_path: Path) -> None:
    experiment = Experiment(
        name="x", data=Iris(kind="iris"), model=MLP(kind="mlp"), training=Training(lr=1e-7 / 3, weight_decay=1e-300)
    )
    path = tmp_path / "x.toml"
    path.write_text(toml.dump(experiment))
    assert options.experiment(str(path), []).digest == experiment.digest


def test_every_value_has_its_description_as_a_comment() -> None:
    lines = toml.dump(presets.get("digits")).splitlines()
    assert [line for line in lines if " = " in line and "# " not in line] == []
    assert "shuffle = true # shuffle the rows in every epoch; no effect if batch_size is full" in lines


def test_a_table_with_unusual_column_names_survives_a_toml_round_trip(tmp_path: Path) -> None:
    columns = {"a.b": "categorical", "with, comma": "numeric", 'a "quote"': "boolean", "日本": "numeric", "": "numeric"}
    data = {"kind": "table", "path": "/data/x y.csv", "target": "a = b", "ignore": ["p,q", "#r"], "columns": columns}
    given = {"name": "own", "data": data | {"split": {"group": "who."}}, "model": {"kind": "mlp"}}
    experiment = Experiment.model_validate(given)
    path = tmp_path / "shown.toml"
    path.write_text(toml.dump(experiment))
    assert options.experiment(str(path), []) == experiment
