"""A user's tables, from the file to the registered model, by the real flows and against real servers."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import numpy_helper

from hallmark.flows.experiments import sweep_grids, taken_names
from hallmark.flows.judge import judge
from hallmark.flows.retrain import retrain
from hallmark.flows.sweep import sweep
from hallmark.flows.train import train
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.errors import InputError, ParityError
from hallmark.tasks.common.records import SPLITS, Artifact, Dataset
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.artifact import runtimes
from hallmark.tasks.ml.artifact.proof import verifier
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data import dataset_store
from hallmark.tasks.ml.models import networks
from hallmark.tasks.ml.predict import input_rows, predictor
from hallmark.tasks.tracking import client
from hallmark.tasks.tracking.registry import model_registry
from tests.conftest import prepare
from tests.support import interrupted, owned
from tests.support.consoles import Call

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the same table as CSV and as Parquet into a folder."""
    folder = tmp_path_factory.mktemp("tables")
    for suffix in (".csv", ".parquet"):
        owned.write(owned.mixed(), folder / f"people{suffix}")
    return folder


@pytest.fixture(scope="module")
def trained(prefect_server: str, here: Path) -> tuple[Experiment, Outcome]:  # noqa: ARG001 - the server comes first
    experiment = owned.experiment(here / "people.csv", new_name())
    return experiment, train(experiment)


def new_name() -> str:
    return f"o{uuid.uuid4().hex[:12]}"


def predicted(model: Path, source: Path) -> dict[str, np.ndarray]:
    """Predict every row of a file, and return labels and probabilities."""
    scorer = predictor.Scorer(model)
    results = [scorer.score(batch) for batch in input_rows.open_source(str(source), scorer.certificate.inputs).batches]
    return {name: np.concatenate([getattr(one, name) for one in results]) for name in ("label", "probabilities")}


def test_csv_and_parquet_train_the_same_file_from_any_folder(trained: tuple[Experiment, Outcome], here: Path) -> None:
    first = trained[1]
    folder = here / "elsewhere"
    folder.mkdir()
    again = train(owned.experiment(owned.write(owned.mixed(), folder / "people.parquet"), new_name()))
    assert first.dataset.digest == again.dataset.digest
    assert first.artifact.sha256 == again.artifact.sha256
    assert str(here) not in first.artifact.path.read_bytes().decode(errors="replace")


def test_predictions_are_the_same_from_csv_parquet_and_the_prepared_rows(
    trained: tuple[Experiment, Outcome], here: Path
) -> None:
    outcome = trained[1]
    by_csv, by_parquet = (predicted(outcome.artifact.path, here / f"people{suffix}") for suffix in (".csv", ".parquet"))
    np.testing.assert_array_equal(by_csv["label"], by_parquet["label"])
    np.testing.assert_array_equal(by_csv["probabilities"], by_parquet["probabilities"])
    x = np.concatenate([dataset_store.open_split(outcome.dataset, split).x for split in SPLITS])
    session = runtimes.open_session(str(outcome.artifact.path))
    _, known = session.run(
        None, runtimes.feeds(outcome.dataset.columns, x, dataset_store.category_values(outcome.dataset))
    )
    # The prepared rows are in another order, split by split.
    np.testing.assert_allclose(np.sort(known, axis=0), np.sort(by_csv["probabilities"], axis=0), atol=1e-6)


def test_mlflow_has_all_classes_and_an_example_that_the_model_accepts(
    trained: tuple[Experiment, Outcome],
) -> None:
    experiment, outcome = trained
    metrics = client.connect().get_run(outcome.run.id).data.metrics
    assert {name for name in metrics if name.startswith("test/recall/")} == {
        "test/recall/__50K", "test/recall/_50K", "test/recall/ä _ ö",
    }  # fmt: skip
    model = mlflow.pyfunc.load_model(f"models:/{experiment.name}@champion")
    assert model.metadata.signature.inputs.input_names() == list(outcome.dataset.columns)
    rows = dataset_store.open_split(outcome.dataset, "test")
    given = runtimes.feeds(outcome.dataset.columns, rows.x, dataset_store.category_values(outcome.dataset))
    # MLflow expects text in NumPy's own string type.
    answer = model.predict(
        {name: value.astype(str) if value.dtype == object else value for name, value in given.items()}
    )
    assert float((answer["label"] == rows.y).mean()) == pytest.approx(metrics["test/accuracy"])


