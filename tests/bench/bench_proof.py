"""What the proof catches: mutants and honest files of every preset before it and before the rules of three others.

The proof is `parity.compare` alone: no digest is looked at. A mutant is harmful if it cannot be run as the contract
says, or if on a test row the label flips or a probability moves by more than 1e-4 against the honest file. A second
table shows what `hallmark verify` makes of the same defects, without torch, in files that have a certificate. It needs
MNIST, from the home or the mirror that the environment names, and ends in one JSON line.
`python -m tests.bench.bench_proof`.
"""

import json
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from hallmark.flows.experiments import presets
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.errors import InputError, ParityError
from hallmark.tasks.common.records import Dataset, Evaluation
from hallmark.tasks.ml.artifact import certificate, exporter, runtimes, stamping
from hallmark.tasks.ml.artifact.exporter import EXAMPLE_ROWS, Served
from hallmark.tasks.ml.artifact.proof import float64_reference, verifier
from hallmark.tasks.ml.artifact.runtimes import Answer
from hallmark.tasks.ml.config.experiment import Experiment, Export
from hallmark.tasks.ml.data import dataset_store, sources
from hallmark.tasks.ml.data.source_rows import RawRows
from hallmark.tasks.ml.models.networks import Classifier
from hallmark.tasks.runtime import settings
from tests.bench import mutants, rows
from tests.conftest import fit, load

SEEDS = 5
SEEDS_OF_MNIST = 2
OPSETS = (18, 19, 20, 21, 22, 23)
"""All that an experiment may ask for; the first, the default, for every seed, the others for one."""
MOVED = 1e-4
"""What a probability of a test row may move by before a mutant is harmful."""
SIZES = {1: 64, 7: 64, runtimes.ROWS_AT_ONCE: None}
"""Rows at a time, and of how many rows, that tell whether a mutant is harmful."""
ENOUGH = 200
"""Mutants, and honest files, at least."""
OURS = "hallmark"

Values = NDArray[np.generic]
Rule = Callable[[Values, Values], bool]
Draw = Callable[[Dataset, int], RawRows]


@dataclass(frozen=True)
class Subject:
    """A trained preset."""

    name: str
    experiment: Experiment
    dataset: Dataset
    classifier: Classifier
    accuracy: float


@dataclass(frozen=True)
class Faced:
    """What became of one file."""

    kind: str
    name: str
    moved: float
    """Largest difference of a test row's probability to the honest file; infinite if it cannot be run, or a NaN."""
    flipped: int
    """Test rows of another label."""
    error: float
    """Largest error that the proof found, in units of the tolerance."""
    caught: dict[str, bool]
    """By whom."""

    @property
    def is_harmful(self) -> bool:
        return self.flipped > 0 or not self.moved <= MOVED


def torch_flags(expected: Values, found: Values) -> bool:
    """torch/onnx/_internal/exporter/_core.py, `export(verify=True)`, torch 2.15, where it only warns.

    A NaN is not larger than anything, and passes.
    """
    apart = np.abs(expected.astype(np.float64) - found)
    return bool(apart.max() >= 5e-3 or (apart / (np.abs(expected) + 1e-7)).max() >= 1e-1)


def optimum_flags(expected: Values, found: Values) -> bool:
    """optimum/exporters/onnx/convert.py, `_run_validation`, with the default `ATOL_FOR_VALIDATION` 1e-5."""
    return not np.allclose(expected, found, atol=1e-5)


def polygraphy_flags(expected: Values, found: Values) -> bool:
    """polygraphy/comparator/compare.py, `CompareFunc.simple`, with the default `check_error_stat` "elemwise"."""
    apart = np.abs(found - expected.astype(np.float64))
    share = apart / np.where(expected == 0, 2.220446049250313e-16, np.abs(expected))
    return bool((~(apart <= 1e-5) & ~(share <= 1e-5)).any())


