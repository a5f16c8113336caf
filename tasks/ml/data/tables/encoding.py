"""From the columns of a table to what a network takes: fitted by scikit-learn on the training rows, shipped as ONNX.

Numbers have their gaps filled and are scaled, booleans have their gaps filled, and of a categorical column each value
that is kept becomes an input that is 1 or 0; any other value, such as one that training never saw, leaves them all 0.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.records import MISSING, Column

if TYPE_CHECKING:
    import onnx
    from pandas import DataFrame
    from sklearn.compose import ColumnTransformer

OPSET = 18
"""Of the graph as it is kept; `join` lifts it to that of the network, which changes none of its operators."""
FEATURES = "features"
"""What the network takes, and the graph of the encoding gives."""

INSIDE, BEHIND = "encoding/", "network/"
"""What the names of values begin with in a joined graph, so that none is the name of a column."""


def fit(
    columns: tuple[Column, ...], x: NDArray[np.float32], scaling: Literal["none", "standard"], limit: int
) -> tuple[tuple[Column, ...], bytes]:
    """Fit scikit-learn's imputers, scaler and one-hot encoder on training rows.

    Args:
        columns: what each column is.
        x: `(N, columns)`, training rows alone.
        scaling: `standard` for `(value - mean) / standard deviation` of the numeric columns.
        limit: so many values of a categorical column are kept, the most frequent.

    Returns:
        The columns with what was found, and the encoding as the bytes of an ONNX graph: an input for each column, in
        their order, and one output `(N, features) float32`, numeric columns first, then boolean, then categorical.
    """
    kept = [_keep(column, x[:, index], limit) for index, column in enumerate(columns)]
    frame = _frame(kept, x)
    transformer = _transformer(kept, scaling).fit(frame)
    numbers = _numbers(transformer, scaling)
    fitted = tuple(replace(column, **numbers.get(index, {})) for index, column in enumerate(kept))
    return fitted, _convert(transformer, kept).SerializeToString(deterministic=True)


def width(columns: tuple[Column, ...]) -> int:
    """How many numbers the network takes."""
    return sum(len(column.kept) if column.kind == "categorical" else 1 for column in columns)


def in_order(columns: tuple[Column, ...]) -> list[int]:
    """The columns' indices in the order in which they come to the network."""
    return [index for kind in ("numeric", "boolean", "categorical") for index in _of(columns, kind)]


def join(encoding: bytes, network: "onnx.ModelProto", columns: tuple[str, ...]) -> "onnx.ModelProto":
    """One graph of both: each column an input by its name, and the network's outputs.

    Args:
        encoding: as `fit` gives it.
        network: a graph whose one input is `FEATURES`.
        columns: names of the inputs, in their order.
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
        prefix1=INSIDE,
        prefix2=BEHIND,
        name=network.graph.name,
        producer_name=network.producer_name,
        producer_version=network.producer_version,
    )
    names = {one.name: name for one, name in zip(joined.graph.input, columns, strict=True)}
    _rename(joined.graph, names | {BEHIND + name: name for name in outputs})
    for one in joined.graph.input:
        one.type.tensor_type.shape.dim[0].dim_param = "N"
    return joined


def inputs(columns: tuple[str, ...]) -> tuple[str, ...]:
    """What the columns are called in the encoding by itself."""
    return tuple(_name(index) for index in range(len(columns)))


def plain(name: str) -> str:
    """The name that a value of a joined graph had in the network's own."""
    return FEATURES if name == _FEATURES_INSIDE else name.removeprefix(BEHIND)


def _keep(column: Column, x: NDArray[np.float32], limit: int) -> Column:
    if column.kind != "categorical":
        return column
    seen = x[~np.isnan(x)].astype(np.int64)
    counts = np.bincount(seen, minlength=len(column.values))
    frequent = np.argsort(-counts, kind="stable")[:limit]
    codes = sorted(int(code) for code in frequent if counts[code])
    return replace(column, kept=(*codes, *([MISSING] if len(seen) < len(x) else [])), fill=float(MISSING))


def _frame(columns: list[Column], x: NDArray[np.float32]) -> "DataFrame":
    """The rows as scikit-learn takes them: numbers, and text that is empty where there is no value."""
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
    found: dict[str, Any] = {
        "numeric": Pipeline(steps),
        "boolean": SimpleImputer(strategy="most_frequent", keep_empty_features=True),
        "categorical": OneHotEncoder(
            categories=[categories[index] for index in _of(columns, "categorical")],
            handle_unknown="ignore",
            dtype=np.float32,
        ),
    }
    parts = [(kind, found[kind], [_name(index) for index in _of(columns, kind)]) for kind in found]
    # Sparse whatever its density: of many categories a dense matrix would take more than the table itself.
    return ColumnTransformer([part for part in parts if part[2]], sparse_threshold=1.0)


def _numbers(transformer: "ColumnTransformer", scaling: str) -> dict[int, dict[str, Any]]:
    """What was fitted of each column, by its index, as the graph has it: in float32."""
    found: dict[int, dict[str, Any]] = {}
    for kind, fitted, names in transformer.transformers_:
        if kind not in ("numeric", "boolean"):
            continue
        imputer = fitted.named_steps["imputer"] if kind == "numeric" else fitted
        scaler = fitted.named_steps["scaler"] if kind == "numeric" and scaling == "standard" else None
        for place, name in enumerate(names):
            numbers = {"fill": imputer.statistics_[place]}
            if scaler is not None:
                numbers |= {"shift": scaler.mean_[place], "factor": 1 / scaler.scale_[place]}
            found[int(name[1:])] = {key: float(np.float32(value)) for key, value in numbers.items()}
    return found


def _convert(transformer: "ColumnTransformer", columns: list[Column]) -> "onnx.ModelProto":
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    types = {True: StringTensorType, False: FloatTensorType}
    inputs = [(_name(index), types[one.kind == "categorical"]([None, 1])) for index, one in enumerate(columns)]
    model = convert_sklearn(transformer, "encoding", inputs, target_opset={"": OPSET, "ai.onnx.ml": 3})
    _rename(model.graph, {model.graph.output[0].name: FEATURES})
    # It says the lowest that would do; what it is made of is the same in this one.
    next(one for one in model.opset_import if not one.domain).version = OPSET
    return cast("onnx.ModelProto", model)


def _rename(graph: "onnx.GraphProto", names: dict[str, str]) -> None:
    """Give inputs, outputs and what lies between them other names."""
    for one in (*graph.input, *graph.output, *graph.value_info):
        one.name = names.get(one.name, one.name)
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]


def _of(columns: list[Column] | tuple[Column, ...], kind: str) -> list[int]:
    return [index for index, column in enumerate(columns) if column.kind == kind]


def _name(index: int) -> str:
    """Of a column within the encoding: any text may be the name of a column in a file."""
    return f"c{index}"


_FEATURES_INSIDE = INSIDE + FEATURES