def test_missing_and_unknown_values_are_predicted_and_counted(
    trained: tuple[Experiment, Outcome], console: Call, tmp_path: Path
) -> None:
    rows = tmp_path / "new.csv"
    rows.write_text(
        'c0,name,is.member," age ","children, at home"\n日本,Ada,TRUE,40.5,1\n'
        'Nowhere,"B\nC", , NA ,\n"São Paulo ",D,0,999,2\n'
    )
    code, out, err = console("predict", trained[1].artifact.path, rows, "--json", "--output", tmp_path / "said.csv")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert (result["rows"], result["outside_training_range"], result["left_out"]) == (3, 2, ["name"])
    assert set(result["class_shares"]) == set(owned.CLASSES)
    counts = {one["name"]: (one["missing"], one["unknown"]) for one in result["gaps"]}
    assert counts == {"age": (1, 0), "children, at home": (1, 0), "is.member": (1, 0), "c0": (0, 1)}
    assert "columns  age: 1 missing of 3 values; children, at home: 1 missing of 3 values;" in " ".join(err.split("\n"))


def test_columns_without_values_are_told_and_refused_above_a_share(
    trained: tuple[Experiment, Outcome], console: Call, tmp_path: Path
) -> None:
    rows, said = tmp_path / "new.csv", tmp_path / "said.csv"
    rows.write_text("c0,is.member,age,'children, at home'\n".replace("'", '"') + ",TRUE,40.5,1\n" * 8)
    code, _, err = console("predict", trained[1].artifact.path, rows, "--output", said, "--unreadable", "0.5")
    assert code == 2
    assert "column c0: 8 missing of 8 values: that is more than the share that --unreadable 0.5 accepts" in err
    assert not said.exists()
    code, _, err = console("predict", trained[1].artifact.path, rows, "--output", said)
    assert code == 0
    assert "columns  c0: 8 missing of 8 values" in err


def test_a_name_that_belongs_to_another_source_is_refused(trained: tuple[Experiment, Outcome], tmp_path: Path) -> None:
    experiment = trained[0]
    taken_names.refuse(str(experiment.data.path), [], experiment)  # type: ignore[union-attr]
    other = owned.experiment(owned.write(owned.mixed(), tmp_path / "people.csv"), experiment.name)
    message = f"the model '{experiment.name}' was trained on .*people.csv: add --name and another name"
    with pytest.raises(InputError, match=message):
        taken_names.refuse("people.csv", [], other)
    with pytest.raises(InputError, match=f"schedule 'nightly': the model .*, or options.name {experiment.name} if"):
        retrain(other, schedule="nightly", derived_name=True)
    taken_names.refuse("people.csv", ["--name", experiment.name], other)
    named = tmp_path / "people.toml"
    named.write_text('name = "people"')
    taken_names.refuse(str(named), [], other)
    named.write_text("")
    with pytest.raises(InputError, match=message):  # the name is that of the TOML file
        taken_names.refuse(str(named), [], other)
    preset = owned.experiment(owned.write(owned.mixed(), tmp_path / "iris.csv"))
    with pytest.raises(InputError, match="'iris' is the name of a preset"):
        taken_names.refuse("iris.csv", [], preset)


def test_strict_refuses_what_examination_finds_before_training(here: Path) -> None:
    table = owned.mixed().append_column("same", pa.array(["x"] * owned.ROWS))
    name = new_name()
    experiment = owned.experiment(owned.write(table, here / "same.csv"), name)
    with pytest.raises(InputError, match=r"refused by --strict: constant_column: .* \(fix: --data.ignore same\)"):
        train(experiment, strict=True)
    assert not model_registry.exists(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age,c0\n1,x\n", r"missing: 'children, at home', 'is.member'"),
        (
            'age,c0,is.member,"children, at home"\nold,x,1,1\n',
            "row 1, column 'age': expected a finite number .* found 'old'",
        ),
        (
            'age,c0,is.member,"children, at home"\n1,x,1,1\n2,x,2,1\n',
            "row 2, column 'is.member': expected true or false .*, found '2'",
        ),
        ('age,c0,is.member,"children, at home"\ninf,x,1,1\n', "row 1, column 'age': .* found inf"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    text: str, message: str, trained: tuple[Experiment, Outcome], console: Call, tmp_path: Path
) -> None:
    import re

    (tmp_path / "new.csv").write_text(text)
    code, _, err = console("predict", trained[1].artifact.path, tmp_path / "new.csv")
    assert code == 2
    assert re.search(message, " ".join(err.split())), err


Change = Callable[[onnx.ModelProto], None]


def attribute(model: onnx.ModelProto, operator: str, name: str) -> onnx.AttributeProto:
    node = next(
        node for node in model.graph.node if node.op_type == operator and any(a.name == name for a in node.attribute)
    )
    return next(one for one in node.attribute if one.name == name)


def swap_two_values(model: onnx.ModelProto) -> None:
    values = attribute(model, "OneHotEncoder", "cats_strings").strings
    values[0], values[1] = values[1], values[0]


def change_missing_text(model: onnx.ModelProto) -> None:
    """Replace the value that stands for a missing text."""
    values = attribute(model, "OneHotEncoder", "cats_strings").strings
    assert values[-1] == b""
    values[-1] = b"n/a"


def change_fill_value(model: onnx.ModelProto) -> None:
    attribute(model, "Imputer", "imputed_value_floats").floats[0] += 3


def change_mean(model: onnx.ModelProto) -> None:
    attribute(model, "Scaler", "offset").floats[0] += 1


def swap_columns(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Concat")
    node.input[0], node.input[1] = node.input[1], node.input[0]


def change_weight(model: onnx.ModelProto) -> None:
    tensor = next(one for one in model.graph.initializer if one.name.endswith("network.0.weight"))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))