def example(dataset: Dataset, count: int) -> RawRows:
    """A batch as users give one to an exporter: standard normal columns, or any pixels."""
    random = np.random.default_rng(0)
    if dataset.largest is None:
        return random.standard_normal((count, *dataset.shape), dtype=np.float32)
    return random.integers(0, int(dataset.largest) + 1, (count, *dataset.shape), dtype=np.uint8)


def polygraphy_data(dataset: Dataset, count: int) -> RawRows:
    """polygraphy/comparator/data_loader.py, `DataLoader` by default: 0 to 1, seed 1."""
    random = np.random.RandomState(1)
    if dataset.largest is None:
        return np.stack([random.random_sample(count) for _ in dataset.columns], axis=1).astype(np.float32)
    return random.randint(0, 2, (count, *dataset.shape), dtype=np.uint8)


RULES: dict[str, tuple[Rule, Draw, int]] = {
    "torch": (torch_flags, example, EXAMPLE_ROWS),
    "optimum": (optimum_flags, example, EXAMPLE_ROWS),
    # polygraphy/constants.py, `DEFAULT_SHAPE_VALUE`: what takes any number of rows is given one.
    "polygraphy": (polygraphy_flags, polygraphy_data, 1),
}
"""By name: the rule, the batch that is drawn, and its rows where the graph does not say how many."""


def flags(file: Path, subject: Subject) -> dict[str, bool]:
    """Which of the others flag a file. What cannot be run, or gives another shape, is flagged by all."""
    try:
        session = runtimes.open_session(str(file))
    except Exception:  # noqa: BLE001 - whatever onnxruntime raises
        return dict.fromkeys(RULES, True)
    fixed = session.get_inputs()[0].shape[0]
    return {name: is_flagged(session, subject, fixed, *given) for name, given in RULES.items()}


def is_flagged(
    session: onnxruntime.InferenceSession, subject: Subject, fixed: object, rule: Rule, draw: Draw, count: int
) -> bool:
    x = draw(subject.dataset, fixed if isinstance(fixed, int) else count)
    expected = float64_reference.ask(Served(subject.classifier).eval(), subject.dataset, x)
    try:
        found = session.run(runtimes.OUTPUTS, runtimes.feeds(subject.dataset.columns, x))
    except Exception:  # noqa: BLE001 - whatever onnxruntime raises
        return True
    pairs = list(zip((expected.label, expected.probabilities), found, strict=True))
    return any(one.shape != other.shape or rule(one, other) for one, other in pairs)


def gate(file: Path, subject: Subject) -> tuple[bool, float]:
    """Whether the proof refuses a file, and the largest error in units of the tolerance."""
    try:
        found = verifier.compare(file, subject.classifier, subject.dataset)
    except ParityError:
        return True, np.inf
    shares = [float((one.error / found.torchs.tolerance[one.rows]).max()) for one in found.judged]
    return bool(found.problem or found.refused), max(shares, default=np.inf)


def answers(file: Path, dataset: Dataset) -> list[Answer]:
    """What onnxruntime says of the test split, at several batch sizes."""
    run = runtimes.runner(runtimes.open_session(str(file)))
    x = dataset_store.open_split(dataset, "test").x
    return [runtimes.ask(run, runtimes.feeds(dataset.columns, x[:count]), size) for size, count in SIZES.items()]


def form(answer: Answer) -> list[object]:
    return [(values.shape, values.dtype) for values in (answer.label, answer.probabilities)]


def change(honest: list[Answer], file: Path, dataset: Dataset) -> tuple[float, int]:
    """By how much a file moves probabilities, and of how many rows it flips the label, whatever the proof says."""
    try:
        found = answers(file, dataset)
    except Exception:  # noqa: BLE001 - whatever onnxruntime raises
        return np.inf, 0
    moved, flipped = 0.0, 0
    for one, other in zip(honest, found, strict=True):
        if form(one) != form(other) or not np.isfinite(other.probabilities).all():
            return np.inf, 0
        moved = max(moved, float(np.abs(one.probabilities - other.probabilities).max()))
        flipped = max(flipped, int((one.label != other.label).sum()))
    return moved, flipped


