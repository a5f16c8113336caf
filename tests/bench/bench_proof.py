"""Check mutants and honest files of every preset with the proof, and with the rules of three other libraries.

The proof is `verifier.compare` alone, without any digest. A mutant is harmful if it does not run as its interface
says, if the label of a test row flips or a probability differs by more than 1e-4 from that of the honest file, or if it
is made to be wrong for some batches or values only (`blind_sides`). A second table shows what `hallmark verify` finds
of the same defects, without torch, in files with a certificate. MNIST is needed, from the home or mirror of the
environment names. The last line is JSON. `python -m tests.bench.bench_proof [PRESET]...`.
"""

import json
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from hallmark.flows.experiments import presets
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.errors import InputError, ParityError
from hallmark.tasks.common.records import OUTPUT_NAMES, Dataset, Evaluation
from hallmark.tasks.ml.artifact import certificate, exporter, runtimes, stamping
from hallmark.tasks.ml.artifact.exporter import Served
from hallmark.tasks.ml.artifact.proof import float64_reference, verifier
from hallmark.tasks.ml.artifact.runtimes import Predicted
from hallmark.tasks.ml.config.experiment import Experiment, Export
from hallmark.tasks.ml.data import dataset_store, sources
from hallmark.tasks.ml.models.networks import Classifier
from hallmark.tasks.runtime import settings
from tests.bench import blind_sides, mutants, rows
from tests.bench.export_checks import RULES, Draw, Rule
from tests.conftest import fit, load

SEEDS = 5
SEEDS_OF_MNIST = 2
OPSETS = (18, 19, 20, 21, 22, 23)
"""All opsets that an experiment may use. The first, the default, is checked for every seed, the others for one."""
MOVED = 1e-4
"""Maximum difference of a probability of a test row. A mutant that exceeds it is harmful."""
SIZES = {1: 64, 7: 64, runtimes.ROWS_AT_ONCE: None}
"""Batch sizes with which mutants are judged, and the number of test rows for each."""
ENOUGH = 200
"""Minimum number of mutants, and of honest files."""
OURS = "hallmark"


@dataclass(frozen=True)
class Subject:
    """A trained preset."""

    name: str
    experiment: Experiment
    dataset: Dataset
    classifier: Classifier
    accuracy: float


@dataclass(frozen=True)
class Examined:
    """The results for one file."""

    kind: str
    name: str
    moved: float
    """Largest difference in probability to the honest file on the test rows. Infinite for a NaN or a failed run."""
    flipped: int
    """Number of test rows with another label."""
    error: float
    """Largest error found by the proof, in units of the tolerance."""
    caught: dict[str, bool]
    """Whether Hallmark and each of the other libraries caught it."""
    seconds: float
    """Seconds of the proof."""
    is_hidden: bool = False
    """Whether it is harmful only for other batches or values than those of the test rows; see `blind_sides`."""

    @property
    def is_harmful(self) -> bool:
        return self.is_hidden or self.flipped > 0 or not self.moved <= MOVED


def flags(file: Path, subject: Subject) -> dict[str, bool]:
    """Return which of the other libraries flag a file. All flag a failed run and another shape."""
    try:
        session = runtimes.open_session(str(file))
    except Exception:  # noqa: BLE001 - any error of onnxruntime
        return dict.fromkeys(RULES, True)
    fixed = session.get_inputs()[0].shape[0]
    return {name: is_flagged(session, subject, fixed, *given) for name, given in RULES.items()}


def is_flagged(
    session: onnxruntime.InferenceSession, subject: Subject, fixed: object, rule: Rule, draw: Draw, count: int
) -> bool:
    x = draw(subject.dataset, fixed if isinstance(fixed, int) else count)
    expected = float64_reference.predict(Served(subject.classifier).eval(), subject.dataset, x)
    try:
        found = session.run(OUTPUT_NAMES, runtimes.feeds(subject.dataset.columns, x))
    except Exception:  # noqa: BLE001 - any error of onnxruntime
        return True
    pairs = list(zip((expected.label, expected.probabilities), found, strict=True))
    return any(one.shape != other.shape or rule(one, other) for one, other in pairs)