@pytest.mark.parametrize(
    ("change", "operator"),
    [
        (swap_two_values, "OneHotEncoder"),
        (change_missing_text, "OneHotEncoder"),
        (change_fill_value, "Imputer"),
        (change_mean, "Scaler"),
        (swap_columns, "Concat"),
        (change_weight, "Gemm"),
    ],
)
def test_a_file_whose_encoding_was_tampered_with_is_refused_and_the_node_is_named(
    change: Change, operator: str, trained: tuple[Experiment, Outcome], tmp_path: Path
) -> None:
    experiment, outcome = trained
    model = onnx.load(outcome.artifact.path)
    change(model)
    path = tmp_path / "tampered.onnx"
    onnx.save(model, path)
    classifier = networks.load(outcome.fit, outcome.dataset, experiment.model, experiment.training.loss)
    artifact = Artifact(**{**_fields(outcome.artifact), "path": path, "sha256": file_digest(path)})
    with pytest.raises(
        ParityError,
        match=rf"rows disagree; .* the first node that differs is {operator} 'encoding/|{operator} 'network/",
    ):
        verifier.verify(artifact, classifier, outcome.dataset, tmp_path / "parity.json")
    assert json.loads((tmp_path / "parity.json").read_text())["node"]["operator"] == operator


def _fields(artifact: Artifact) -> dict[str, object]:
    from dataclasses import fields

    return {field.name: getattr(artifact, field.name) for field in fields(artifact)}


