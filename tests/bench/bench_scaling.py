"""Measure how the cost of an epoch grows with rows and with features: softmax regression on generated columns.

Batches have 256 rows. Every size is trained in every round, and the median counts. Growth is linear if a straight line
through the logarithms has a slope of 0.8 to 1.2. Over features, where every step has a fixed cost, the slope is at
most 1.2. The last line is JSON. `python -m tests.bench.bench_scaling [PICTURE]`. Without a path, the picture is
written to a new temporary folder.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hallmark.tasks.ml.config.data import Blobs
from hallmark.tasks.ml.config.experiment import Experiment, Training
from hallmark.tasks.ml.config.models import Linear
from tests.bench import rows
from tests.conftest import fit

ROUNDS = 3
EPOCHS = 3
BATCH = 256
BY_ROWS = [(count, 20) for count in (10_000, 30_000, 100_000, 300_000, 1_000_000)]
BY_FEATURES = [(20_000, width) for width in (16, 32, 64, 128, 256, 512, 1024)]
TARGETS = {"rows": (0.8, 1.2), "features": (0.0, 1.2)}
"""Lower and upper bound of the slopes."""

Size = tuple[int, int]
"""Rows and features."""


def experiment() -> Experiment:
    return Experiment(
        name="scaling",
        data=Blobs(kind="blobs"),
        model=Linear(kind="linear"),
        training=Training(epochs=EPOCHS, batch_size=BATCH, optimizer="sgd", lr=0.01, device="cpu"),
    )


def measure(sizes: list[Size], folder: Path) -> dict[Size, float]:
    """Return the median seconds per epoch of each size."""
    datasets = {size: rows.generate(folder / "x".join(map(str, size)), *size) for size in sizes}
    times: dict[Size, list[float]] = {size: [] for size in sizes}
    for _ in range(ROUNDS):
        for size, dataset in datasets.items():
            times[size].append(rows.epoch_seconds(fit(experiment(), dataset, folder)))
    return {size: statistics.median(taken) for size, taken in times.items()}


def slope(x: list[int], seconds: list[float]) -> float:
    """Return the exponent of the power law through the points."""
    return float(np.polyfit(np.log(x), np.log(seconds), 1)[0])


def show(seconds: dict[Size, float]) -> None:
    print("     rows  features    seconds    ns a row   ns a row and feature")
    for (count, width), taken in seconds.items():
        each = taken / count * 1e9
        print(f"{count:9}{width:10}{taken:11.4f}{each:12.0f}{each / width:23.2f}", flush=True)


def draw(axes: Axes, of: str, x: list[int], seconds: list[float]) -> None:
    axes.loglog(x, seconds, marker="o", label=f"measured, slope {slope(x, seconds):.2f}")
    axes.loglog(x, [seconds[-1] * size / x[-1] for size in x], linestyle="--", color="grey", label="slope 1")
    axes.set(xlabel=of, ylabel="seconds an epoch")
    axes.legend()


def main() -> None:
    picture = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "scaling.png"
    figure = Figure(figsize=(10, 4), layout="constrained")
    slopes = {}
    with tempfile.TemporaryDirectory() as folder:
        for axes, part, of, sizes in zip(
            figure.subplots(1, 2), (0, 1), ("rows", "features"), (BY_ROWS, BY_FEATURES), strict=True
        ):
            seconds = measure(sizes, Path(folder))
            show(seconds)
            x, taken = [size[part] for size in sizes], list(seconds.values())
            slopes[of] = slope(x, taken)
            print(f"slope over {of}: {slopes[of]:.2f}\n", flush=True)
            draw(axes, of, x, taken)
    figure.savefig(picture, dpi=150)
    print(f"picture: {picture}")
    result = {
        "benchmark": "cost of an epoch by size",
        "slopes": {of: round(value, 3) for of, value in slopes.items()},
        "targets": TARGETS,
        "reached": all(low <= slopes[of] <= high for of, (low, high) in TARGETS.items()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