def proof_refuses(file: Path, subject: Subject) -> tuple[bool, float]:
    """Return whether the proof refuses a file, and the largest error in units of the tolerance."""
    try:
        found = verifier.compare(file, subject.classifier, subject.dataset)
    except ParityError:
        return True, np.inf
    shares = [float((one.error / found.reference.tolerance[one.rows]).max()) for one in found.results]
    return bool(found.problem or found.refused or found.dependence), max(shares, default=np.inf)


def answers(file: Path, dataset: Dataset) -> list[Predicted]:
    """Predict the test split with onnxruntime, at several batch sizes."""
    predict = runtimes.runner(runtimes.open_session(str(file)))
    x = dataset_store.open_split(dataset, "test").x
    return [
        runtimes.predict_in_batches(predict, runtimes.feeds(dataset.columns, x[:count]), size)
        for size, count in SIZES.items()
    ]


def form(answer: Predicted) -> list[object]:
    return [(values.shape, values.dtype) for values in (answer.label, answer.probabilities)]


def change(honest: list[Predicted], file: Path, dataset: Dataset) -> tuple[float, int]:
    """Return the largest change in probability, and the number of flipped labels, independently of the proof."""
    try:
        found = answers(file, dataset)
    except Exception:  # noqa: BLE001 - any error of onnxruntime
        return np.inf, 0
    moved, flipped = 0.0, 0
    for one, other in zip(honest, found, strict=True):
        if form(one) != form(other) or not np.isfinite(other.probabilities).all():
            return np.inf, 0
        moved = max(moved, float(np.abs(one.probabilities - other.probabilities).max()))
        flipped = max(flipped, int((one.label != other.label).sum()))
    return moved, flipped


def examine(
    kind: str, name: str, file: Path, subject: Subject, honest: list[Predicted], *, is_hidden: bool = False
) -> Examined:
    """Examine one file with the proof and with the rules of the other libraries."""
    started = time.perf_counter()
    is_caught, error = proof_refuses(file, subject)
    seconds = time.perf_counter() - started
    caught = {OURS: is_caught} | flags(file, subject)
    return Examined(kind, name, *change(honest, file, subject.dataset), error, caught, seconds, is_hidden)


def hidden(graph: onnx.ModelProto, dataset: Dataset) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """Yield the mutants that are harmful for some batches or values only."""
    lowest, highest = (bound.tolist() for bound in dataset_store.training_range(dataset))
    bounds = dict(zip(dataset.columns, zip(lowest, highest, strict=True), strict=True)) if dataset.columns else {}
    for kind, name, mutant in blind_sides.blind_sides(graph, bounds):
        if dataset.is_table or "gaps" not in kind:  # values may be missing in a user's table alone
            yield kind, name, mutant
    yield from blind_sides.structural(graph)


def train(name: str, seed: int, folder: Path) -> Subject:
    """Train a preset on the CPU from this seed, so that every run of the benchmark examines the same files."""
    once = {"epochs": 1} if name.startswith("mnist") else {}
    experiment = rows.preset(name, seed=seed, initial_weights="seeded", **once)
    machine = settings.read()
    table = sources.read(experiment.data, machine.home, machine.mirror)
    dataset = dataset_store.prepare(table, experiment.data, machine.home)
    fitted = fit(experiment, dataset, folder)
    accuracy = rows.accuracy(fitted, dataset, experiment)
    return Subject(f"{name}, seed {seed}", experiment, dataset, load(fitted, dataset, experiment), accuracy)


def export(subject: Subject, opset: int, file: Path) -> Path:
    return exporter.export(subject.classifier, subject.dataset, Export(opset=opset), file).path


