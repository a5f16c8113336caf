"""Check mutants and honest files of five kinds of data with the proof, and with the rules of three other libraries.

A mutant is harmful if it does not run as its interface says, if the label of a row flips or a probability differs by
more than 1e-4 from that of the honest file, for any of the rows and batch sizes of `proof_oracle`. The proof judges
mutants in this process, with torch's predictions computed once, and stops at the first wrong way. Honest files are
proven as a flow does it. Further tables show what asking does not find, what `hallmark verify` finds of the same
defects in files with a certificate, and, if MNIST is at the home or mirror of the environment, what the proof of the
preset `mnist_cnn` costs. The last line is JSON. `python -m tests.bench.bench_proof [KIND]...`.
"""

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported: other processes need the cores

import numpy as np
import onnx
import torch

from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.records import Dataset, Evaluation
from hallmark.tasks.ml.artifact import certificate, exporter, graph_form, runtimes, stamping
from hallmark.tasks.ml.artifact.proof import row_verdicts, verifier
from hallmark.tasks.ml.artifact.proof.batch_sizes import batch_sizes
from hallmark.tasks.ml.artifact.proof.float64_reference import TorchReference
from hallmark.tasks.ml.data import dataset_store
from tests.bench import blind_sides, image_mutants, mutants, proof_cost, proof_subjects, random_mutants, rows
from tests.bench.export_checks import RULES, flags
from tests.bench.proof_oracle import RARE, Harm, Oracle
from tests.bench.proof_subjects import KINDS, Subject

HONEST = 40
"""Number of trained experiments of each kind."""
REWRITTEN = 6
"""One in so many honest files is also examined as onnxruntime writes it."""
CHUNK = 10
"""Number of experiments that a process trains at a time."""
MUTATED = (0, 4)
"""Numbers of the experiments of each kind whose files are changed."""
RANDOM = 60
"""Number of random mutants of each of them."""
ENOUGH = 200
"""Minimum number of mutants, and of honest files."""
OF_BATCHES = ("batch", "rows", "random operator", "control flow")
"""Words in the kinds of mutants that may depend on the size of a batch."""
WORKERS = 2
OURS = "hallmark"


@dataclass(frozen=True)
class Examined:
    """The results for one file."""

    kind: str
    name: str
    harm: Harm
    by_form: str
    """What the form of the graph shows."""
    by_asking: str
    """The way of predicting that shows the defect, or the error of a runtime."""
    error: float
    """Largest error found by the proof, in units of the tolerance."""
    caught: dict[str, bool]
    """Whether Hallmark and each of the other libraries caught it."""
    seconds: float = 0.0
    """CPU seconds of the proof."""

    @property
    def is_harmful(self) -> bool:
        return self.harm.is_harmful

    @property
    def is_rare(self) -> bool:
        """Return whether so few rows are wrong that the proof may miss them all."""
        is_random = self.kind.startswith("random nodes")
        return self.is_harmful and (self.kind in blind_sides.UNSEEN or (is_random and self.harm.share < RARE))


@dataclass
class Found:
    """The results of one process."""

    honest: list[Examined] = field(default_factory=list)
    mutants: list[Examined] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)
    """Shipped files by kind."""
    refused: Counter[str] = field(default_factory=Counter)
    """Those that `hallmark verify` alone refuses."""

    def examine_shipped(self, kind: str, content: bytes, file: Path) -> None:
        self.made[kind] += 1
        file.write_bytes(content)
        try:
            self.refused[kind] += not certificate.check(file).holds
        except InputError:
            self.refused[kind] += 1

    def add(self, other: "Found") -> None:
        self.honest += other.honest
        self.mutants += other.mutants
        self.made += other.made
        self.refused += other.refused


