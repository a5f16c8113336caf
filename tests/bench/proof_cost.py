"""Cost of the proof of the preset `mnist_cnn` beside that of its training, in CPU seconds, in one run."""

import resource
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.errors import HallmarkError
from hallmark.tasks.ml.artifact import exporter, runtimes
from hallmark.tasks.ml.artifact.proof import verifier
from hallmark.tasks.ml.artifact.proof.batch_sizes import batch_sizes
from tests.bench import rows
from tests.conftest import fit, load

PROOFS = 5
"""Number of proofs. Their median counts."""
LIMIT = 0.2
"""Maximum cost of a proof, as a share of the training's."""


@dataclass
class Cost:
    """CPU seconds; none were measured if there is no MNIST."""

    training: float = 0.0
    proofs: list[float] = field(default_factory=list)
    ways: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Rows and seconds of each way of predicting."""
    missing: str = ""
    """Why nothing was measured."""

    @property
    def share(self) -> float | None:
        """Cost of a proof as a share of the training's."""
        return round(statistics.median(self.proofs) / self.training, 3) if self.proofs else None

    def show(self) -> None:
        """Print the costs."""
        if self.missing:
            print(f"\ncost of the proof of mnist_cnn: not measured, {self.missing}")
            return
        proof = statistics.median(self.proofs)
        print(f"\nCPU seconds of mnist_cnn: training {self.training:.2f}, proof {proof:.2f}, share {self.share:.1%}")
        for way, (count, seconds) in self.ways.items():
            print(f"{way:<52}{count:>8} rows{seconds:>8.3f} s{seconds / self.training:>8.1%} of the training")


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def of_mnist_cnn() -> Cost:
    """Train and prove `mnist_cnn`, on one thread: waiting threads would count as work."""
    cost, experiment, before = Cost(), rows.preset("mnist_cnn"), torch.get_num_threads()
    try:
        mnist = rows.mnist(experiment)
    except HallmarkError as error:
        return Cost(missing=str(error))
    dataset = mnist.dataset
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = cpu_seconds()
        trained = fit(experiment, dataset, folder)
        cost.training = cpu_seconds() - started
        classifier = load(trained, dataset, experiment)
        file = exporter.export(classifier, dataset, experiment.export, folder / "bare.onnx")
        for _ in range(PROOFS):
            started = cpu_seconds()
            verifier.verify(file, classifier, dataset, folder / "parity.json")
            cost.proofs.append(cpu_seconds() - started)
        probes = verifier.probes(dataset)
        sizes = batch_sizes(dataset, len(probes.x), file_digest(file.path))
        given = runtimes.feeds(dataset.columns, probes.x)
        torch.set_num_threads(1)
        started = time.process_time()
        for asked in runtimes.predict_in_every_way(str(file.path), given, probes.chosen, sizes):
            cost.ways[asked.way] = len(asked.rows), time.process_time() - started
            started = time.process_time()
        torch.set_num_threads(before)
    return cost
