"""Time an epoch of MNIST softmax regression: Hallmark, the tutorial, three libraries and the bare arithmetic.

Only the seconds of training on the same 53,000 rows count. All contestants run in every round. Afterwards, the
accuracy of Hallmark and of the tutorial is compared, after equally many epochs from the same initial weights. The last
line is JSON. `python -m tests.bench.bench_engine [ROUNDS]`. A round takes about half a minute, mostly for the
tutorial.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench import peers_mnist, rows, tutorial_mnist
from tests.conftest import fit

ROUNDS = 3
REPEATS = 3
"""Epochs of each library per round, whose median counts."""
ENGINE_EPOCHS = 5
TARGETS = {"tutorial": 40.0, "skorch": 2.3, "lightning": 6.0, "sgd": 4.0, "floor": 1 / 2.5}
"""Minimum time of each contestant, as a multiple of Hallmark's."""
POINTS = 0.3
"""Maximum difference in accuracy, in percentage points."""

Contestant = Callable[[], float]


def repeated(train: Contestant) -> Contestant:
    return lambda: statistics.median(train() for _ in range(REPEATS))


def race(contestants: dict[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Train every contestant once per round, and return the seconds per epoch of each, by round."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    print("seconds an epoch\nround" + "".join(f"{name:>11}" for name in contestants), flush=True)
    for number in range(1, rounds + 1):
        for name, train in contestants.items():
            times[name].append(train())
        print(f"{number:5}" + "".join(f"{taken[-1]:11.3f}" for taken in times.values()), flush=True)
    return times


def ratios(times: dict[str, list[float]]) -> dict[str, float]:
    """Return the time of each contestant as a multiple of Hallmark's: the median over rounds."""
    engine = times["hallmark"]
    return {
        name: statistics.median(theirs / ours for theirs, ours in zip(times[name], engine, strict=True))
        for name in TARGETS
    }


def main() -> None:
    peers_mnist.refuse_if_missing()
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    experiment = rows.preset("mnist", epochs=ENGINE_EPOCHS)
    mnist = rows.mnist(experiment)
    x, y = rows.in_memory(mnist.dataset)
    network = tutorial_mnist.model(experiment.training.seed)
    batches = tutorial_mnist.loader(mnist.downloads, mnist.train)
    peers = (peers_mnist.skorch, peers_mnist.lightning, peers_mnist.sgd, peers_mnist.floor)
    for peer in peers:
        peer(x[:1000], y[:1000])  # the first call imports the library, and does not count
    with tempfile.TemporaryDirectory() as folder:
        contestants: dict[str, Contestant] = {
            "hallmark": lambda: rows.epoch_seconds(fit(experiment, mnist.dataset, Path(folder))),
            "tutorial": lambda: tutorial_mnist.epoch(network, batches),
        } | {peer.__name__: repeated(lambda peer=peer: peer(x, y)) for peer in peers}
        times = race(contestants, rounds)
        as_long = rows.preset("mnist", epochs=rounds)
        whole = fit(as_long, mnist.dataset, Path(folder))
        ours = rows.accuracy(whole, mnist.dataset, as_long)
    theirs = tutorial_mnist.accuracy(network, mnist.downloads)
    found = ratios(times)
    print("\n              of hallmark    target")
    for name, ratio in found.items():
        print(f"{name:<14}{ratio:11.2f}{'>= ' + format(TARGETS[name], '.1f'):>10}")
    points = 100 * abs(ours - theirs)
    print(f"accuracy after {rounds} epochs: hallmark {ours:.4f}, tutorial {theirs:.4f}")
    result = {
        "benchmark": "mnist softmax regression, seconds an epoch",
        "rows": len(y),
        "rounds": rounds,
        "seconds_of_whole_fit_an_epoch": round(whole.seconds / rounds, 4),
        "seconds": {name: round(statistics.median(taken), 4) for name, taken in times.items()},
        "ratios": {name: round(ratio, 3) for name, ratio in found.items()},
        "targets": TARGETS,
        "accuracy": {"hallmark": ours, "tutorial": theirs, "points_apart": round(points, 2), "target": POINTS},
        "reached": all(found[name] >= target for name, target in TARGETS.items()) and points <= POINTS,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