class Prover:
    """The proof of many files of one model: torch's predictions are computed once."""

    def __init__(self, subject: Subject) -> None:
        """Predict the rows of the proof with torch."""
        self._dataset = subject.dataset
        self._rows = verifier.probes(subject.dataset)
        self._reference = TorchReference(subject.classifier, subject.dataset, self._rows)
        self._given = rows.feeds(subject.dataset, self._rows.x, verifier.texts(subject.dataset))

    def refuse(self, file: Path) -> tuple[str, str]:
        """Return what form and asking show of a file, empty if nothing; the first wrong way is the last one."""
        model = onnx.load(file)
        form = verifier.contract_violation(model, self._dataset) or graph_form.form_violation(model)
        sizes = batch_sizes(self._dataset, len(self._rows.x), file_digest(file))
        try:
            for asked in runtimes.predict_in_every_way(str(file), self._given, self._rows.chosen, sizes):
                if row_verdicts.judge(asked, self._reference).is_wrong.any():
                    return form, asked.way
        except Exception as error:  # noqa: BLE001 - any error of a runtime
            return form, f"error: {error}"
        return form, ""


def prepare_process() -> None:
    """Use one thread, and let overflows of mutants pass without a warning of NumPy."""
    torch.set_num_threads(1)
    np.seterr(all="ignore")


def hidden(graph: onnx.ModelProto, dataset: Dataset) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """Yield the mutants that are harmful for some batches or values only."""
    bounds = _bounds(dataset)
    for kind, name, mutant in blind_sides.blind_sides(graph, bounds):
        if dataset.is_table or "gaps" not in kind:  # values may be missing in a user's table alone
            yield kind, name, mutant
    yield from blind_sides.large_batches(graph)
    yield from blind_sides.structural(graph)
    if not dataset.columns:
        yield from image_mutants.drawings(graph, int(dataset.largest or 0))
    values = dataset_store.category_values(dataset) if dataset.is_table else {}
    if dataset.is_table:
        yield from blind_sides.gaps(graph, list(bounds))
    for column, known in values.items():
        yield from blind_sides.texts(graph, column, known)
    yield from blind_sides.unseen(graph, bounds, values)


def _bounds(dataset: Dataset) -> dict[str, tuple[float, float]]:
    """Return the training range of the numeric columns."""
    lowest, highest = (bound.tolist() for bound in dataset_store.training_range(dataset))
    kinds = dataset.kinds or ("numeric",) * len(dataset.columns)
    of_columns = zip(dataset.columns, kinds, lowest, highest, strict=True) if dataset.columns else ()
    return {name: (low, high) for name, kind, low, high in of_columns if kind == "numeric"}


def ship(subject: Subject, folder: Path) -> Path:
    """Return the file with its certificate, as the train flow writes it."""
    bare = exporter.export(subject.classifier, subject.dataset, subject.experiment.export, folder / "bare.onnx")
    proof = verifier.verify(bare, subject.classifier, subject.dataset, folder / "parity.json")
    evaluation, path = Evaluation({"test/accuracy": subject.accuracy}, ()), folder / "shipped.onnx"
    return stamping.stamp(bare, subject.classifier, subject.experiment, subject.dataset, evaluation, proof, path).path