def face(kind: str, name: str, file: Path, subject: Subject, honest: list[Answer]) -> Faced:
    """Put one file before all."""
    is_caught, error = gate(file, subject)
    return Faced(kind, name, *change(honest, file, subject.dataset), error, {OURS: is_caught} | flags(file, subject))


def train(name: str, seed: int, folder: Path) -> Subject:
    """A preset on the CPU from this seed, whatever it says itself, so that every run faces the same files."""
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
    """The file as onnxruntime writes it when it has optimised the graph.

    At its lowest level: what the higher ones write has operators of onnxruntime's own, and is no ONNX file.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(file.with_name("rewritten.onnx"))
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return file.with_name("rewritten.onnx")


def honest_files(subject: Subject, folder: Path, opsets: Iterable[int]) -> Iterator[tuple[str, str, Path]]:
    """Kind, name and file of what must pass."""
    for opset in opsets:
        file = export(subject, opset, folder / "honest.onnx")
        yield f"opset {opset}", f"{subject.name}, opset {opset}", file
        if opset == OPSETS[0]:
            yield "rewritten by onnxruntime", f"{subject.name}, rewritten", rewritten(file)


def ship(subject: Subject, folder: Path) -> Path:
    """The file with its certificate, as the train flow would leave it."""
    bare = exporter.export(subject.classifier, subject.dataset, subject.experiment.export, folder / "bare.onnx")
    proof = verifier.verify(bare, subject.classifier, subject.dataset, folder / "parity.json")
    evaluation, path = Evaluation({"test/accuracy": subject.accuracy}, ()), folder / "shipped.onnx"
    return stamping.stamp(bare, subject.classifier, subject.experiment, subject.dataset, evaluation, proof, path).path


def is_refused(content: bytes, file: Path) -> bool:
    """Whether `hallmark verify` finds something wrong."""
    file.write_bytes(content)
    try:
        return not certificate.check(file).holds
    except InputError:
        return True


@dataclass
class Shipped:
    """What `hallmark verify` alone makes of shipped files, by kind: how many, and how many it refuses."""

    made: Counter[str]
    caught: Counter[str]

    def face(self, kind: str, content: bytes, file: Path) -> None:
        self.made[kind] += 1
        self.caught[kind] += is_refused(content, file)


def face_honest(name: str, folder: Path) -> tuple[list[Faced], Subject]:
    """All honest files of a preset, and what it became from its first seed.

    Where weights start at given values every seed gives the same file: it faces all once.
    """
    faced, subjects, seen = [], [], set()
    for seed in range(SEEDS_OF_MNIST if name.startswith("mnist") else SEEDS):
        subjects.append(subject := train(name, seed, folder))
        first: list[Answer] = []
        for kind, title, file in honest_files(subject, folder, OPSETS if seed == 0 else OPSETS[:1]):
            first = first or answers(file, subject.dataset)
            if (digest := file_digest(file)) not in seen:
                seen.add(digest)
                faced.append(face(kind, title, file, subject, first))
    return faced, subjects[0]


def face_mutants(subject: Subject, folder: Path, shipped: Shipped) -> list[Faced]:
    """All mutants of an honest file, bare and in a shipped one."""
    bare, file = export(subject, OPSETS[0], folder / "bare.onnx"), folder / "mutant.onnx"
    honest, graph = answers(bare, subject.dataset), onnx.load(bare)
    content = ship(subject, folder).read_bytes()
    certified = onnx.load_model_from_string(content)
    faced = []
    for kind, name, mutant in mutants.mutants(graph):
        file.write_bytes(mutant.SerializeToString())
        faced.append(one := face(kind, f"{subject.name}: {kind}, {name}", file, subject, honest))
        harm = "harmful mutant" if one.is_harmful else "weaker mutant"
        shipped.face(f"{harm}, seal broken", mutants.dressed(mutant, certified, anew=False), file)
        shipped.face(f"{harm}, sealed anew", mutants.dressed(mutant, certified, anew=True), file)
    shipped.face("honest", content, file)
    for kind, _, edited in mutants.edits(content):
        shipped.face(kind, edited, file)
    return faced


def count(faced: Iterable[Faced]) -> dict[str, int]:
    """How many each has caught."""
    caught = [one.caught for one in faced]
    return {who: sum(one[who] for one in caught) for who in (OURS, *RULES)}


def line(name: str, *parts: list[Faced]) -> str:
    """A kind's line of the table: of each part how many there are, and how many each has caught."""
    cells = [f"{number:>11}" for part in parts for number in (len(part), *count(part).values())]
    return f"{name:<28}" + "".join(cells)


