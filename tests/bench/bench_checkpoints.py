"""Measure the cost of checkpoints while MNIST is trained as by `hallmark train`.

The cost is the time to gather and to write the state, divided by the time of the fit. The target is under 2 %.
Checkpoints are written by the clock, so a second fit with one per second shows the cost of many, and that the pause
between them grows. The last line is JSON. `python -m tests.bench.bench_checkpoints [PRESET ...]`, by default mnist.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hallmark.tasks.common.records import Dataset
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import trainer
from hallmark.tasks.ml.training.checkpoints import Checkpoints
from hallmark.tasks.ml.training.loop import CheckpointPolicy, TrainingLoop
from hallmark.tasks.runtime.settings import Settings
from tests.bench import rows

PRESETS = ("mnist",)
TARGET = 0.02


@dataclass
class Cost:
    seconds: list[float] = field(default_factory=list)
    """Seconds of each call, either to gather or to write."""
    bytes: int = 0
    """Size of the last checkpoint."""
    fit_seconds: float = 0.0

    @property
    def share(self) -> float:
        return sum(self.seconds) / self.fit_seconds

    @property
    def written(self) -> int:
        return len(self.seconds) // 2

    def counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:  # noqa: ANN401 - arguments and result of the method
            started = time.perf_counter()
            try:
                return method(*given)
            finally:
                self.seconds.append(time.perf_counter() - started)

        return call


def measured(experiment: Experiment, dataset: Dataset, folder: Path, seconds: float) -> Cost:
    """Train with a checkpoint after every given number of seconds, and return the cost."""
    cost, kept = Cost(), folder / "kept"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingLoop, "_state", cost.counted(TrainingLoop._state))
        patch.setattr(Checkpoints, "save", cost.counted(Checkpoints.save))
        parts = dataset, experiment.data, experiment.model, experiment.training
        cost.fit_seconds = trainer.fit(*parts, folder, lambda *_: None, CheckpointPolicy(kept, seconds=seconds)).seconds
    cost.bytes = max(path.stat().st_size for path in kept.glob("*.safetensors"))
    return cost


def main() -> None:
    found = {}
    print("preset              every   fit    checkpoints  bytes     each     share", flush=True)
    for name in sys.argv[1:] or PRESETS:
        experiment = rows.preset(name)
        dataset = rows.mnist(experiment).dataset
        for seconds in (Settings.model_fields["checkpoint_seconds"].default, 1.0):
            with tempfile.TemporaryDirectory() as folder:
                cost = measured(experiment, dataset, Path(folder), seconds)
            each = sum(cost.seconds) / cost.written
            print(
                f"{name:<18}{seconds:5.0f} s{cost.fit_seconds:6.1f} s{cost.written:9}{cost.bytes:13,}"
                f"{each:8.3f} s{cost.share:8.2%}",
                flush=True,
            )
            found[f"{name} every {seconds:g} s"] = {"share": round(cost.share, 5), "written": cost.written}
    highest = max(each["share"] for each in found.values())
    result = {
        "benchmark": "checkpoints, share of a fit",
        "found": found,
        "share": highest,
        "target": TARGET,
        "reached": highest < TARGET,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
