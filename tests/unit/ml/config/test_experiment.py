import shlex
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from hallmark.flows.experiments import presets
from hallmark.tasks.common.digests import digest_of
from hallmark.tasks.ml.config.data import MNIST, Digits, Images, Iris, Points, Split, Table, Threshold, ignoring
from hallmark.tasks.ml.config.experiment import Experiment, Training
from hallmark.tasks.ml.config.fields import Part
from hallmark.tasks.ml.config.models import MLP, Linear


def iris(**changes: object) -> Experiment:
    return Experiment(name="iris", data=Iris(kind="iris"), model=MLP(kind="mlp"), **changes)  # type: ignore[arg-type]


def test_the_digest_covers_only_what_changes_the_computation() -> None:
    digest = iris().digest
    assert len(digest) == 64
    assert iris().model_copy(update={"name": "other"}).digest == digest
    assert iris(training=Training(device="cpu")).digest == digest
    assert iris(training=Training(device="cpu", seed=1)).digest != digest
    assert iris(training=Training(seed=1)).digest == iris(training=Training(device="cpu", seed=1)).digest


def test_kinds_with_all_defaults_have_different_digests() -> None:
    digests = {
        Experiment(name="x", data=data, model=model).digest
        for data in (Iris(kind="iris"), Digits(kind="digits"))
        for model in (Linear(kind="linear"), MLP(kind="mlp"))
    }
    assert len(digests) == 4


def test_a_new_field_with_a_default_changes_no_existing_digest() -> None:
    class ExtendedTraining(Training):
        clip: float = 0.0

    class ExtendedExperiment(Experiment):
        training: ExtendedTraining = ExtendedTraining()

    old = iris(training=Training(epochs=7))
    new = ExtendedExperiment.model_validate(old.model_dump())
    assert new.training.clip == 0.0
    assert new.digest == old.digest


def test_the_digest_covers_the_canonical_json_of_non_default_fields() -> None:
    expected = {"data": {"kind": "iris", "split": {"seed": 3}}, "model": {"kind": "mlp"}, "training": {"lr": 0.5}}
    experiment = Experiment(
        name="x", data=Iris(kind="iris", split=Split(seed=3)), model=MLP(kind="mlp"), training=Training(lr=0.5)
    )
    assert experiment.digest == digest_of(expected)


def test_an_experiment_is_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        iris().training.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("part", "values", "named"),
    [
        (Training, {"momentum": 0.9, "optimizer": "adam"}, ("momentum", "optimizer")),
        (Split, {"validation": 0.6, "test": 0.4}, ("validation", "test")),
        (Split, {"method": "given"}, ("method", "test")),
        (Split, {"method": "stratified", "test": 0}, ("method", "test")),
        (Split, {"method": "resubstitution", "test": 0}, ("method", "validation")),
        (Iris, {"kind": "iris", "split": {"method": "given", "test": 0}}, ("split.method", "kind")),
        (Points, {"kind": "points", "x": (1, 2)}, ("x", "y")),
        (Training, {"nesterov": True, "optimizer": "sgd"}, ("nesterov", "momentum")),
        (Training, {"l2": 1, "optimizer": "adam"}, ("l2", "optimizer")),
        (Training, {"optimizer": "lbfgs", "batch_size": 3}, ("optimizer", "batch_size")),
        (Training, {"optimizer": "lbfgs", "weight_decay": 1}, ("optimizer", "weight_decay")),
        (Training, {"optimizer": "lbfgs", "schedule": {"kind": "cosine"}}, ("optimizer", "schedule")),
        (Iris, {"kind": "iris", "scaling": "range"}, ("scaling", "kind")),
        (Images, {"kind": "images", "path": "x", "height": 8}, ("height", "width")),
        (Iris, {"kind": "iris", "scaling": "none", "scaling_fitted_on": "all"}, ("scaling", "scaling_fitted_on")),
    ],
)
def test_a_contradiction_names_both_fields(part: type[Part], values: dict[str, object], named: tuple[str, str]) -> None:
    with pytest.raises(ValidationError) as refused:
        part(**values)
    for field in named:
        assert field in str(refused.value)


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0},
        {"epochs": -1},
        {"batch_size": 0},
        {"batch_size": "half"},
        {"lr": 0},
        {"lr": float("inf")},
        {"lr": float("nan")},
        {"lr": 1e39},
        {"momentum": 1},
        {"seed": -1},
        {"device": "tpu"},
        {"epoch": 3},
    ],
)
def test_invalid_training_values_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Training(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("source", "kind"), [(MNIST, "mnist"), (Threshold, "threshold")])
def test_a_partial_split_keeps_the_sources_other_defaults(source: type[Part], kind: str) -> None:
    parsed = source.model_validate({"kind": kind, "split": {"seed": 7}})
    assert parsed.split == source.model_fields["split"].default.model_copy(update={"seed": 7})  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({"loss": {"kind": "bce"}}, ("training.loss.kind", "model.output")),
        ({"patience": 3, "monitor": "train"}, ("training.patience", "training.monitor")),
    ],
)
def test_a_contradiction_across_parts_names_both_fields(tree: dict[str, object], named: tuple[str, str]) -> None:
    with pytest.raises(ValidationError) as refused:
        Experiment.model_validate(iris().model_dump() | {"training": tree})
    for field in named:
        assert field in str(refused.value)