def examine_mutants(kind: str, number: int) -> Found:
    """Examine the mutants of an honest file of a kind, bare and with its certificate."""
    found = Found()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subject, file = proof_subjects.train(kind, number, folder), folder / "mutant.onnx"
        bare = proof_subjects.export(subject, folder / "honest.onnx")
        prover, oracle, graph = Prover(subject), Oracle(bare, subject.dataset), onnx.load(bare)
        assert prover.refuse(bare) == ("", "")
        content = ship(subject, folder).read_bytes()
        certified = onnx.load_model_from_string(content)

        def examine(kind: str, title: str, mutant: onnx.ModelProto, *, searched: bool) -> Examined:
            file.write_bytes(mutant.SerializeToString())
            form, asking = prover.refuse(file)
            caught = {OURS: bool(form or asking)} | flags(file, subject.classifier, subject.dataset)
            harm = oracle.harm(file, searched=searched, batched=any(word in kind for word in OF_BATCHES))
            found.mutants.append(one := Examined(kind, f"{subject.name}: {title}", harm, form, asking, 0, caught))
            return one

        for kind_of_mutant, title, mutant in mutants.mutants(graph):
            one = examine(kind_of_mutant, title, mutant, searched=False)
            harm = "harmful mutant" if one.is_harmful else "weaker mutant"
            for seal, reseal in (("seal broken", False), ("resealed", True)):
                found.examine_shipped(
                    f"{harm}, {seal}", mutants.with_certificate(mutant, certified, reseal=reseal), file
                )
        given = {name: value[:100] for name, value in oracle.usual.items()}
        for kind_of_mutant, title, mutant in (
            *hidden(graph, subject.dataset), *random_mutants.random_mutants(graph, given, RANDOM, number)
        ):  # fmt: skip
            examine(kind_of_mutant, title, mutant, searched=True)
        found.examine_shipped("honest", content, file)
        for what, _, edited in mutants.edits(content):
            found.examine_shipped(what, edited, file)
    return found


def examine_honest_files(kind: str, numbers: Iterable[int]) -> Found:
    """Train, export and prove experiments of a kind, as a flow does."""
    found = Found()
    with tempfile.TemporaryDirectory() as name:
        for number in numbers:
            subject = proof_subjects.train(kind, number, Path(name))
            file = proof_subjects.export(subject, Path(name) / "honest.onnx")
            title = f"{subject.name}, opset {subject.experiment.export.opset}"
            found.honest.append(examine_honest(f"{kind}, exported", title, file, subject))
            if number % REWRITTEN == 0:
                other = proof_subjects.rewritten(file)
                found.honest.append(examine_honest("rewritten by onnxruntime", title, other, subject))
    return found


def examine_honest(kind: str, title: str, file: Path, subject: Subject) -> Examined:
    started = proof_cost.cpu_seconds()
    proven = verifier.compare(file, subject.classifier, subject.dataset)
    seconds = proof_cost.cpu_seconds() - started
    error = max(float((one.error / proven.reference.tolerance[one.rows]).max()) for one in proven.results)
    asking = proven.problem or (proven.refused.way if proven.refused else "")
    caught = {OURS: bool(asking or proven.dependence)} | flags(file, subject.classifier, subject.dataset)
    return Examined(kind, title, Harm(0, 0, 0), proven.dependence, asking, error, caught, seconds)


def line(name: str, *parts: list[Examined]) -> str:
    """Return the table row of a kind: for each part, the number of files and how many each has caught."""
    cells = [f"{number:>11}" for part in parts for number in (len(part), *count(part).values())]
    return f"{name:<36}" + "".join(cells)


def count(examined: Iterable[Examined]) -> dict[str, int]:
    """Count how many files each has caught."""
    caught = [one.caught for one in examined]
    return {who: sum(one[who] for one in caught) for who in (OURS, *RULES)}


def by_kind(examined: list[Examined]) -> Iterator[tuple[str, list[Examined]]]:
    kinds: defaultdict[str, list[Examined]] = defaultdict(list)
    for one in examined:
        kinds[one.kind].append(one)
    yield from kinds.items()
    yield "all", examined


def show_mutants(examined: list[Examined]) -> None:
    heads = "".join(f"{name:>11}" for name in ("harmful", OURS, "by asking", "by form", *RULES, "weaker", OURS))
    print(f"\nmutants caught, by kind\n{'':<36}{heads}")
    for kind, members in by_kind(examined):
        harmful, weaker = ([one for one in members if one.is_harmful is harm] for harm in (True, False))
        ours = count(harmful)
        ways = [sum(bool(one.by_asking) for one in harmful), sum(bool(one.by_form) for one in harmful)]
        numbers = [len(harmful), ours[OURS], *ways, *(ours[who] for who in RULES), len(weaker), count(weaker)[OURS]]
        print(f"{kind:<36}" + "".join(f"{number:>11}" for number in numbers))


