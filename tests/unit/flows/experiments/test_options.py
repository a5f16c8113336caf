from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from hallmark.flows.experiments import options, presets
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.data import Digits, Split, Table
from hallmark.tasks.ml.config.models import MLP, Linear

TOML = '[data]\nkind = "iris"\n[model]\nkind = "mlp"\n'


def test_options_override_the_preset_and_keep_other_fields() -> None:
    experiment = options.experiment(
        "iris_as_published", ["--training.epochs", "20", "--data.split.seed=7", "--model.hidden", "8,4"]
    )
    assert (experiment.training.epochs, experiment.data.split.seed) == (20, 7)
    assert experiment.model == MLP(kind="mlp", hidden=(8, 4))
    # Fields without an option keep the preset's value, not the default.
    assert experiment.training.lr == 0.001
    assert experiment.data.scaling_fitted_on == "all"
    assert experiment.data.split.validation == 0


def test_values_are_converted_to_the_type_of_the_field() -> None:
    experiment = options.experiment(
        "digits", ["--training.batch_size", "full", "--training.lr", "1e-3", "--name", "d2"]
    )
    assert (experiment.training.batch_size, experiment.training.lr, experiment.name) == ("full", 0.001, "d2")


def test_another_kind_starts_from_its_defaults() -> None:
    assert options.experiment("iris", ["--model.kind", "linear"]).model == Linear(kind="linear")
    changed = options.experiment("iris_as_published", ["--data.kind", "digits"])
    assert changed.data == Digits(kind="digits")


@pytest.mark.parametrize("order", [1, -1])
def test_order_of_options_does_not_matter(order: int) -> None:
    pairs = [["--data.kind", "digits"], ["--model.kind", "linear"], ["--data.split.seed", "5"]][::order]
    experiment = options.experiment("iris", [token for pair in pairs for token in pair])
    assert experiment.data == Digits(kind="digits", split=Split(seed=5))
    assert experiment.model == Linear(kind="linear")


def test_experiment_of_a_file_is_named_after_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    assert options.experiment(str(path), ["--training.epochs", "3"]).name == "mine"
    path.write_text('name = "other"\n' + TOML)
    assert options.experiment(str(path), []).name == "other"


