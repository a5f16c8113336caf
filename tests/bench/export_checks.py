"""How three other libraries check an exported file: the rule of each, and the rows that it draws."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hallmark.tasks.common.records import OUTPUT_NAMES, Dataset
from hallmark.tasks.ml.artifact import runtimes
from hallmark.tasks.ml.artifact.exporter import EXAMPLE_ROWS, Served
from hallmark.tasks.ml.artifact.proof import float64_reference
from hallmark.tasks.ml.data import dataset_store
from hallmark.tasks.ml.data.source_rows import RawRows
from hallmark.tasks.ml.models.networks import Classifier
from tests.bench import rows

Values = NDArray[np.generic]
Rule = Callable[[Values, Values], bool]
Draw = Callable[[Dataset, int], RawRows]


def torch_flags(expected: Values, found: Values) -> bool:
    """Apply torch/onnx/_internal/exporter/_core.py, `export(verify=True)`, torch 2.15, where it only warns.

    A NaN is not larger than anything, and passes.
    """
    apart = np.abs(expected.astype(np.float64) - found)
    return bool(apart.max() >= 5e-3 or (apart / (np.abs(expected) + 1e-7)).max() >= 1e-1)


def optimum_flags(expected: Values, found: Values) -> bool:
    """Apply optimum/exporters/onnx/convert.py, `_run_validation`, with the default `ATOL_FOR_VALIDATION` 1e-5."""
    return not np.allclose(expected, found, atol=1e-5)


def polygraphy_flags(expected: Values, found: Values) -> bool:
    """Apply polygraphy/comparator/compare.py, `CompareFunc.simple`, with `check_error_stat` "elemwise", the default."""
    apart = np.abs(found - expected.astype(np.float64))
    share = apart / np.where(expected == 0, 2.220446049250313e-16, np.abs(expected))
    return bool((~(apart <= 1e-5) & ~(share <= 1e-5)).any())


def example(dataset: Dataset, count: int) -> RawRows:
    """Draw a batch as users pass it to an exporter: standard normal columns, or any pixels."""
    random = np.random.default_rng(0)
    if dataset.largest is None:
        return random.standard_normal((count, len(dataset.columns)), dtype=np.float32)
    return random.integers(0, int(dataset.largest) + 1, (count, *dataset.shape), dtype=np.uint8)


def polygraphy_data(dataset: Dataset, count: int) -> RawRows:
    """Draw a batch as polygraphy/comparator/data_loader.py, `DataLoader`, does by default: 0 to 1, seed 1."""
    random = np.random.RandomState(1)
    if dataset.largest is None:
        return np.stack([random.random_sample(count) for _ in dataset.columns], axis=1).astype(np.float32)
    return random.randint(0, 2, (count, *dataset.shape), dtype=np.uint8)


RULES: dict[str, tuple[Rule, Draw, int]] = {
    "torch": (torch_flags, example, EXAMPLE_ROWS),
    "optimum": (optimum_flags, example, EXAMPLE_ROWS),
    # polygraphy/constants.py, `DEFAULT_SHAPE_VALUE`: a graph for any number of rows gets one row.
    "polygraphy": (polygraphy_flags, polygraphy_data, 1),
}
"""By name: the rule, the function that draws a batch, and its number of rows if the graph does not fix it."""


def flags(file: Path, classifier: Classifier, dataset: Dataset) -> dict[str, bool]:
    """Return which of the other libraries flag a file. All flag a failed run and another shape."""
    try:
        session = runtimes.open_session(str(file))
    except Exception:  # noqa: BLE001 - any error of onnxruntime
        return dict.fromkeys(RULES, True)
    fixed = session.get_inputs()[0].shape[0]
    return {name: _is_flagged(session, classifier, dataset, fixed, *given) for name, given in RULES.items()}


def _is_flagged(
    session: onnxruntime.InferenceSession,
    classifier: Classifier,
    dataset: Dataset,
    fixed: object,
    rule: Rule,
    draw: Draw,
    count: int,
) -> bool:
    x = draw(dataset, fixed if isinstance(fixed, int) else count)
    if dataset.is_table:  # text has no numbers to draw
        is_text = np.array(dataset.kinds) == "categorical"
        x = np.where(is_text, 0, x).astype(dataset.dtype)
    expected = float64_reference.predict(Served(classifier).eval(), dataset, x)
    try:
        found = session.run(
            OUTPUT_NAMES, rows.feeds(dataset, x, dataset_store.category_values(dataset) if dataset.is_table else {})
        )
    except Exception:  # noqa: BLE001 - any error of onnxruntime
        return True
    pairs = list(zip((expected.label, expected.probabilities), found, strict=True))
    return any(one.shape != other.shape or rule(one, other) for one, other in pairs)
