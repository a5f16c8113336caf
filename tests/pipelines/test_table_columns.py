from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from hallmark.tasks.ml.data.dataset_store import columns_of, open_split
from hallmark.tasks.ml.reports import data_profile
from hallmark.tasks.ml.reports.plots import style, table_columns
from tests.conftest import prepare
from tests.support import owned


def test_table_with_odd_names_is_drawn_and_described(tmp_path: Path) -> None:
    dataset = prepare(owned.source(owned.write(owned.mixed(), tmp_path / "x.csv")), tmp_path)
    described, picture = data_profile.profile(dataset, tmp_path)
    assert '"kind": "categorical"' in described.read_text()
    with Image.open(picture) as image:
        assert image.width > 1000
        assert len(set(np.asarray(image.convert("L")).ravel().tolist())) > 50


def test_the_number_of_drawn_columns_and_classes_is_limited(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {f"a column of a long name, number {index}": rng.normal(size=200) for index in range(15)}
    table = pa.table(columns | {"t": [f"class {index % 10}" for index in range(200)]})
    dataset = prepare(owned.source(owned.write(table, tmp_path / "x.parquet"), target="t"), tmp_path)
    train = open_split(dataset, "train")
    drawn = table_columns.columns(train.x, train.y, columns_of(dataset), dataset.classes, tmp_path / "p.png")
    fewer = table_columns.columns(train.x, train.y, columns_of(dataset)[:12], dataset.classes, tmp_path / "q.png")
    with Image.open(drawn) as one, Image.open(fewer) as other:
        assert one.size == other.size
    assert drawn.read_bytes() != fewer.read_bytes()  # the title states that there are more


@pytest.mark.parametrize("kind", ["numeric", "boolean", "categorical"])
def test_column_without_values_is_drawn_empty(kind: str, tmp_path: Path) -> None:
    dataset = prepare(owned.source(owned.write(owned.mixed(60), tmp_path / "x.csv")), tmp_path)
    empty = replace(columns_of(dataset)[0], kind=kind, values=())
    x = np.full((9, 1), np.nan, np.float32)
    assert table_columns.columns(x, np.arange(9) % 3, (empty,), owned.CLASSES, tmp_path / "p.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("iris", "iris"),
        ("_x", " _x"),
        ("$5", r"\$5"),
        (r"$\q$", r"\$\q\$"),
        ("a\nb", "a b"),
        ("x" * 50, "x" * 39 + "…"),
    ],
)
def test_names_are_drawn_literally(name: str, drawn: str) -> None:
    assert style.plain_text(name) == drawn