def show_unseen(examined: list[Examined]) -> None:
    """Name the harmful mutants that asking does not find."""
    unseen = [one for one in examined if one.is_harmful and not one.by_asking]
    print(f"\nwhat cannot be caught by asking: {len(unseen)} harmful mutants")
    for kind, members in list(by_kind(unseen))[:-1]:
        shown = "by its form" if all(one.by_form for one in members) else "NOT CAUGHT"
        print(f"{len(members):>5} {kind}: {shown}; {', '.join(sorted({one.name for one in members})[:4])}")


def show_honest(examined: list[Examined]) -> None:
    print(f"\nfalse alarms\n{'':<36}" + "".join(f"{name:>11}" for name in ("honest", OURS, *RULES)))
    for kind, members in by_kind(examined):
        print(line(kind, members))
    largest = max(examined, key=lambda one: one.error)
    middle = statistics.median(one.error for one in examined)
    print(f"CPU seconds of a proof: median {statistics.median(one.seconds for one in examined):.2f}")
    print(f"largest error in units of the tolerance: median {middle:.2f}, most {largest.error:.2f} ({largest.name})")


def name_all(title: str, examined: list[Examined]) -> None:
    for one in examined:
        harm = f"moved {one.harm.moved:.1e}, {one.harm.flipped} labels, {one.harm.share:.1%} of the rows"
        print(f"{title}: {one.kind}, {one.name}; {harm}; {one.by_asking or one.by_form or 'not found'}")


def main() -> None:
    started, found = time.monotonic(), Found()
    kinds = sys.argv[1:] or KINDS
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn"), prepare_process) as pool:
        jobs = [pool.submit(examine_mutants, kind, number) for kind in reversed(kinds) for number in MUTATED]
        for first in range(0, HONEST, CHUNK):
            numbers = range(first, min(first + CHUNK, HONEST))
            jobs += [pool.submit(examine_honest_files, kind, numbers) for kind in kinds]
        try:
            for job in as_completed(jobs):
                found.add(done := job.result())
                name_all("missed", [one for one in done.mutants if one.is_harmful and not one.caught[OURS]])
                name_all("false alarm", [one for one in done.honest if one.caught[OURS]])
                seconds = f"{time.monotonic() - started:5.0f} s"
                print(f"{seconds}: {len(found.honest)} honest files, {len(found.mutants)} mutants so far", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    cost = proof_cost.of_mnist_cnn()
    harmful = [one for one in found.mutants if one.is_harmful]
    askable, weak = [one for one in harmful if not one.is_rare], [one for one in found.mutants if not one.is_harmful]
    show_mutants(found.mutants)
    show_unseen(found.mutants)
    show_honest(found.honest)
    print(f"\n`hallmark verify` alone\n{'':<36}{'made':>11}{'caught':>11}")
    for kind, made in found.made.items():
        print(f"{kind:<36}{made:>11}{found.refused[kind]:>11}")
    cost.show()
    alarms = count(found.honest)
    result = {
        "benchmark": "mutants and honest files before the proof",
        "mutants": len(found.mutants),
        "harmful": len(harmful),
        "caught": count(harmful),
        "findable": len(askable),
        "findable_caught": count(askable)[OURS],
        "by_asking": sum(bool(one.by_asking) for one in harmful),
        "weak": len(weak),
        "weak_caught": count(weak),
        "honest": len(found.honest),
        "false_alarms": alarms,
        "largest_honest_error": round(max(one.error for one in found.honest), 3),
        "verify_alone": {kind: [found.refused[kind], made] for kind, made in found.made.items()},
        "cnn_proof_share": cost.share,
        "seconds": round(time.monotonic() - started, 1),
        "reached": count(askable)[OURS] == len(askable)
        and not alarms[OURS]
        and min(len(found.mutants), len(found.honest)) >= ENOUGH
        and (cost.share is None or cost.share <= proof_cost.LIMIT),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