def test_every_option_is_documented() -> None:
    help_text = options.describe()
    assert options.fields().keys() >= set(presets.get("digits").flat())
    for path in options.fields():
        assert f"--{path}\n" in help_text
    words = " ".join(help_text.split())
    assert "[iris, threshold, points, blobs, digits, mnist, fashion_mnist, kmnist, table, images]" in words
    assert "--model.hidden units of each hidden layer, first to last (kind mlp, cnn) --" in words
    assert "--training.lr learning rate of each step --" in words
    assert "[linear, mlp, cnn]" in words


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--training.epoch", "3"], "--training.epoch: there is no such option: did you mean 'training.epochs'?"),
        (["--qqqq", "3"], "--qqqq: there is no such option: run `hallmark train --help` to list them"),
        (["--training.epochs", "ten"], "--training.epochs: input should be a valid integer, .*, found 'ten'"),
        (["--training.epochs", "0"], "--training.epochs: .*greater than or equal to 1, found '0'"),
        (["--training.epochs", "-3"], "--training.epochs: .*greater than or equal to 1, found '-3'"),
        (["--training.epochs"], "--training.epochs: expected a value after it"),
        (["--training.epochs", "--training.lr", "1"], "--training.epochs: expected a value after it"),
        (["training.epochs", "3"], "expected an option such as --training.epochs 20, found 'training.epochs'"),
        (["--training.batch_size", "0"], "--training.batch_size: .*'full' or .*greater than or equal to 1, found '0'"),
        (["--training.momentum", "0.9"], "iris: training: momentum 0.9 and optimizer 'adam' contradict each other"),
        (["--data.split.test", "0.9"], "iris: data.split: validation 0.2 and test 0.9 leave no rows to train on"),
        (["--model.kind", "mpl"], "iris: model: .*'mpl'.*'linear', 'mlp', 'cnn'"),
        (["--model.kind", "linear", "--model.hidden", "4"], "--model.hidden: kind 'linear' has no such option"),
        (["--model.hidden", "4,x"], "--model.hidden: .*found 'x'"),
        (["--training.loss.pos_weight", "1"], "--training.loss.pos_weight: kind 'cross_entropy' has no such option"),
        (["--training.loss.reduce", "false"], "iris: training.loss: reduce is retired: use reduction 'none'"),
        (["--training.loss.size_average=false"], "iris: training.loss: size_average is retired: .*'sum'"),
        (["--training.loss.kind", "bce"], "iris: training.loss.kind 'bce' and model.output 'logits' contradict"),
        (["--model.kind", "cnn"], "iris: model.kind 'cnn' needs images, but data.kind 'iris' has columns"),
        (
            ["--model.kind", "cnn", "--model.kernel", "4"],
            "iris: model: kernel 4 and padding 'same' contradict each other",
        ),
        (["--data.split.method", "given"], "iris: data.split: method 'given' provides the test rows, so test 0.2"),
        (["--name", "a/b"], "--name: .*found 'a/b'"),
        (["--training.epochs", "1000000000000"], "--training.epochs: .*less than or equal to 10000000, found '1000"),
        (
            ["--model.kind", "mlp", "--model.hidden", "8," * 200],
            "--model.hidden: .*at most 50 items.*, found '8,.*[.]{3}$",
        ),
    ],
)
def test_invalid_options_are_refused_in_one_line(tokens: list[str], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}") as refused:
        options.experiment("iris", tokens)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\n[data\n', r"is not valid TOML: .*line 2"),
        ("[data]\nseed = 3\n", r"data: kind is missing: expected one of \[iris, threshold"),
        (TOML + "[training]\nepoch = 3\n", r"training.epoch: there is no such option: did you mean 'training.epochs'"),
        ("training = 3\n" + TOML, r"training: input should be a valid dictionary"),
        ('[data]\nkind = "iris"\n', r"model: field required"),
        (b"\xff\xfe", r"cannot be read"),
        ("x = " + "[" * 100_000, r"nested more than 20 levels deep"),
        ("a." * 100_000 + "b = 1", r"nested more than 20 levels deep"),
        ("seed = " + "9" * 5000, r"is not valid TOML: .*4300 digits"),
    ],
)
def test_invalid_file_is_refused_by_name(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as refused:
        options.experiment(str(path), ["--training.seed", "1"])
    assert str(refused.value).startswith(str(path))


def test_missing_file_is_refused() -> None:
    with pytest.raises(InputError, match=r"nowhere.toml: cannot be read"):
        options.experiment("nowhere.toml", [])


def write_table(folder: Path, heading: str = "a.b,age,species", rows: int = 3) -> str:
    path = folder / "flowers of mine.csv"
    path.write_text("\n".join([heading, *["x,1,p"] * rows]) + "\n")
    return str(path)


def test_default_model_and_training_depend_on_the_size_of_a_table(tmp_path: Path) -> None:
    small, large = (
        options.experiment(write_table(tmp_path, rows=rows), ["--target", "species"]) for rows in (3, 20_000)
    )
    assert (small.name, small.data.name) == ("flowers-of-mine", "flowers-of-mine")
    assert small.model == large.model == MLP(kind="mlp", hidden=(32,))  # column a.b is text
    assert (small.training.batch_size, large.training.batch_size) == ("full", 128)
    assert small.training.epochs > large.training.epochs


@pytest.mark.parametrize(
    ("extra_options", "hidden"),
    [([], (32,)), (["--data.ignore", "a.b"], (64, 32)), (["--data.split.group", "a.b"], (64, 32))],
)
def test_default_model_depends_on_the_kinds_of_the_input_columns(
    tmp_path: Path, extra_options: list[str], hidden: tuple[int, ...]
) -> None:
    assert options.experiment(write_table(tmp_path), ["--target", "species", *extra_options]).model == MLP(
        kind="mlp", hidden=hidden
    )


def test_options_override_default_model_and_training(tmp_path: Path) -> None:
    tokens = ["--target=species", "--model.kind", "linear", "--training.epochs", "7", "--name", "mine"]
    experiment = options.experiment(write_table(tmp_path), tokens)
    assert (experiment.model, experiment.training.epochs, experiment.name) == (Linear(kind="linear"), 7, "mine")


def test_each_column_has_an_option_whatever_its_name(tmp_path: Path) -> None:
    tokens = ["--target", "species", "--data.columns.a.b", "categorical", "--data.columns.age=numeric"]
    data = options.experiment(write_table(tmp_path), tokens).data
    assert isinstance(data, Table)
    assert data.columns == {"a.b": "categorical", "age": "numeric"}


def test_table_without_target_is_refused_with_a_list_of_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the column to predict is missing: .* the columns: a.b, age, species"):
        options.experiment(write_table(tmp_path), [])


def test_missing_table_is_refused_with_the_closest_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no such file or folder: did you mean '.*flowers of mine.csv'"):
        options.experiment(write_table(tmp_path).replace("flowers", "flower"), ["--target", "species"])


def test_path_in_a_toml_file_is_relative_to_that_file(tmp_path: Path) -> None:
    write_table(tmp_path)
    path = tmp_path / "mine.toml"
    path.write_text(
        '[data]\nkind = "table"\npath = "flowers of mine.csv"\ntarget = "species"\n[data.split]\nseed = 3\n'
    )
    experiment = options.experiment(str(path), ["--data.ignore", "a.b"])
    assert isinstance(experiment.data, Table)
    assert Path(experiment.data.path) == tmp_path / "flowers of mine.csv"
    assert (experiment.name, experiment.data.split.seed, experiment.data.ignore) == ("mine", 3, ("a.b",))
    assert experiment.training.batch_size == "full"


@pytest.mark.parametrize("source", ["", " "])
def test_an_empty_source_is_refused(source: str) -> None:
    with pytest.raises(InputError, match=r"^expected a preset, a .toml file, a table or a folder of images, found '"):
        options.experiment(source, [])


PATHS = ("name", "data", "data.kind", "data.path", "data.target", "data.split", "data.split.group", "data.ignore",
         "data.columns", "data.separator", "model", "model.kind", "model.hidden", "training", "training.loss",
         "training.schedule", "training.epochs", "export")  # fmt: skip
VALUES = (3, -1, "", "x", "a\0b", [], [[1]], {}, {"kind": []}, True, float("nan"), 10**30, date(2026, 1, 1))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["table", "images"])
def test_a_value_of_any_type_in_a_file_on_own_data_is_taken_or_refused(path: str, kind: str, tmp_path: Path) -> None:
    table = write_table(tmp_path)
    for value in VALUES:
        given = {"kind": kind, "path": table if kind == "table" else str(tmp_path)}
        tree: dict[str, Any] = {"data": given | ({"target": "species"} if kind == "table" else {})}
        *parents, last = path.split(".")
        part = tree
        for name in parents:
            part = part.setdefault(name, {})
        part[last] = value
        file = tmp_path / "mine.toml"
        file.write_text(tomlkit.dumps(tree))
        with suppress(InputError):
            options.experiment(str(file), [])


def test_a_folder_that_is_called_like_a_table_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for name, message in (
        ("rows.csv", "is a folder: write its parts into one file"),
        ("x.parquet", "has no file that"),
    ):
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match=f"{name}: {message}"):
            options.experiment(str(tmp_path / name), ["--target", "y"])


def test_an_option_in_place_of_a_source_is_refused_and_a_file_may_begin_with_a_hyphen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"a table or a folder of images before '--training\.epochs'"):
        options.experiment("--training.epochs", ["3"])
    Path("-x.csv").write_text(Path(write_table(tmp_path)).read_text())
    assert options.experiment("-x.csv", ["--target", "species"]).name == "x"