def rewritten(file: Path) -> Path:
    """Return the file that onnxruntime writes after optimising the graph.

    At the lowest level, because files of higher levels have operators of onnxruntime that ONNX does not define.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(file.with_name("rewritten.onnx"))
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return file.with_name("rewritten.onnx")


def honest_files(subject: Subject, folder: Path, opsets: Iterable[int]) -> Iterator[tuple[str, str, Path]]:
    """Yield kind, name and file of every honest file, which must pass."""
    for opset in opsets:
        file = export(subject, opset, folder / "honest.onnx")
        yield f"opset {opset}", f"{subject.name}, opset {opset}", file
        if opset == OPSETS[0]:
            yield "rewritten by onnxruntime", f"{subject.name}, rewritten", rewritten(file)


def ship(subject: Subject, folder: Path) -> Path:
    """Return the file with its certificate, as the train flow writes it."""
    bare = exporter.export(subject.classifier, subject.dataset, subject.experiment.export, folder / "bare.onnx")
    proof = verifier.verify(bare, subject.classifier, subject.dataset, folder / "parity.json")
    evaluation, path = Evaluation({"test/accuracy": subject.accuracy}, ()), folder / "shipped.onnx"
    return stamping.stamp(bare, subject.classifier, subject.experiment, subject.dataset, evaluation, proof, path).path


def is_refused(content: bytes, file: Path) -> bool:
    """Return whether `hallmark verify` finds a fault."""
    file.write_bytes(content)
    try:
        return not certificate.check(file).holds
    except InputError:
        return True


@dataclass
class Shipped:
    """Shipped files by kind: how many there are, and how many `hallmark verify` alone refuses."""

    made: Counter[str]
    caught: Counter[str]

    def examine(self, kind: str, content: bytes, file: Path) -> None:
        self.made[kind] += 1
        self.caught[kind] += is_refused(content, file)


def examine_honest_files(name: str, folder: Path) -> tuple[list[Examined], Subject]:
    """Examine all honest files of a preset, and return the results and the preset trained from its first seed.

    If the initial weights are given, every seed gives the same file, which is examined once.
    """
    examined, subjects, seen = [], [], set()
    for seed in range(SEEDS_OF_MNIST if name.startswith("mnist") else SEEDS):
        subjects.append(subject := train(name, seed, folder))
        first: list[Predicted] = []
        for kind, title, file in honest_files(subject, folder, OPSETS if seed == 0 else OPSETS[:1]):
            first = first or answers(file, subject.dataset)
            if (digest := file_digest(file)) not in seen:
                seen.add(digest)
                examined.append(examine(kind, title, file, subject, first))
    return examined, subjects[0]


def examine_mutants(subject: Subject, folder: Path, shipped: Shipped) -> list[Examined]:
    """Examine all mutants of an honest file, bare and with its certificate."""
    bare, file = export(subject, OPSETS[0], folder / "bare.onnx"), folder / "mutant.onnx"
    honest, graph = answers(bare, subject.dataset), onnx.load(bare)
    content = ship(subject, folder).read_bytes()
    certified = onnx.load_model_from_string(content)
    examined = []
    for kind, name, mutant in mutants.mutants(graph):
        file.write_bytes(mutant.SerializeToString())
        examined.append(one := examine(kind, f"{subject.name}: {kind}, {name}", file, subject, honest))
        harm = "harmful mutant" if one.is_harmful else "weaker mutant"
        shipped.examine(f"{harm}, seal broken", mutants.with_certificate(mutant, certified, reseal=False), file)
        shipped.examine(f"{harm}, resealed", mutants.with_certificate(mutant, certified, reseal=True), file)
    for kind, name, mutant in hidden(graph, subject.dataset):
        file.write_bytes(mutant.SerializeToString())
        title = f"{subject.name}: {kind}, {name}"
        examined.append(examine(kind, title, file, subject, honest, is_hidden=True))
    shipped.examine("honest", content, file)
    for kind, _, edited in mutants.edits(content):
        shipped.examine(kind, edited, file)
    return examined


def count(examined: Iterable[Examined]) -> dict[str, int]:
    """Count how many files each has caught."""
    caught = [one.caught for one in examined]
    return {who: sum(one[who] for one in caught) for who in (OURS, *RULES)}


def line(name: str, *parts: list[Examined]) -> str:
    """Return the table row of a kind: for each part, the number of files and how many each has caught."""
    cells = [f"{number:>11}" for part in parts for number in (len(part), *count(part).values())]
    return f"{name:<28}" + "".join(cells)


def show_mutants(examined: list[Examined]) -> None:
    heads = "".join(f"{name:>11}" for name in ("harmful", OURS, *RULES, "weaker", OURS, *RULES))
    print(f"\nmutants caught, by kind\n{'':<28}{heads}")
    kinds: defaultdict[str, list[Examined]] = defaultdict(list)
    for one in examined:
        kinds[one.kind].append(one)
    for kind, members in (*kinds.items(), ("all", examined)):
        print(line(kind, *([one for one in members if one.is_harmful is harmful] for harmful in (True, False))))


def show_honest(examined: list[Examined]) -> None:
    print(f"\nfalse alarms\n{'':<28}" + "".join(f"{name:>11}" for name in ("honest", OURS, *RULES)))
    kinds: defaultdict[str, list[Examined]] = defaultdict(list)
    for one in examined:
        kinds[one.kind].append(one)
    for kind, members in (*kinds.items(), ("all", examined)):
        print(line(kind, members))
    largest = max(examined, key=lambda one: one.error)
    middle = statistics.median(one.error for one in examined)
    seconds = statistics.median(one.seconds for one in examined)
    print(f"seconds of a proof: median {seconds:.2f}, most {max(one.seconds for one in examined):.2f}")
    print(f"largest error in units of the tolerance: median {middle:.2f}, most {largest.error:.2f} ({largest.name})")


def show_shipped(shipped: Shipped) -> None:
    print(f"\n`hallmark verify` alone\n{'':<28}{'made':>11}{'caught':>11}")
    for kind, made in shipped.made.items():
        print(f"{kind:<28}{made:>11}{shipped.caught[kind]:>11}")


def name_all(title: str, examined: list[Examined]) -> None:
    for one in examined:
        print(f"{title}: {one.name}; moved {one.moved:.1e}, {one.flipped} labels, {one.error:.2f} of the tolerance")


def main() -> None:
    started = time.monotonic()
    honest: list[Examined] = []
    examined: list[Examined] = []
    shipped = Shipped(Counter(), Counter())
    for name in sys.argv[1:] or presets.PRESETS:
        with tempfile.TemporaryDirectory() as folder:
            passed, subject = examine_honest_files(name, Path(folder))
            honest += passed
            examined += examine_mutants(subject, Path(folder), shipped)
        seconds = f"{time.monotonic() - started:5.0f} s"
        print(f"{seconds}: {name}, {len(honest)} honest files and {len(examined)} mutants so far", flush=True)
    harmful, weak = ([one for one in examined if one.is_harmful is harm] for harm in (True, False))
    show_mutants(examined)
    show_honest(honest)
    show_shipped(shipped)
    name_all("missed", [one for one in harmful if not one.caught[OURS]])
    name_all("false alarm", [one for one in honest if one.caught[OURS]])
    caught, alarms = count(harmful), count(honest)
    result = {
        "benchmark": "mutants and honest files before the proof",
        "mutants": len(examined),
        "harmful": len(harmful),
        "caught": caught,
        "weak": len(weak),
        "weak_caught": count(weak),
        "honest": len(honest),
        "false_alarms": alarms,
        "proof_seconds": round(statistics.median(one.seconds for one in honest), 2),
        "largest_honest_error": round(max(one.error for one in honest), 3),
        "verify_alone": {kind: [shipped.caught[kind], made] for kind, made in shipped.made.items()},
        "seconds": round(time.monotonic() - started, 1),
        "reached": caught[OURS] == len(harmful) and not alarms[OURS] and min(len(examined), len(honest)) >= ENOUGH,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
