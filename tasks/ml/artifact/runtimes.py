"""Predictions of an ONNX file by onnxruntime and by onnx's reference evaluator. Imports no torch.

Run as a module (`python -m hallmark.tasks.ml.artifact.runtimes FILE FOLDER`), it computes the predictions that a proof
compares with torch's, in a process that has not imported torch; see `main`.
"""

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops import op_max_pool

from hallmark.tasks.common.records import OUTPUT_NAMES

NUMBERS_AT_ONCE = 2**18
"""Numbers in a batch of columns: few enough for a processor's cache, enough to make the cost per batch negligible."""
ROWS_AT_ONCE = 500
"""Batch size for many rows: a convolution of all at once would take gigabytes."""
CUDA = "onnxruntime, CUDA"

Feeds = dict[str, NDArray[np.generic]]
"""Rows by input name, each `(N, ...)`."""
Predict = Callable[[Feeds], list[NDArray[np.generic]]]
"""A function from rows to their labels and probabilities."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predictions for some rows."""

    label: NDArray[np.int64]
    """`(N,)`."""
    probabilities: NDArray[np.floating]
    """`(N, C)`."""

    def take(self, rows: NDArray[np.int64]) -> "Predicted":
        """Return the predictions at these positions."""
        return Predicted(self.label[rows], self.probabilities[rows])


@dataclass(frozen=True, slots=True)
class Asked:
    """Predictions in one way."""

    way: str
    predicted: Predicted
    rows: NDArray[np.int64]
    """`(n,)`: positions of the predicted rows. A row may be predicted several times."""
    sizes: NDArray[np.int64]
    """`(n,)`: number of rows in the batch in which each was predicted."""