def test_loss_and_schedule_have_a_default_kind() -> None:
    training = Training.model_validate({"loss": {"reduction": "sum"}, "schedule": {}})
    assert (training.loss.kind, training.loss.reduction, training.schedule.kind) == ("cross_entropy", "sum", "constant")


def test_every_field_has_a_description() -> None:
    def undescribed(model: type[BaseModel], prefix: str = "") -> list[str]:
        return [f"{prefix}{name}" for name, field in model.model_fields.items() if not field.description]

    parts = [Experiment]
    for part in parts:  # grows during the loop
        for field in part.model_fields.values():
            kinds = get_args(field.annotation) or (field.annotation,)
            parts += [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    assert len(parts) > 20
    assert [name for part in parts for name in undescribed(part, f"{part.__name__}.")] == []


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_survives_a_json_round_trip(name: str) -> None:
    preset = presets.get(name)
    again = Experiment.model_validate_json(preset.model_dump_json())
    assert (again, again.digest, preset.name) == (preset, preset.digest, name)


def own_table(**given: object) -> Table:
    return Table.model_validate({"kind": "table", "path": "x.csv", "target": "t"} | given)


def test_naming_a_split_column_chooses_the_method() -> None:
    assert own_table(split={"group": "patient"}).split == Split(method="group", group="patient")
    assert own_table(split={"time": "day", "test": 0.3}).split == Split(method="time", time="day", test=0.3)
    assert own_table(split={"column": "part"}).split == Split(method="column", column="part", validation=0, test=0)
    assert own_table(split={"seed": 7}).split == Split(seed=7)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"split": {"method": "group"}}, "method 'group' needs a column: set split.group to its name"),
        ({"split": {"method": "content", "time": "d"}}, "time 'd' and method 'content' contradict each other"),
        ({"split": {"group": "g", "time": "d"}}, "time 'd' and method 'group' contradict each other"),
        ({"split": {"column": "s", "test": 0.2}}, "method 'column' provides the test rows, so test 0.2 must be 0"),
        ({"split": {"column": "s", "validation": 0.2}}, "provides the validation rows, so validation 0.2 must be 0"),
        ({"split": {"method": "given", "test": 0}}, "it has no test split"),
        ({"ignore": "a,t"}, "target 't' cannot be in ignore too"),
        ({"sheet": "s"}, r"sheet 's' and path '.*' contradict each other: only .xlsx has sheets"),
        ({"columns": {"t": "numeric"}}, "target 't' cannot be in columns too"),
        ({"split": {"group": "t"}}, "target 't' cannot be in split too"),
        ({"scaling": "range"}, "a table needs scaling 'standard' or 'none'"),
        ({"scaling_fitted_on": "all"}, "a table needs scaling 'standard' or 'none', fitted on 'train'"),
        ({"columns": {"a": "dates"}}, "Input should be 'numeric', 'boolean', 'categorical' or 'date'"),
        ({"separator": ":"}, r"Input should be ',', ';', 'tab' or '\|'"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        own_table(**given)


def test_only_a_table_can_be_split_by_a_column() -> None:
    with pytest.raises(ValidationError, match=r"split.method 'group' needs data.kind 'table'"):
        Iris(kind="iris", split=Split(group="species"))


def test_a_cnn_refuses_a_table() -> None:
    with pytest.raises(ValidationError, match=r"model.kind 'cnn' needs images, but data.kind 'table' has columns"):
        Experiment.model_validate({"name": "x", "data": own_table(), "model": {"kind": "cnn"}})


def test_names_are_comma_separated_and_quoted_if_they_contain_a_comma() -> None:
    assert own_table(ignore='id, "a, b" ,"say ""x"""').ignore == ("id", "a, b", 'say "x"')
    assert own_table(ignore=["a, b"]).ignore == ("a, b",)
    assert own_table(ignore="").ignore == ()


@pytest.mark.parametrize(
    ("column", "typed"),
    [("id", "id"), ("a b", "'a b'"), ("a, b", "'\"a, b\"'"), ('say "x"', '\'"say ""x"""\''), ("it's", "'it'\"'\"'s'")],
)
def test_the_option_that_ignores_a_column_can_be_pasted_into_a_shell(column: str, typed: str) -> None:
    assert ignoring(column) == f"--data.ignore {typed}"
    assert own_table(ignore=shlex.split(ignoring(column))[1]).ignore == (column,)


def test_the_path_of_a_table_does_not_change_the_digest() -> None:
    one, other = (
        Experiment(name="x", data=own_table(path=path), model=MLP(kind="mlp")) for path in ("/a/x.csv", "/b/y.csv")
    )
    assert one.digest == other.digest
    assert one.digest != Experiment(name="x", data=own_table(ignore="a"), model=MLP(kind="mlp")).digest


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/x y.csv", "x-y"),
        ("données.parquet", "donn-es"),
        ("客户.csv", "own-ad4af312"),
        ("/a/订单.csv", "own-3d5436ea"),
        (".csv", "csv"),
        ("a/b/", "b"),
    ],
)
def test_a_users_dataset_is_named_after_its_file(path: str, name: str) -> None:
    assert own_table(path=path).name == name