def show_mutants(faced: list[Faced]) -> None:
    heads = "".join(f"{name:>11}" for name in ("harmful", OURS, *RULES, "weaker", OURS, *RULES))
    print(f"\nmutants caught, by kind\n{'':<28}{heads}")
    kinds: defaultdict[str, list[Faced]] = defaultdict(list)
    for one in faced:
        kinds[one.kind].append(one)
    for kind, members in (*kinds.items(), ("all", faced)):
        print(line(kind, *([one for one in members if one.is_harmful is harmful] for harmful in (True, False))))


def show_honest(faced: list[Faced]) -> None:
    print(f"\nfalse alarms\n{'':<28}" + "".join(f"{name:>11}" for name in ("honest", OURS, *RULES)))
    kinds: defaultdict[str, list[Faced]] = defaultdict(list)
    for one in faced:
        kinds[one.kind].append(one)
    for kind, members in (*kinds.items(), ("all", faced)):
        print(line(kind, members))
    largest = max(faced, key=lambda one: one.error)
    middle = statistics.median(one.error for one in faced)
    print(f"largest error in units of the tolerance: median {middle:.2f}, most {largest.error:.2f} ({largest.name})")


def show_shipped(shipped: Shipped) -> None:
    print(f"\n`hallmark verify` alone\n{'':<28}{'made':>11}{'caught':>11}")
    for kind, made in shipped.made.items():
        print(f"{kind:<28}{made:>11}{shipped.caught[kind]:>11}")


def name_all(title: str, faced: list[Faced]) -> None:
    for one in faced:
        print(f"{title}: {one.name}; moved {one.moved:.1e}, {one.flipped} labels, {one.error:.2f} of the tolerance")


def main() -> None:
    started = time.monotonic()
    honest: list[Faced] = []
    faced: list[Faced] = []
    shipped = Shipped(Counter(), Counter())
    for name in presets.PRESETS:
        with tempfile.TemporaryDirectory() as folder:
            passed, subject = face_honest(name, Path(folder))
            honest += passed
            faced += face_mutants(subject, Path(folder), shipped)
        seconds = f"{time.monotonic() - started:5.0f} s"
        print(f"{seconds}: {name}, {len(honest)} honest files and {len(faced)} mutants so far", flush=True)
    harmful, weak = ([one for one in faced if one.is_harmful is harm] for harm in (True, False))
    show_mutants(faced)
    show_honest(honest)
    show_shipped(shipped)
    name_all("missed", [one for one in harmful if not one.caught[OURS]])
    name_all("false alarm", [one for one in honest if one.caught[OURS]])
    caught, alarms = count(harmful), count(honest)
    result = {
        "benchmark": "mutants and honest files before the proof",
        "mutants": len(faced),
        "harmful": len(harmful),
        "caught": caught,
        "weak": len(weak),
        "weak_caught": count(weak),
        "honest": len(honest),
        "false_alarms": alarms,
        "largest_honest_error": round(max(one.error for one in honest), 3),
        "verify_alone": {kind: [shipped.caught[kind], made] for kind, made in shipped.made.items()},
        "seconds": round(time.monotonic() - started, 1),
        "reached": caught[OURS] == len(harmful) and not alarms[OURS] and min(len(faced), len(honest)) >= ENOUGH,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
