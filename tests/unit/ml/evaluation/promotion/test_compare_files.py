"""Comparison of two shipped files on the same rows: which rows are used, and the gates that the files decide."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.data.splits import row_digests
from hallmark.tasks.ml.evaluation.promotion import compare_files
from hallmark.tasks.ml.evaluation.promotion.compare_files import Unseen
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Gate, Rule
from tests.support import certified

ROWS = 60
FILE_GATES = ("proof holds", "same inputs and classes", "loss finite", "file size", "latency of one row")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Write test rows to disk, labelled by the model that `certified.columns` writes."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    x = np.random.default_rng(1).uniform(certified.LOWEST, certified.HIGHEST, (ROWS, 4)).astype(np.float32)
    y = certified.expected(x, 3).argmax(axis=1)
    for part, array in {"x": x, "y": y, "rows": row_digests(x)}.items():
        np.save(folder / f"test.{part}.npy", array)
    rows = {"train": 0, "validation": 0, "test": ROWS}
    return Dataset("made", folder, "0" * 64, certified.COLUMNS, (4,), "float32", None, certified.CLASSES, rows)  # type: ignore[arg-type]


@pytest.fixture
def champion(tmp_path: Path) -> Path:
    (tmp_path / "champion").mkdir()
    return certified.columns(tmp_path / "champion" / "model.onnx")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder for a challenger."""
    (tmp_path / "challenger").mkdir()
    return tmp_path / "challenger"


def all_rows(dataset: Dataset) -> Unseen:
    return Unseen(np.arange(dataset.rows["test"]), 0)


def test_comparing_a_file_with_itself_holds_with_every_gate_passed(dataset: Dataset, champion: Path) -> None:
    extra_gate = Gate("another", passed=True, found="elsewhere")
    judgement = compare_files.compare(champion, champion, dataset, all_rows(dataset), Rule(), [extra_gate])
    assert (judgement.verdict, judgement.wins, judgement.losses, judgement.rows) == ("HOLD", 0, 0, ROWS)
    assert (judgement.champion_accuracy, judgement.challenger_accuracy) == (1.0, 1.0)
    assert [gate.name for gate in judgement.gates][:6] == [*FILE_GATES, "another"]
    assert all(gate.passed for gate in judgement.gates)


def test_files_take_a_column_that_is_float64_since_as_float32(dataset: Dataset, champion: Path) -> None:
    np.save(dataset.folder / "test.x.npy", np.load(dataset.folder / "test.x.npy").astype(np.float64))
    wide = replace(dataset, dtype="float64", wide=certified.COLUMNS[2:3])
    judgement = compare_files.compare(champion, champion, wide, all_rows(wide), Rule())
    assert (judgement.verdict, judgement.champion_accuracy, judgement.challenger_accuracy) == ("HOLD", 1.0, 1.0)
    judgement = compare_files.replace(champion, champion, wide, all_rows(wide), Rule(), disqualified="a leak")
    assert judgement.challenger_accuracy == 1.0


def test_only_rows_that_neither_was_trained_on_are_compared(dataset: Dataset, champion: Path) -> None:
    test = np.load(dataset.folder / "test.rows.npy")
    other = np.zeros((5, 32), np.uint8)
    rows = compare_files.unseen(dataset, [np.concatenate([test[:7], other]), test[5:10]])
    assert rows.rows.tolist() == list(range(10, ROWS))
    assert rows.refused == 10
    assert compare_files.compare(champion, champion, dataset, rows, Rule()).rows == ROWS - 10
    with pytest.raises(InputError, match="all 60 test rows were used to train one of the two models"):
        compare_files.unseen(dataset, [test[:30], test[30:]])


def test_digests_that_end_in_zeros_are_distinguished(dataset: Dataset) -> None:
    rows = np.full((2, 32), 7, np.uint8)
    rows[0, -1] = 0
    np.save(dataset.folder / "test.rows.npy", rows)
    shorter = rows[:1].copy()
    shorter[0, -2] = 0
    assert compare_files.unseen(dataset, [shorter]).refused == 0
    assert compare_files.unseen(dataset, [rows[:1]]).rows.tolist() == [1]


def test_a_challenger_with_other_inputs_is_rejected(dataset: Dataset, champion: Path, folder: Path) -> None:
    challenger = certified.columns(folder / "model.onnx", ("a", "b", "c", "d"))
    judgement = compare_files.compare(champion, challenger, dataset, all_rows(dataset), Rule())
    assert judgement.verdict == "REJECT"
    assert [gate.name for gate in judgement.gates if not gate.passed] == ["same inputs and classes"]


