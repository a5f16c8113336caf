"""Encoding of table columns as features of the network, fitted by scikit-learn on training rows and exported as ONNX.

Numeric columns are imputed and scaled, boolean columns are imputed, and categorical columns are one-hot encoded. A
category that is rare or was not seen in training is encoded as zeros. From a wide numeric column, which is float64, a
number is subtracted before anything else, so that float32 can hold the rest. A date becomes several numeric columns.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import MISSING, Column
from hallmark.tasks.ml.data.tables.date_columns import date_parts, graph_dates
from hallmark.tasks.ml.data.tables.wide_numbers import Numbers, lower_median, shifted

if TYPE_CHECKING:
    import onnx
    from pandas import DataFrame
    from sklearn.compose import ColumnTransformer

OPSET = 18
"""Opset of the stored graph. `join` raises it to the network's opset, which changes none of its operators."""
FEATURES = "features"
"""Name of the encoding's output, which is the network's input."""

ENCODING_PREFIX, NETWORK_PREFIX = "encoding/", "network/"
"""Prefixes of value names in a joined graph, so that none of them equals a column name."""

_JOINED_FEATURES = ENCODING_PREFIX + FEATURES


def fit(
    columns: tuple[Column, ...], x: Numbers, scaling: Literal["none", "standard"], limit: int
) -> tuple[tuple[Column, ...], bytes]:
    """Fit scikit-learn's imputers, scaler and one-hot encoder on training rows.

    Args:
        columns: name and kind of each column.
        x: `(N, columns)`, training rows only.
        scaling: `standard` for `(value - mean) / standard deviation` of the numeric columns.
        limit: maximum number of categories of a column; the most frequent are kept.

    Returns:
        The columns with the fitted numbers and the kept categories, and the encoding as a serialized ONNX graph: one
        input per column, in order, and one output `(N, features) float32`: numeric, boolean, then categorical columns.
    """
    columns = tuple(_with_offset(column, x[:, index]) for index, column in enumerate(columns))
    single, x = expanded(columns), _expanded_rows(columns, x)
    kept = [_with_kept_categories(column, x[:, index], limit) for index, column in enumerate(single)]
    offsets = np.array([one.offset for one in kept])
    frame = _frame(kept, shifted(x, offsets) if offsets.any() else x.astype(np.float32, copy=False))
    transformer = _transformer(kept, scaling).fit(frame)
    numbers = _fitted_numbers(transformer, scaling)
    fitted = [replace(column, **numbers.get(index, {})) for index, column in enumerate(kept)]
    graph = _convert(transformer, kept)
    graph_dates.compute_parts(graph.graph, columns)
    return _joined_parts(columns, fitted), graph.SerializeToString(deterministic=True)


