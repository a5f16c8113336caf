"""The split of own data by default, and the split of a retraining."""

from pathlib import Path

import pytest

from hallmark.flows.experiments import options, own_data, presets, retraining_split
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.data import Iris, Split
from hallmark.tasks.ml.config.experiment import Experiment
from tests.support import owned


def method(experiment: Experiment) -> str:
    return experiment.data.split.method


def table(path: Path, rows: int) -> Path:
    lines = [f"{row},{'no' if row % 2 else 'yes'}" for row in range(rows)]
    path.write_text("\n".join(["x,y", *lines]) + "\n")
    return path


def test_a_table_is_split_by_content_unless_a_split_would_lack_a_class(tmp_path: Path) -> None:
    large, small = table(tmp_path / "large.csv", 200), table(tmp_path / "small.csv", 6)
    assert method(options.experiment(str(large), ["--target", "y"])) == "content"
    assert method(options.experiment(str(small), ["--target", "y"])) == "stratified"
    table(small, 201)  # as the table grows
    assert method(options.experiment(str(small), ["--target", "y"])) == "content"


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["--data.split.seed", "1", "--data.split.test", "0.3"], "content"),
        (["--data.split.method", "stratified"], "stratified"),
        (["--data.split.group", "x"], "group"),
    ],
)
def test_a_split_that_is_asked_for_stays(tmp_path: Path, tokens: list[str], expected: str) -> None:
    path = table(tmp_path / "t.csv", 200)
    split = options.experiment(str(path), ["--target", "y", *tokens]).data.split
    assert split.method == expected
    assert (split.seed, split.test) == ((1, 0.3) if "--data.split.seed" in tokens else (0, 0.2))


def test_the_split_of_a_toml_file_is_completed(tmp_path: Path) -> None:
    table(tmp_path / "t.csv", 200)
    toml = '[data]\nkind = "table"\npath = "t.csv"\ntarget = "y"\n[data.split]\nseed = 3\n'
    (tmp_path / "t.toml").write_text(toml)
    assert options.experiment(str(tmp_path / "t.toml"), []).data.split == Split(method="content", seed=3)


def test_images_are_split_by_content_if_each_class_has_enough(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(own_data.DIVIDED_IMAGES - (name == "dog")):
            (tmp_path / name / f"{number}.png").write_bytes(b"")
    tree = {"data": {"kind": "images", "path": str(tmp_path)}}
    assert "split" not in own_data.with_defaults(tree)["data"]
    (tmp_path / "dog" / "last.png").write_bytes(b"")
    own_data._list_images.cache_clear()
    assert own_data.with_defaults(tree)["data"]["split"] == {"method": "content"}


def iris(**split: object) -> Experiment:
    return presets.iris().model_copy(update={"data": Iris(kind="iris", split=Split.model_validate(split))})


def test_a_preset_keeps_the_champions_split_unless_another_is_asked_for() -> None:
    preset, other = presets.iris(), iris(method="content", seed=4)
    assert retraining_split.choose(preset, None) == preset
    assert retraining_split.choose(preset, preset) == preset
    assert retraining_split.choose(preset, other) == other
    assert retraining_split.choose(iris(seed=1), other) == iris(seed=1)
    assert retraining_split.choose(preset, iris(method="resubstitution", validation=0, test=0)) == preset
    assert retraining_split.choose(preset, presets.digits()) == preset
    mnist = presets.get("mnist")
    assert retraining_split.choose(mnist, mnist) == mnist
    published = presets.get("iris_as_published")
    assert retraining_split.choose(published, retraining_split.by_content(published)).data.split.seed == 2


def test_data_that_may_grow_is_retrained_by_content_where_possible(tmp_path: Path) -> None:
    large = owned.experiment(owned.write(owned.mixed(), tmp_path / "t.csv"), "", "--data.split.method", "stratified")
    assert retraining_split.choose(large, large) == retraining_split.by_content(large)
    assert method(retraining_split.choose(large, None)) == "content"
    small = options.experiment(str(table(tmp_path / "small.csv", 6)), ["--target", "y"])
    assert retraining_split.choose(small, small) == small
    grouped = options.experiment(str(table(tmp_path / "g.csv", 60)), ["--target", "y", "--data.split.group", "x"])
    assert retraining_split.choose(grouped, None) == grouped


def test_a_preset_tested_on_its_training_rows_is_refused() -> None:
    with pytest.raises(InputError, match=r"add --data\.split\.method content"):
        retraining_split.choose(presets.get("iris_softmax"), None)