def test_an_interrupted_training_is_resumed_and_gives_the_same_file(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = "--training.batch_size", "32", "--training.epochs", "6"
    whole = train(owned.experiment(here / "people.csv", new_name(), *given))
    experiment = owned.experiment(here / "people.csv", new_name(), *given)
    with interrupted.interrupted(monkeypatch, at=3):
        train(experiment)
    outcome = train(experiment)
    assert interrupted.statuses(experiment.name) == ["FINISHED"]
    assert outcome.artifact.sha256 == whole.artifact.sha256


def digests(dataset: Dataset) -> dict[str, set[bytes]]:
    return {split: {row.tobytes() for row in np.load(dataset.folder / f"{split}.rows.npy")} for split in SPLITS}


def test_rows_keep_their_split_when_rows_are_added_and_judging_again_uses_the_same_rows(tmp_path: Path) -> None:
    path, name = tmp_path / "people.parquet", new_name()
    owned.write(owned.mixed(), path)
    first = retrain(owned.experiment(path, name))
    assert (first.verdict, retrain(owned.experiment(path, name)).verdict) == ("FIRST", "UNCHANGED")
    before = prepare(owned.source(path, split={"method": "content"}), tmp_path)
    more = owned.mixed(120, seed=1)
    # A new city sorts before all others, so the index of every city changes.
    cities = [f"A new {city}" if city == owned.CITIES[0] else city for city in more["c0"].to_pylist()]
    more = more.set_column(more.column_names.index("c0"), "c0", [cities])
    owned.write(pa.concat_tables([owned.mixed(), more]), path)
    second = retrain(owned.experiment(path, name))
    assert second.verdict in ("HOLD", "PROMOTE", "REJECT")
    after = prepare(owned.source(path, split={"method": "content"}), tmp_path)
    assert dataset_store.category_values(before)["c0"] != dataset_store.category_values(after)["c0"]
    for split, rows in digests(before).items():
        assert rows <= digests(after)[split]
    assert second.decision is not None
    assert second.decision.judgement is not None
    # With so few rows, the recall of a class may drop by chance. No other gate may fail.
    failed = {gate["name"] for gate in second.decision.judgement["gates"] if not gate["passed"]}
    assert failed <= {"recall of each class"}
    result = judge(name, 3 - second.champion)  # the version that is not champion
    assert result.judgement["rows"] == second.decision.judgement["rows"]


@pytest.mark.parametrize(
    ("split", "method"), [(("--data.split.group", "who"), "group"), (("--data.split.time", "day"), "time")]
)
def test_rows_are_split_by_a_column_that_is_not_an_input(split: tuple[str, str], method: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    who, day = rng.integers(0, 40, owned.ROWS), rng.integers(0, 90, owned.ROWS)
    table = owned.mixed().append_column("who", [who]).append_column("day", [np.datetime64("2026-01-01", "D") + day])
    path = owned.write(table, tmp_path / "people.parquet")
    ignored = "--data.ignore", "day" if method == "group" else "who"
    outcome = train(owned.experiment(path, new_name(), *split, *ignored))
    assert set(outcome.dataset.columns) == {"age", "children, at home", "is.member", "c0"}
    # Rows are identified by their age, which is almost always unique.
    ages = {split: dataset_store.open_split(outcome.dataset, split).x[:, 0] for split in SPLITS}
    known = np.array(table["age"].to_pylist(), np.float32)
    values_by_split = {
        split: {int((who if method == "group" else day)[known == age][0]) for age in rows if (known == age).sum() == 1}
        for split, rows in ages.items()
    }
    assert all(values_by_split.values())
    if method == "group":
        assert sum(map(len, values_by_split.values())) == len(set.union(*values_by_split.values()))
    else:
        assert (
            max(values_by_split["train"])
            < min(values_by_split["validation"])
            <= max(values_by_split["validation"])
            < min(values_by_split["test"])
        )


def test_a_sweep_over_a_table_chooses_proves_and_registers(here: Path) -> None:
    tokens = [
        "--target",
        owned.TARGET,
        "--training.epochs",
        "3",
        "--training.device",
        "cpu",
        "--training.lr",
        "0.001,0.01",
    ]
    name = new_name()
    grid = sweep_grids.grid(str(here / "people.csv"), [*tokens, "--name", name, "--data.ignore", '"children, at home"'])
    assert [member.data.ignore for member in grid.members] == [("children, at home",)] * 2
    outcome = sweep(grid.members, grid.axes)
    assert outcome is not None
    assert mlflow.pyfunc.load_model(f"models:/{name}@champion").metadata.signature.inputs.input_names() == [
        "age", "is.member", "c0",
    ]  # fmt: skip


def test_a_run_on_a_table_is_reproduced_and_compared(
    trained: tuple[Experiment, Outcome], here: Path, console: Call
) -> None:
    code, out, err = console("reproduce", trained[1].run.id[:12], "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["status"] == "identical", out
    outcomes = trained[1], train(owned.experiment(here / "people.parquet", new_name(), "--training.seed", "1"))
    code, out, err = console("compare", *(outcome.run.id[:12] for outcome in outcomes), "--json")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["status"] == "compared"
    assert [one["run_id"] for one in result["runs"]] == [outcome.run.id for outcome in outcomes]
    assert result["differences"] == {
        "training.seed": [0, 1],
        "initial seed": [0, 1],
        "data.path": [str(here / f"people{suffix}") for suffix in (".csv", ".parquet")],
    }
    for metric in ("test/accuracy", "test/log_loss"):
        values = [one["value"] for one in result["metrics"][metric]]
        assert values == pytest.approx([outcome.evaluation.metrics[metric] for outcome in outcomes])
    before, after = (correct(outcome) for outcome in outcomes)
    (pair,) = result["pairs"]
    counts = [len(before), int((after & ~before).sum()), int((before & ~after).sum())]
    assert [pair["rows"], pair["wins"], pair["losses"]] == counts
    assert counts[1] + counts[2] > 0


def correct(outcome: Outcome) -> np.ndarray:
    """Return whether the shipped file classifies each test row correctly."""
    rows = dataset_store.open_split(outcome.dataset, "test")
    inputs = runtimes.feeds(outcome.dataset.columns, rows.x, dataset_store.category_values(outcome.dataset))
    labels, _ = runtimes.open_session(str(outcome.artifact.path)).run(None, inputs)
    return np.asarray(labels == rows.y)