def expanded(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Return the columns with the parts of each date in its place."""
    return tuple(part for column in columns for part in (column.parts or (column,)))


def feature_count(columns: tuple[Column, ...]) -> int:
    """Return the number of features, the width of the network's input."""
    return sum(len(column.kept) if column.kind == "categorical" else 1 for column in expanded(columns))


def feature_order(columns: tuple[Column, ...]) -> list[int]:
    """Return the indices of expanded columns in the order of their features."""
    return [index for kind in ("numeric", "boolean", "categorical") for index in _indices_of(columns, kind)]


def join(encoding: bytes, network: "onnx.ModelProto", columns: tuple[str, ...]) -> "onnx.ModelProto":
    """Join encoding and network to one graph, with an input per column and the network's outputs.

    Args:
        encoding: the graph that `fit` returned.
        network: a graph with the single input `FEATURES`.
        columns: names for the inputs, in order.
    """
    import onnx

    before = onnx.load_model_from_string(encoding)
    before.ir_version = network.ir_version
    next(one for one in before.opset_import if not one.domain).version = network.opset_import[0].version
    outputs = [one.name for one in network.graph.output]
    joined = onnx.compose.merge_models(
        before,
        network,
        io_map=[(before.graph.output[0].name, network.graph.input[0].name)],
        prefix1=ENCODING_PREFIX,
        prefix2=NETWORK_PREFIX,
        name=network.graph.name,
        producer_name=network.producer_name,
        producer_version=network.producer_version,
    )
    names = {one.name: name for one, name in zip(joined.graph.input, columns, strict=True)}
    _rename(joined.graph, names | {NETWORK_PREFIX + name: name for name in outputs})
    for one in joined.graph.input:
        one.type.tensor_type.shape.dim[0].dim_param = "N"
    return joined


def network_value_name(name: str) -> str:
    """Return the name that a value of a joined graph had in the network's graph."""
    return FEATURES if name == _JOINED_FEATURES else name.removeprefix(NETWORK_PREFIX)


def _with_offset(column: Column, x: Numbers) -> Column:
    if column.kind != "date":
        return replace(column, offset=lower_median(x)) if column.wide else column
    first = 0.0 if np.isnan(x).all() else float(np.nanmin(x))
    parts = [Column(f"{column.name}: {name}", "numeric", column.missing) for name in date_parts.NAMES]
    return replace(column, offset=first, parts=(*parts[:-1], replace(parts[-1], wide=True, offset=first)))


def _expanded_rows(columns: tuple[Column, ...], x: NDArray[Any]) -> NDArray[Any]:
    if not any(column.parts for column in columns):
        return x
    parts = [date_parts.of(x[:, index], np.floor) if one.parts else (x[:, index],) for index, one in enumerate(columns)]
    return np.stack([part for those in parts for part in those], axis=1)


def _joined_parts(columns: tuple[Column, ...], fitted: list[Column]) -> tuple[Column, ...]:
    """Return the columns with their fitted numbers, those of a date in its parts."""
    rest = iter(fitted)
    return tuple(
        replace(column, parts=tuple(next(rest) for _ in column.parts)) if column.parts else next(rest)
        for column in columns
    )


def _with_kept_categories(column: Column, x: Numbers, limit: int) -> Column:
    if column.kind != "categorical":
        return column
    seen = x[~np.isnan(x)].astype(np.int64)
    counts = np.bincount(seen, minlength=len(column.values))
    frequent = np.argsort(-counts, kind="stable")[:limit]
    codes = sorted(int(code) for code in frequent if counts[code])
    return replace(column, kept=(*codes, *([MISSING] if len(seen) < len(x) else [])), fill=float(MISSING))


def _frame(columns: list[Column], x: NDArray[np.float32]) -> "DataFrame":
    """Return rows as scikit-learn takes them: numbers, and text that is empty where a value is missing."""
    from pandas import DataFrame

    return DataFrame({_name(index): _series(column, x[:, index]) for index, column in enumerate(columns)}, copy=False)


def _series(column: Column, x: NDArray[np.float32]) -> NDArray[Any]:
    if column.kind != "categorical":
        return x
    text = np.array([*column.values, ""], dtype=object)
    return text[np.where(np.isnan(x), -1, x).astype(np.int64)]


def _transformer(columns: list[Column], scaling: str) -> "ColumnTransformer":
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    steps: list[tuple[str, Any]] = [("imputer", SimpleImputer(strategy="median", keep_empty_features=True))]
    if scaling == "standard":
        steps.append(("scaler", StandardScaler()))
    categories = [[column.values[code] if code != MISSING else "" for code in column.kept] for column in columns]
    by_kind: dict[str, Any] = {
        "numeric": Pipeline(steps),
        "boolean": SimpleImputer(strategy="most_frequent", keep_empty_features=True),
        "categorical": OneHotEncoder(
            categories=[categories[index] for index in _indices_of(columns, "categorical")],
            handle_unknown="ignore",
            dtype=np.float32,
        ),
    }
    parts = [(kind, by_kind[kind], [_name(index) for index in _indices_of(columns, kind)]) for kind in by_kind]
    # Always sparse: with many categories, a dense matrix would be larger than the table itself.
    return ColumnTransformer([part for part in parts if part[2]], sparse_threshold=1.0)


def _fitted_numbers(transformer: "ColumnTransformer", scaling: str) -> dict[int, dict[str, Any]]:
    """Return the fitted numbers by column index, rounded to float32 as in the graph."""
    by_index: dict[int, dict[str, Any]] = {}
    for kind, fitted, names in transformer.transformers_:
        if kind not in ("numeric", "boolean"):
            continue
        imputer = fitted.named_steps["imputer"] if kind == "numeric" else fitted
        scaler = fitted.named_steps["scaler"] if kind == "numeric" and scaling == "standard" else None
        for place, name in enumerate(names):
            numbers = {"fill": imputer.statistics_[place]}
            if scaler is not None:
                numbers |= {"shift": scaler.mean_[place], "factor": 1 / scaler.scale_[place]}
            by_index[int(name[1:])] = {key: float(np.float32(value)) for key, value in numbers.items()}
    return by_index


def _convert(transformer: "ColumnTransformer", columns: list[Column]) -> "onnx.ModelProto":
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    types = {True: StringTensorType, False: FloatTensorType}
    inputs = [(_name(index), types[one.kind == "categorical"]([None, 1])) for index, one in enumerate(columns)]
    model = convert_sklearn(transformer, "encoding", inputs, target_opset={"": OPSET, "ai.onnx.ml": 3})
    _rename(model.graph, {model.graph.output[0].name: FEATURES})
    # skl2onnx states the lowest opset that suffices; the operators are the same in this one.
    next(one for one in model.opset_import if not one.domain).version = OPSET
    # skl2onnx takes the domains from a set, whose order differs between processes.
    model.opset_import.sort(key=lambda one: one.domain)
    _subtract_offsets(model.graph, columns)
    return cast("onnx.ModelProto", model)


def _subtract_offsets(graph: "onnx.GraphProto", columns: list[Column]) -> None:
    """Make each wide column a float64 input, from which its offset is subtracted before it becomes float32."""
    import onnx
    from onnx import TensorProto, helper

    nodes: list[onnx.NodeProto] = []
    for index in (index for index, column in enumerate(columns) if column.wide):
        name, offset, rest, narrow = (f"{_name(index)}{what}" for what in ("", "_offset", "_shifted", "_narrow"))
        for node in graph.node:
            node.input[:] = [narrow if one == name else one for one in node.input]
        next(one for one in graph.input if one.name == name).type.tensor_type.elem_type = TensorProto.DOUBLE
        graph.initializer.append(helper.make_tensor(offset, TensorProto.DOUBLE, (), [columns[index].offset]))
        nodes.append(helper.make_node("Sub", [name, offset], [rest], name=f"{rest}_node"))
        nodes.append(helper.make_node("Cast", [rest], [narrow], name=f"{narrow}_node", to=TensorProto.FLOAT))
    for node in reversed(nodes):
        graph.node.insert(0, node)


def _rename(graph: "onnx.GraphProto", names: dict[str, str]) -> None:
    """Rename inputs, outputs and the values between them."""
    for one in (*graph.input, *graph.output, *graph.value_info):
        one.name = names.get(one.name, one.name)
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]


def _indices_of(columns: list[Column] | tuple[Column, ...], kind: str) -> list[int]:
    return [index for index, column in enumerate(columns) if column.kind == kind]


def _name(index: int) -> str:
    """Return a name that is valid in any graph: column names in a file may be any text."""
    return f"c{index}"