def test_a_challenger_with_other_classes_is_rejected(dataset: Dataset, champion: Path, folder: Path) -> None:
    challenger = certified.columns(folder / "model.onnx", classes=("virginica", "versicolor", "setosa"))
    judgement = compare_files.compare(champion, challenger, dataset, all_rows(dataset), Rule())
    assert judgement.verdict == "REJECT"


def test_a_challenger_whose_seal_is_broken_is_rejected(dataset: Dataset, champion: Path, folder: Path) -> None:
    challenger = certified.columns(folder / "model.onnx")
    content = challenger.read_bytes()
    challenger.write_bytes(content.replace(b"centimetres", b"millimetres"))
    assert not certificate.check(challenger).holds
    judgement = compare_files.compare(champion, challenger, dataset, all_rows(dataset), Rule())
    assert (judgement.verdict, judgement.gates[0].name, judgement.gates[0].passed) == ("REJECT", "proof holds", False)
    with pytest.raises(DamagedError, match="the champion's own proof does not hold"):
        compare_files.compare(challenger, champion, dataset, all_rows(dataset), Rule())


def test_a_disqualified_champion_is_replaced_by_a_challenger_without_one_of_its_inputs(
    dataset: Dataset, champion: Path, folder: Path, tmp_path: Path
) -> None:
    more = certified.columns(tmp_path / "more.onnx", (*certified.COLUMNS, "leak"))
    for before in (more, champion, None):
        judgement = compare_files.replace(before, champion, dataset, all_rows(dataset), Rule(), disqualified="a leak")
        assert (judgement.verdict, judgement.challenger_accuracy) == ("PROMOTE", 1.0)
        assert all(gate.passed for gate in judgement.gates)
    for other in (
        certified.columns(folder / "inputs.onnx", ("a", "b", "c", "d")),
        certified.columns(folder / "classes.onnx", classes=("virginica", "versicolor", "setosa")),
    ):
        judgement = compare_files.replace(other, champion, dataset, all_rows(dataset), Rule(), disqualified="a leak")
        assert judgement.verdict == "REJECT"
        assert [gate.name for gate in judgement.gates if not gate.passed] == ["same classes and no new input"]
    with pytest.raises(InputError, match="the rows have sepal_length"):
        compare_files.replace(champion, other, dataset, all_rows(dataset), Rule(), disqualified="a leak")


@pytest.mark.parametrize(
    ("rule", "failed"),
    [
        (Rule(size_budget=100), "file size"),
        (Rule(latency_budget=1e-6), "latency of one row"),
        (Rule(size_budget=10**6, latency_budget=1e4), None),
    ],
)
def test_budgets_are_gates(dataset: Dataset, champion: Path, rule: Rule, failed: str | None) -> None:
    judgement = compare_files.compare(champion, champion, dataset, all_rows(dataset), rule)
    assert [gate.name for gate in judgement.gates if not gate.passed] == ([failed] if failed else [])
    assert judgement.verdict == ("REJECT" if failed else "HOLD")


def test_rows_without_finite_predictions_fail_the_loss_gate(dataset: Dataset, champion: Path) -> None:
    x = np.load(dataset.folder / "test.x.npy")
    x[3] = np.nan
    np.save(dataset.folder / "test.x.npy", x)
    judgement = compare_files.compare(champion, champion, dataset, all_rows(dataset), Rule())
    assert judgement.verdict == "REJECT"
    assert [gate.name for gate in judgement.gates if not gate.passed] == ["loss finite"]


def test_rows_of_another_kind_are_refused(dataset: Dataset, champion: Path, folder: Path) -> None:
    other = certified.images(folder / "model.onnx")
    with pytest.raises(InputError, match="inputs image and classes dark, light, the rows have sepal_length"):
        compare_files.compare(other, champion, dataset, all_rows(dataset), Rule())


def test_an_invalid_list_of_digests_is_refused_as_damaged(tmp_path: Path) -> None:
    for split in compare_files.SEEN:
        np.save(tmp_path / f"{split}.rows.npy", np.zeros((3, 31), np.uint8))
    with pytest.raises(DamagedError, match=r"expected \(N, 32\) uint8"):
        compare_files.seen(tmp_path)
