"""Compare a whole training of the preset `mnist_cnn` with one epoch of the tutorial's softmax regression, alternately.

Only the seconds of training on the same rows count. The target is a test accuracy of 99.0 % within the time of one and
a half tutorial epochs, and a proof of the file within a fifth of the CPU seconds of the training, since the proof uses
two processes. The last line is JSON. `python -m tests.bench.bench_cnn [ROUNDS]`.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from hallmark.tasks.common.records import Dataset, Fit
from hallmark.tasks.ml.artifact import exporter
from hallmark.tasks.ml.artifact.proof import verifier
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training.history import curves
from tests.bench import rows, tutorial_mnist
from tests.bench.proof_cost import cpu_seconds
from tests.conftest import fit, load

ROUNDS = 3
ACCURACY = 0.990
TUTORIAL_EPOCHS = 1.5
PROOF = 0.2


def proof_seconds(trained: Fit, dataset: Dataset, experiment: Experiment, folder: Path) -> tuple[float, float]:
    """Return seconds and CPU seconds of a proof."""
    classifier = load(trained, dataset, experiment)
    bare = exporter.export(classifier, dataset, experiment.export, folder / "bare.onnx")
    started, used = time.perf_counter(), cpu_seconds()
    verifier.verify(bare, classifier, dataset, folder / "parity.json")
    return time.perf_counter() - started, cpu_seconds() - used


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    experiment = rows.preset("mnist_cnn")
    mnist = rows.mnist(experiment)
    network = tutorial_mnist.model(experiment.training.seed)
    batches = tutorial_mnist.loader(mnist.downloads, mnist.train)
    ours, theirs, shares = [], [], []
    print("seconds\nround  mnist_cnn  tutorial epoch   ratio   proof", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, rounds + 1):
            used = cpu_seconds()
            trained = fit(experiment, mnist.dataset, Path(folder))
            used = cpu_seconds() - used
            ours.append(sum(curves(trained.history)["time/epoch_seconds"][1]))
            theirs.append(tutorial_mnist.epoch(network, batches))
            proof, proof_used = proof_seconds(trained, mnist.dataset, experiment, Path(folder))
            shares.append(proof_used / used)
            ratio = ours[-1] / theirs[-1]
            print(f"{number:5}{ours[-1]:11.2f}{theirs[-1]:16.2f}{ratio:8.2f}{proof:8.2f}", flush=True)
        accuracy = rows.accuracy(trained, mnist.dataset, experiment)
    ratio = statistics.median(cnn / tutorial for cnn, tutorial in zip(ours, theirs, strict=True))
    share = statistics.median(shares)
    print(f"test accuracy {accuracy:.4f}, the same in every round, after {trained.epochs} epochs")
    result = {
        "benchmark": "mnist_cnn, whole training, in tutorial epochs",
        "rounds": rounds,
        "cnn_seconds": round(statistics.median(ours), 2),
        "tutorial_epoch_seconds": round(statistics.median(theirs), 2),
        "ratio": round(ratio, 3),
        "accuracy": accuracy,
        "threads": trained.threads,
        "proof_share": round(share, 3),
        "target": {"ratio": TUTORIAL_EPOCHS, "accuracy": ACCURACY, "proof_share": PROOF},
        "reached": ratio <= TUTORIAL_EPOCHS and accuracy >= ACCURACY and share < PROOF,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
