from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pandas import DataFrame, Series
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from hallmark.tasks.common.records import MISSING, UNKNOWN, Column
from hallmark.tasks.ml.artifact import runtimes
from hallmark.tasks.ml.data import dataset_store, sources
from hallmark.tasks.ml.data.tables import encoding
from hallmark.tasks.ml.data.tables.date_columns import date_parts
from hallmark.tasks.ml.models.preprocessing import Encoding
from tests.conftest import prepare
from tests.support import owned

NAN = float("nan")
KINDS = ("numeric", "boolean", "categorical")


def column(name: str, kind: str, values: tuple[str, ...] = ()) -> Column:
    return Column(name, kind, 0, values)  # type: ignore[arg-type]


def rows(*columns: list[float]) -> NDArray[np.float32]:
    return np.array(columns, np.float32).T


def by_graph(columns: tuple[Column, ...], graph: bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Encode raw rows with onnxruntime."""
    session = runtimes.open_session(graph)
    names = tuple(one.name for one in session.get_inputs())
    values = {name: one.values for name, one in zip(names, columns, strict=True) if one.kind == "categorical"}
    wide = [name for name, one in zip(names, columns, strict=True) if one.wide]
    (found,) = session.run(None, runtimes.feeds(names, x, values, wide))
    return np.asarray(found, np.float32)


def by_torch(
    columns: tuple[Column, ...], x: NDArray[np.float32], dtype: torch.dtype = torch.float32
) -> NDArray[np.floating]:
    found: NDArray[np.floating] = Encoding(columns).to(dtype)(torch.tensor(x)).numpy()
    return found


def by_sklearn(
    columns: tuple[Column, ...], train: NDArray[np.float32], x: NDArray[np.float32], scaling: str, limit: int
) -> NDArray[np.float64]:
    """Encode with scikit-learn in float64, from frames of numbers and text with None for missing values."""

    def frame(given: NDArray[np.float32]) -> DataFrame:
        fields = {}
        for index, one in enumerate(columns):
            field = given[:, index].astype(np.float64)
            if one.kind == "categorical":
                words = dict(enumerate(one.values)) | {UNKNOWN: "?!"}
                fields[index] = Series([None if np.isnan(code) else words[int(code)] for code in field], dtype=object)
            else:
                fields[index] = field
        return DataFrame(fields)

    def most_frequent(index: int) -> list[str | None]:
        """Return the most frequent values in the training rows, sorted, and None if one is missing."""
        seen = frame(train)[index]
        counts = sorted(seen.dropna().value_counts().items(), key=lambda pair: (-pair[1], pair[0]))
        return [*sorted(value for value, _ in counts[:limit]), *([None] if seen.isna().any() else [])]

    indices = {kind: [index for index, one in enumerate(columns) if one.kind == kind] for kind in KINDS}
    scaler = [("scaler", StandardScaler())] if scaling == "standard" else []
    parts = [
        (
            "n",
            Pipeline([("i", SimpleImputer(strategy="median", keep_empty_features=True)), *scaler]),
            indices["numeric"],
        ),
        ("b", SimpleImputer(strategy="most_frequent", keep_empty_features=True), indices["boolean"]),
        (
            "c",
            OneHotEncoder(categories=[most_frequent(i) for i in indices["categorical"]], handle_unknown="ignore"),
            indices["categorical"],
        ),
    ]
    transformer = ColumnTransformer([part for part in parts if part[2]], sparse_threshold=0)
    found: NDArray[np.float64] = transformer.fit(frame(train)).transform(frame(x)).astype(np.float64)
    return found


NUMBERS = st.one_of(st.just(NAN), st.floats(-1000, 1000, width=32))
BOOLEANS = st.sampled_from([0.0, 1.0, NAN])


@st.composite
def tables(draw: st.DrawFn) -> tuple[tuple[Column, ...], NDArray[np.float32], NDArray[np.float32]]:
    """Draw columns of every kind, rows to fit, and rows with values that may be absent from those."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    alphabet = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=5)
    columns, train, other = [], [], []
    size = draw(st.integers(1, 12))
    for index, kind in enumerate(kinds):
        words = tuple(sorted(draw(st.sets(alphabet.filter(lambda word: word != "?!"), min_size=1, max_size=4))))
        codes = st.sampled_from([*map(float, range(len(words))), NAN])
        fields = {"numeric": NUMBERS, "boolean": BOOLEANS, "categorical": codes}[kind]
        beyond = st.one_of(codes, st.just(float(UNKNOWN))) if kind == "categorical" else fields
        columns.append(column(f"column {index}", kind, words if kind == "categorical" else ()))
        train.append(draw(st.lists(fields, min_size=size, max_size=size)))
        other.append(draw(st.lists(beyond, min_size=5, max_size=5)))
    return tuple(columns), rows(*train), rows(*other)


@settings(max_examples=30)
@given(tables(), st.sampled_from(["standard", "none"]), st.integers(1, 5))
def test_graph_and_torch_agree_with_scikit_learn(
    table: tuple[tuple[Column, ...], NDArray[np.float32], NDArray[np.float32]], scaling: str, limit: int
) -> None:
    columns, train, other = table
    fitted, graph = encoding.fit(columns, train, scaling, limit)  # type: ignore[arg-type]
    x = np.concatenate([train, other])
    expected = by_sklearn(columns, train, x, scaling, limit)
    assert expected.shape == (len(x), encoding.feature_count(fitted))
    # Includes the rounding of float32 when the mean is subtracted and the result is divided.
    tolerance = 1e-5 * max(1.0, float(np.abs(expected).max())) + _rounding(fitted, x)
    np.testing.assert_allclose(by_torch(fitted, x, torch.float64), expected, atol=tolerance, rtol=0)
    np.testing.assert_allclose(by_graph(fitted, graph, x), expected, atol=tolerance, rtol=0)
    np.testing.assert_allclose(by_torch(fitted, x), by_graph(fitted, graph, x), atol=tolerance, rtol=0)


def _rounding(columns: tuple[Column, ...], x: NDArray[np.float32]) -> float:
    largest = float(np.nan_to_num(np.abs(x)).max())
    return 1e-6 * max(largest * abs(one.factor) for one in columns)


def test_features_of_a_small_table_match_values_written_by_hand() -> None:
    columns = column("n", "numeric"), column("c", "categorical", ("a", "b", "c")), column("b", "boolean")
    train = rows([1, 3, NAN, 3], [0, 1, 1, NAN], [1, 1, 0, NAN])
    fitted, graph = encoding.fit(columns, train, "standard", 100)
    assert [one.kept for one in fitted] == [(), (0, 1, MISSING), ()]
    assert (fitted[0].fill, fitted[2].fill) == (3.0, 1.0)
    assert encoding.feature_order(fitted) == [0, 2, 1]
    assert encoding.feature_count(fitted) == 5
    mean, deviation = 2.5, np.sqrt(0.75)
    x = rows([1, NAN, 4], [0, 2, NAN], [0, NAN, 1])  # 'c' was in no training row
    expected = [
        [(1 - mean) / deviation, 0, 1, 0, 0],
        [(3 - mean) / deviation, 1, 0, 0, 0],
        [(4 - mean) / deviation, 1, 0, 0, 1],
    ]
    np.testing.assert_allclose(by_graph(fitted, graph, x), expected, atol=1e-6)
    np.testing.assert_allclose(by_torch(fitted, x), expected, atol=1e-6)


def test_dates_become_parts_in_numpy_torch_and_the_graph_as_in_the_standard_library() -> None:
    days = ["0001-01-01", "1600-02-29", "1900-02-28", "1969-12-31", "2000-02-29", "2100-03-01", "9999-12-31"]
    edges = np.array(days, "datetime64[s]").astype(np.int64)[:, None] + [0, 3599, 3600, 86_399]
    drawn = np.random.default_rng(0).integers(edges.min(), edges.max(), 500)
    seconds = np.concatenate([edges.ravel(), drawn]).astype(np.float64)
    times = [datetime(1, 1, 1, tzinfo=UTC) + timedelta(seconds=one - edges.min()) for one in seconds.tolist()]
    expected = np.array([(one.year, one.month, one.weekday(), one.hour) for one in times])
    np.testing.assert_array_equal(np.stack(date_parts.of(seconds + 0.5, np.floor)[:4], axis=1), expected)
    columns = column("n", "numeric"), Column("when", "date", 0, wide=True), column("c", "categorical", ("a", "b"))
    x = np.stack([seconds % 7, seconds, seconds % 2], axis=1)
    fitted, graph = encoding.fit(columns, x, "none", 9)
    for found in (by_graph(fitted, graph, x), by_torch(fitted, x), by_torch(fitted, x, torch.float64)):
        np.testing.assert_array_equal(found[:, 1:5], expected)
        np.testing.assert_allclose(found[:, 5], seconds - edges.min(), rtol=1e-7)
    assert fitted[1].offset == edges.min()
    assert date_parts.in_words(seconds[1]) == "0001-01-01T00:59:59Z"
    gap = np.array([[1, NAN, 0.0]])
    assert by_graph(fitted, graph, gap).tolist() == by_torch(fitted, gap).tolist()
    assert by_torch(fitted, gap)[0, 1] == np.median(expected[:, 0])


def test_the_most_frequent_values_are_kept_and_all_others_are_unknown() -> None:
    columns = (column("c", "categorical", ("a", "b", "c", "d")),)
    fitted, graph = encoding.fit(columns, rows([3, 3, 1, 1, 0, 2]), "standard", 2)
    assert fitted[0].kept == (1, 3)
    assert by_graph(fitted, graph, rows([0, 1, 2, 3, NAN, UNKNOWN])).tolist() == [
        [0, 0], [1, 0], [0, 0], [0, 1], [0, 0], [0, 0],
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_without_values_in_training_is_encoded(kind: str) -> None:
    columns = column("n", "numeric"), column("empty", kind, ("a",) if kind == "categorical" else ())
    fitted, graph = encoding.fit(columns, rows([1, 2], [NAN, NAN]), "standard", 100)
    x = rows([1, 2], [0, NAN])
    found = by_graph(fitted, graph, x)
    assert found.shape == (2, 2)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, by_torch(fitted, x), atol=1e-6)


def test_three_hundred_columns_with_unusual_text() -> None:
    words = tuple(sorted(("", *owned.CITIES, "label", "c0", "x\x00y", "line\nend", "\U0001d518", " "))[1:])
    columns = tuple(column(f"c{index}", KINDS[index % 3], words if index % 3 == 2 else ()) for index in range(300))
    codes = np.arange(len(words), dtype=np.float32)
    train = np.stack([codes % 2 if index % 3 == 1 else codes for index in range(300)], axis=1)
    fitted, graph = encoding.fit(columns, train, "standard", 100)
    assert encoding.feature_count(fitted) == 100 + 100 + 100 * len(words)
    np.testing.assert_allclose(by_graph(fitted, graph, train), by_torch(fitted, train), atol=1e-6)


def test_the_same_rows_give_the_same_bytes() -> None:
    columns = column("n", "numeric"), column("c", "categorical", ("a", "b"))
    train = rows([1, 2, 3], [0, 1, NAN])
    assert encoding.fit(columns, train, "standard", 9) == encoding.fit(columns, train.copy(), "standard", 9)


def test_the_encoding_is_fitted_on_training_rows_only(tmp_path: Path) -> None:
    table = owned.mixed(60)
    by_column = {"split": {"column": "split"}}
    split = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10
    first = owned.source(owned.write(table.append_column("split", [split]), tmp_path / "a.parquet"), **by_column)
    changed = {name: table[name].to_pylist() for name in table.column_names}
    for name, other in (("age", 1e6), ("children, at home", None), ("is.member", None), ("c0", owned.CITIES[0])):
        changed[name][40:] = [other] * 20
    import pyarrow as pa

    second = owned.source(owned.write(pa.table(changed | {"split": split}), tmp_path / "b.parquet"), **by_column)
    one, two = (prepare(source, tmp_path / "home") for source in (first, second))
    assert one.digest != two.digest
    assert (one.folder / dataset_store.ENCODING).read_bytes() == (two.folder / dataset_store.ENCODING).read_bytes()
    encodings = [[replace(column, missing=0) for column in dataset_store.columns_of(dataset)] for dataset in (one, two)]
    assert encodings[0] == encodings[1]


def test_each_column_is_an_input_of_the_joined_graph_by_its_own_name(tmp_path: Path) -> None:
    """Use column names that the encoding uses within its graph too, such as `c0` and `features`."""
    import pyarrow as pa
    from onnxruntime.quantization import quantize_dynamic

    from hallmark.tasks.ml.artifact import exporter
    from hallmark.tasks.ml.artifact.proof import verifier
    from hallmark.tasks.ml.config.experiment import Export
    from tests.conftest import fit, load

    names = ("c1", "c0", "features", "image", "merged_columns", 'a.b, "c"', "日本 ", "linear", "c9_narrow")
    rng = np.random.default_rng(0)
    columns = {name: pa.array(rng.normal(size=40)) for name in names[:4]}
    columns |= {name: pa.array(rng.choice(["c0", "label"], 40)) for name in names[4:-1]}
    columns[names[-1]] = pa.array(1_700_000_000 + rng.integers(0, 99, 40))
    path = owned.write(pa.table(columns | {owned.TARGET: ["x", "y"] * 20}), tmp_path / "odd.parquet")
    experiment = owned.experiment(path)
    dataset = prepare(experiment.data, tmp_path)
    assert dataset_store.load(dataset.folder) == dataset
    classifier = load(fit(experiment, dataset, tmp_path), dataset, experiment)
    artifact = exporter.export(classifier, dataset, Export(), tmp_path / "odd.onnx")
    graph = onnx.load(artifact.path).graph
    assert [one.name for one in graph.input] == [name.strip() for name in names]
    verifier.verify(artifact, classifier, dataset, tmp_path / "parity.json")
    quantize_dynamic(artifact.path, tmp_path / "quantized.onnx")  # fails on a domain named twice


def test_a_source_of_numbers_has_no_encoding(tmp_path: Path) -> None:
    from hallmark.flows.experiments import presets

    dataset = prepare(presets.iris().data, tmp_path)
    assert dataset_store.columns_of(dataset) == ()
    assert dataset_store.category_values(dataset) == {}
    assert not (dataset.folder / dataset_store.ENCODING).exists()
    assert dataset_store.outline(sources.read(presets.iris().data, tmp_path), presets.iris().data).kinds == ()
