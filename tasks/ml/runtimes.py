"""What a file says of some rows, asked of onnxruntime and of onnx's reference evaluator; imports no torch.

Run as a module (`python -m tasks.ml.runtimes FILE FOLDER`) it is the other side of the proof, in a process that has not
imported torch: see `main`.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

OUTPUTS = ("label", "probabilities")
BATCH_SIZES = (1, 2, 3, 7)
"""Rows at a time, beside all at once; three is what the exporter traces with."""
ROWS_AT_ONCE = 500
"""So many rows pass a graph together when there are many: a convolution of all would take gigabytes."""
CUDA = "onnxruntime, CUDA"

Feeds = dict[str, NDArray[np.generic]]
"""Rows by input name, each `(N, ...)`."""
Run = Callable[[Feeds], list[NDArray[np.generic]]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said of some rows."""

    label: NDArray[np.int64]
    """`(N,)`."""
    probabilities: NDArray[np.floating]
    """`(N, C)`."""

    def take(self, rows: NDArray[np.int64]) -> "Answer":
        """The answers at these positions."""
        return Answer(self.label[rows], self.probabilities[rows])


def feeds(columns: tuple[str, ...], x: NDArray[np.generic]) -> Feeds:
    """What a consumer feeds: each column as `(N, 1)` by its name, or `image`, `(N, H, W)`, where there are none."""
    if columns:
        return {name: x[:, index : index + 1] for index, name in enumerate(columns)}
    return {"image": x}


def open_session(
    model: str | bytes, *, optimise: bool = True, threads: int = 1, device: str = "CPU"
) -> onnxruntime.InferenceSession:
    """Open an ONNX file, or its bytes.

    Args:
        model: path or content.
        optimise: whether the graph is rewritten to be faster, fully or not at all.
        threads: on the CPU, and they do not spin: one is right for models this small.
        device: `CPU`, or `CUDA`, where products round as float32 does and not to TF32.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.log_severity_level = 3  # what is wrong is raised; warnings would go to the terminal
    provider = ("CUDAExecutionProvider", {"use_tf32": "0"}) if device == "CUDA" else "CPUExecutionProvider"
    return onnxruntime.InferenceSession(model, options, providers=[provider])


def ask(run: Run, given: Feeds, size: int) -> Answer:
    """Let rows pass, `size` at a time."""
    answers = [run(batch) for batch in batches(given, size)]
    label, probabilities = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    return Answer(label, probabilities)


def runner(session: onnxruntime.InferenceSession) -> Run:
    """Rows to label and probabilities, by a session."""
    return lambda given: list(session.run(OUTPUTS, given))


def batches(given: Feeds, size: int) -> Iterator[Feeds]:
    """Neighbouring rows, `size` at a time; the last are fewer where they do not divide."""
    rows = len(next(iter(given.values())))
    return ({name: value[start : start + size] for name, value in given.items()} for start in range(0, rows, size))


def answer(file: str, given: Feeds, rows: NDArray[np.int64]) -> Iterator[tuple[str, Answer]]:
    """Ask a file in every way there is.

    Args:
        file: its path.
        given: all rows.
        rows: positions of those that are also asked in the ways that take longer, all the others with them.

    Yields:
        The way's name, and what it says: the first two of all rows, all others of `rows`.
    """
    plain, fast = open_session(file, optimise=False), open_session(file)
    yield "onnxruntime", ask(runner(fast), given, ROWS_AT_ONCE)
    yield "onnxruntime, graph not optimised", ask(runner(plain), given, ROWS_AT_ONCE)
    some = {name: value[rows] for name, value in given.items()}
    for size in BATCH_SIZES:
        yield f"onnxruntime, batches of {size}", ask(runner(fast), some, size)
    yield "onnxruntime, all at once", ask(runner(fast), some, len(rows))
    yield "onnx's reference evaluator", ask(_reference(file), some, ROWS_AT_ONCE)
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        yield CUDA, ask(runner(open_session(file, device="CUDA")), some, len(rows))


def _reference(file: str) -> Run:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(file)
    return lambda given: list(evaluator.run(list(OUTPUTS), given))


def main() -> None:
    """Be the other side of the proof.

    In the folder lie `x.npy` (raw rows), `rows.npy` (those that are asked in every way) and `columns.json`. It writes
    `answers.npz`: `<way>/label` and `<way>/probabilities`, and `error` where a runtime refuses.
    """
    file, folder = sys.argv[1], Path(sys.argv[2])
    x, rows = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in ("x.npy", "rows.npy"))
    given = feeds(tuple(json.loads((folder / "columns.json").read_text())), x)
    told: dict[str, NDArray[np.generic]] = {}
    way = "opening"
    try:
        for way, said in answer(file, given, rows):
            told |= {f"{way}/label": said.label, f"{way}/probabilities": said.probabilities}
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises is what it says of the file
        told["error"] = np.array(f"after '{way}': {' '.join(str(error).split())}")
    np.savez(folder / "answers.npz", allow_pickle=False, **told)


if __name__ == "__main__":
    main()