def input_names(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of a graph's inputs: one for each column, or `image` if there are none."""
    return columns or ("image",)


def feeds(
    columns: tuple[str, ...],
    x: NDArray[np.generic],
    values: Mapping[str, Sequence[str]] | None = None,
    wide: Sequence[str] = (),
) -> Feeds:
    """Return the inputs of a graph: each column as `(N, 1)` by its name, or `image`, `(N, H, W)` or `(N, H, W, 3)`.

    Args:
        columns: names of the columns; empty for images.
        x: raw rows.
        values: values of each text column, for which the rows hold an index; see `text`.
        wide: names of the columns that are float64 inputs. If there are any, all raw rows are float64.
    """
    if not columns:
        return dict.fromkeys(input_names(columns), x)
    given: Feeds = {name: x[:, index : index + 1] for index, name in enumerate(columns)}
    if wide:
        given = {name: value if name in wide else value.astype(np.float32) for name, value in given.items()}
    return given | {name: text(given[name], known) for name, known in (values or {}).items()}


def text(x: NDArray[np.generic], values: Sequence[str]) -> NDArray[np.object_]:
    """Return the texts for indices: an empty text for NaN, and one that is in no column for `UNKNOWN`."""
    unknown = "unheard of"
    while unknown in values:
        unknown += "!"
    texts = np.array([*values, unknown, ""], dtype=object)
    chosen: NDArray[np.object_] = texts[np.where(np.isnan(x), -1, x).astype(np.int64)]
    return chosen


def open_session(
    model: str | bytes, *, optimise: bool = True, threads: int = 1, device: str = "CPU"
) -> onnxruntime.InferenceSession:
    """Open an ONNX file, or its bytes.

    Args:
        model: path or content.
        optimise: whether onnxruntime optimises the graph, fully or not at all.
        threads: number of CPU threads, which do not spin; one is best for small models.
        device: `CPU`, or `CUDA`, which then computes products in float32 and not in TF32.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.log_severity_level = 4  # errors are raised, so they need not be printed
    provider = ("CUDAExecutionProvider", {"use_tf32": "0"}) if device == "CUDA" else "CPUExecutionProvider"
    # No fallback: predictions of the CPU must not be mistaken for those of a GPU.
    return onnxruntime.InferenceSession(model, options, providers=[provider], enable_fallback=0)


def predict_in_batches(predict: Predict, given: Feeds, size: int) -> Predicted:
    """Predict rows in batches of `size`."""
    outputs = [predict(batch) for batch in batches(given, size)]
    label, probabilities = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    return Predicted(label, probabilities)


def runner(session: onnxruntime.InferenceSession) -> Predict:
    """Return a function that predicts rows with a session."""
    return lambda given: list(session.run(OUTPUT_NAMES, given))


def batches(given: Feeds, size: int) -> Iterator[Feeds]:
    """Yield batches of `size` rows in order; the last batch may be smaller."""
    rows = len(next(iter(given.values())))
    return ({name: value[start : start + size] for name, value in given.items()} for start in range(0, rows, size))


def predict_in_every_way(
    file: str, given: Feeds, rows: NDArray[np.int64], sizes: Mapping[str, Sequence[int]]
) -> Iterator[Asked]:
    """Predict with a file in every way: runtimes, graph optimisation and batch sizes.

    Args:
        file: path of the file.
        given: all rows, by input name.
        rows: positions of the rows that are predicted in every way.
        sizes: names of ways and their batch sizes, in which all rows are predicted in turn.

    Yields:
        All rows in batches, in turn, then the ways that predict `rows`.
    """
    plain, fast = open_session(file, optimise=False), open_session(file)
    yield from _in_turn(runner(fast), given, sizes)
    some = {name: value[rows] for name, value in given.items()}
    yield _asked("onnxruntime, graph not optimised", runner(plain), some, rows, ROWS_AT_ONCE)
    yield _asked("onnxruntime, all at once", runner(fast), some, rows, len(rows))
    run = reference_evaluator(file).run
    yield _asked("onnx's reference evaluator", lambda batch: list(run(list(OUTPUT_NAMES), batch)), some, rows)


def _asked(way: str, predict: Predict, some: Feeds, rows: NDArray[np.int64], size: int = ROWS_AT_ONCE) -> Asked:
    predicted = predict_in_batches(predict, some, size)
    return Asked(way, predicted, rows, np.minimum(size, len(rows) - np.arange(len(rows)) // size * size))


def _in_turn(predict: Predict, given: Feeds, sizes: Mapping[str, Sequence[int]]) -> Iterator[Asked]:
    """Predict all rows in batches of these sizes, from the first row again after the last one, then those left over."""
    count, start = len(next(iter(given.values()))), 0
    for way, those in sizes.items():
        parts = []
        for size in those:
            rows = np.arange(start, start + size) % count
            some = {name: _cycled(value, start % count, size) for name, value in given.items()}
            predicted = predict_in_batches(predict, some, size)
            parts.append(_worst_of_repeats(Asked(way, predicted, rows, np.full(size, size)), count))
            start += size
        yield _joined(parts)
    if start < count:
        rows = np.arange(start, count)
        yield _asked("onnxruntime", predict, {name: value[start:] for name, value in given.items()}, rows)


def _cycled(value: NDArray[np.generic], start: int, size: int) -> NDArray[np.generic]:
    """Return `size` rows from `start` on, from the first row again after the last one."""
    if start + size <= len(value):
        return value[start : start + size]
    return value[np.arange(start, start + size) % len(value)]


def _worst_of_repeats(asked: Asked, count: int) -> Asked:
    """Keep one prediction for each row of a batch with repeated rows: the one that differs most from the first."""
    label, probabilities = asked.predicted.label, asked.predicted.probabilities
    size = len(asked.rows)
    if size <= count or label.shape != (size,) or probabilities.ndim != 2 or len(probabilities) != size:
        return asked
    places = np.arange(size) % count
    apart = np.abs(probabilities - probabilities[places]).max(axis=1) + (label != label[places])
    order = np.lexsort((np.where(np.isnan(apart), np.inf, apart), places))
    last = np.flatnonzero(np.diff(places[order], append=count))
    kept = order[last]
    return Asked(asked.way, asked.predicted.take(kept), asked.rows[kept], asked.sizes[kept])


def _joined(parts: list[Asked]) -> Asked:
    """Join the parts of one way; a part of another shape stands alone, since it is wrong anyway."""
    shapes = {(one.predicted.label.shape[1:], one.predicted.probabilities.shape[1:]) for one in parts}
    lengths = [len(one.rows) == len(one.predicted.label) == len(one.predicted.probabilities) for one in parts]
    if len(shapes) > 1 or not all(lengths):
        return parts[lengths.index(False) if False in lengths else -1]
    label, probabilities, rows, sizes = (
        np.concatenate(those)
        for those in zip(*((p.predicted.label, p.predicted.probabilities, p.rows, p.sizes) for p in parts), strict=True)
    )
    return Asked(parts[0].way, Predicted(label, probabilities), rows, sizes)


def predict_on_gpu(file: str, given: Feeds, rows: NDArray[np.int64]) -> Iterator[Asked]:
    """Predict `rows` on a GPU, if onnxruntime was built for CUDA."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        some = {name: value[rows] for name, value in given.items()}
        yield _asked(CUDA, runner(open_session(file, device="CUDA")), some, rows, len(rows))


def reference_evaluator(model: str | onnx.ModelProto) -> ReferenceEvaluator:
    """Open onnx's reference evaluator, which is plain NumPy and slow."""
    return ReferenceEvaluator(model, new_ops=[MaxPool])


class MaxPool(op_max_pool.MaxPool):
    """onnx's MaxPool, but much faster for windows that do not overlap. onnx's own loops over windows in Python.

    The evaluator finds it by its class name, which is that of the operator.
    """

    op_domain = ""

    def _run(self, x: NDArray[Any], **how: Any) -> tuple[NDArray[Any], ...]:  # type: ignore[override] # noqa: ANN401 - attributes
        sides = how["kernel_shape"] or []
        plain = {"auto_pad": "NOTSET", "ceil_mode": 0, "dilations": [1] * len(sides), "pads": [0] * 2 * len(sides)}
        is_plain = all(how[name] in (None, value) for name, value in plain.items()) and how["strides"] == sides
        if not is_plain or len(self.output) > 1:
            pooled: tuple[NDArray[Any], ...] = super()._run(x, **how)  # type: ignore[no-untyped-call]
            return pooled
        pairs = [(size // side, side) for size, side in zip(x.shape[2:], sides, strict=True)]
        whole = x[:, :, *(slice(count * side) for count, side in pairs)]
        windows = whole.reshape(*x.shape[:2], *itertools.chain(*pairs))
        return (windows.max(axis=tuple(range(3, windows.ndim, 2))),)


def main() -> None:
    """Predict the rows of a proof and write the predictions.

    The folder holds `x.npy` (raw rows), `rows.npy` (positions of the rows to predict in every way) and `asked.json`
    (names of the columns, the values of text columns, the names of wide columns, and the batch sizes of each way).
    `predictions.npz` is written: `<way>/label`, `<way>/probabilities`, `<way>/rows` and `<way>/sizes`, and `error` or
    `gpu_error` if a runtime fails.
    """
    file, folder = sys.argv[1], Path(sys.argv[2])
    x, rows = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in ("x.npy", "rows.npy"))
    columns, values, wide, sizes = json.loads((folder / "asked.json").read_text())
    given = feeds(tuple(columns), x, values, wide)
    predictions: dict[str, NDArray[np.generic]] = {}
    on_cpu = partial(predict_in_every_way, sizes=sizes)
    for kind, predict in (("error", on_cpu), ("gpu_error", predict_on_gpu)):
        way = "opening"
        try:
            for asked in predict(file, given, rows):
                way, predicted = asked.way, asked.predicted
                predictions |= {f"{way}/label": predicted.label, f"{way}/probabilities": predicted.probabilities}
                predictions |= {f"{way}/rows": asked.rows, f"{way}/sizes": asked.sizes}
        except Exception as error:  # noqa: BLE001 - any error of a runtime is a result
            predictions[kind] = np.array(f"after '{way}': {' '.join(str(error).split())}")
    np.savez(folder / "predictions.npz", allow_pickle=False, **predictions)


if __name__ == "__main__":
    main()
