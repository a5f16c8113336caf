"""The certificate that a shipped file carries: what it takes and gives, where it comes from, and the evidence.

It lies in the file's metadata, a JSON value under `hallmark.<field>` for each field of `Certificate`. The last entry,
`hallmark.digest`, is the SHA-256 of every byte before it: the seal. It detects damage and careless edits; whoever
changes a file on purpose can seal it anew, and is found by comparing the file's own SHA-256 with the registry.

This module imports onnx, onnxruntime and numpy alone: whoever checks a file needs no torch.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.common.files import whole_file
from hallmark.tasks.ml.artifact import runtimes
from hallmark.tasks.ml.artifact.runtimes import Answer, Feeds

LIMIT = 512 * 2**20
"""Bytes that a file may have: more is not even read."""
BATCH_SIZES = (1, 2, 7)
"""Rows at a time when golden vectors are run, beside all at once."""
ENOUGH = 14
"""Golden vectors are repeated to so many rows: two batches of seven."""

_PREFIX = "hallmark."
_SEAL = "hallmark.digest"


@dataclass(frozen=True, slots=True)
class Input:
    """One input of the graph."""

    name: str
    dtype: str
    """`float32`, `uint8` or `string`."""
    shape: tuple[int, ...]
    """Of one row: `(1,)` for a column, `(H, W)` for a grey image, `(H, W, 3)` for one in colour."""
    lowest: float | None
    highest: float | None
    """The range that the training rows had; None of text."""
    description: str
    kind: str | None = None
    """Of a table of one's own `numeric`, `boolean` or `categorical`: a value may be missing. None: it may not."""
    values: tuple[str, ...] = ()
    """What the network knows of a categorical column."""
    mixed: bool = False
    """Whether text counts as missing where a number belongs, as it did in training."""
    resized: bool = False
    """Whether image files are made upright and of this size when they are decoded, as `pictures.decode` does."""


@dataclass(frozen=True, slots=True)
class Golden:
    """A few real rows with the answers that are expected of any runtime."""

    inputs: dict[str, list[Any]]
    """Rows by input name, each nested as its shape is."""
    label: list[int]
    probabilities: list[list[float]]
    tolerance: float
    """Largest absolute difference of a probability that is mere rounding."""

    def feeds(self, inputs: tuple[Input, ...]) -> Feeds:
        """The rows as a runtime takes them."""
        types = {"string": object}
        return {one.name: np.array(self.inputs[one.name], dtype=types.get(one.dtype, one.dtype)) for one in inputs}


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a shipped file says of itself. No run and no clock: the same experiment gives the same bytes."""

    inputs: tuple[Input, ...]
    classes: tuple[str, ...]
    """Names; `label` is an index into them."""
    class_shares: tuple[float, ...]
    """Of the training rows."""
    experiment: str
    """Digest of the experiment, 64 hex digits."""
    dataset: str
    """Digest of the dataset, 64 hex digits."""
    metrics: dict[str, float]
    """On the test split."""
    proof: dict[str, Any]
    """The verdict of `hallmark.tasks.ml.artifact.proof.verifier`, with its numbers on a CPU."""
    golden: Golden


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look at a file found."""

    sha256: str
    """Of the whole file: what the registry knows it by."""
    certificate: Certificate | None
    """None if it cannot be read."""
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return all(check.passed for check in self.checks)


def stamp(bare: Path, certificate: Certificate, path: Path) -> str:
    """Write a proven graph with its certificate, read the file back and check it, and return its SHA-256.

    Args:
        bare: the graph as it was proven.
        certificate: what is said of it.
        path: where the file appears, whole or not at all.

    Raises:
        DamagedError: what was written does not hold.
    """
    model = _parse(load(bare), bare)
    del model.metadata_props[:]
    values = asdict(certificate) | {"inputs": [_said(one) for one in certificate.inputs]}
    onnx.helper.set_model_props(model, {_PREFIX + name: json.dumps(value) for name, value in values.items()})
    body = model.SerializeToString(deterministic=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(body + _seal(body))
        verdict = check(temporary)
        if not verdict.holds:
            raise DamagedError(f"{path}: the stamped file does not hold: {failures(verdict)}")
    return verdict.sha256


def check(path: Path) -> Verdict:
    """Look at everything that a file says of itself: form, seal, and the golden vectors at several batch sizes.

    Args:
        path: of the file.

    Raises:
        InputError: it cannot be read, is too large, is no ONNX file, keeps weights outside itself, or is not sealed
            by Hallmark.
    """
    content = load(path)
    model = _parse(content, path)
    properties = _properties(model, path)
    checks = [_check_form(model), _check_seal(content)]
    certificate = None
    try:
        certificate = _certificate(properties)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        checks.append(Check("certificate", passed=False, found=f"cannot be read: {type(error).__name__}: {error}"))
    else:
        checks.append(_check_golden(content, certificate))
    return Verdict(hashlib.sha256(content).hexdigest(), certificate, tuple(checks))


def read(path: Path) -> tuple[Certificate, bytes]:
    """Certificate and content of a sealed file, before it is used.

    Raises:
        InputError: as `check`.
        DamagedError: the seal is broken, or the certificate cannot be read.
    """
    content = load(path)
    properties = _properties(_parse(content, path), path)
    if not (sealed := _check_seal(content)).passed:
        raise DamagedError(f"{path}: {sealed.found}: fetch the file again, `hallmark verify` says more")
    try:
        return _certificate(properties), content
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path}: its certificate cannot be read: {type(error).__name__}: {error}") from error


def load(path: Path) -> bytes:
    """Read a file that is not too large.

    Raises:
        InputError: it is too large, or cannot be read.
    """
    try:
        if (size := path.stat().st_size) > LIMIT:
            raise InputError(f"{path}: has {size:,} bytes: expected at most {LIMIT:,}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def failures(verdict: Verdict) -> str:
    """What is wrong, in one line."""
    return "; ".join(f"{check.name}: {check.found}" for check in verdict.checks if not check.passed)


def _said(one: Input) -> dict[str, Any]:
    """Of an input what there is to say."""
    return {
        key: value for key, value in asdict(one).items() if value or key not in ("kind", "values", "mixed", "resized")
    }


def _parse(content: bytes, path: Path) -> onnx.ModelProto:
    """Parse what keeps its weights inside itself. No other file is opened."""
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        raise InputError(f"{path}: is no ONNX file: it cannot be parsed") from error
    if not model.HasField("graph"):
        raise InputError(f"{path}: is no ONNX file: it has no graph")
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            places = [entry.value for entry in tensor.external_data if entry.key == "location"]
            raise InputError(
                f"{path}: keeps weights outside itself, '{tensor.name}' in '{' '.join(places)}': "
                "expected one file that holds them all"
            )
    return model


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor, those in functions, attributes and inner graphs among them."""
    nodes = [node for function in model.functions for node in function.node]
    graphs = [model.graph, *(graph for info in model.training_info for graph in (info.initialization, info.algorithm))]
    while nodes or graphs:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes += graph.node
        for node in nodes:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)
                graphs += [attribute.g, *attribute.graphs] if attribute.HasField("g") else [*attribute.graphs]
        nodes = []


def _properties(model: onnx.ModelProto, path: Path) -> dict[str, str]:
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if _SEAL not in properties:
        raise InputError(f"{path}: is an ONNX file without Hallmark's seal: only files that Hallmark shipped have one")
    return properties


def _check_form(model: onnx.ModelProto) -> Check:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # noqa: BLE001 - the checker and shape inference have errors of several kinds
        return Check("ONNX checker", passed=False, found=" ".join(str(error).split())[:300])
    opset = next((entry.version for entry in model.opset_import if not entry.domain), 0)
    return Check("ONNX checker", passed=True, found=f"well-formed, opset {opset}")


def _seal(body: bytes) -> bytes:
    """The last entry of the metadata, as it lies in the file."""
    entry = onnx.ModelProto()
    onnx.helper.set_model_props(entry, {_SEAL: hashlib.sha256(body).hexdigest()})
    return bytes(entry.SerializeToString())


def _check_seal(content: bytes) -> Check:
    body = content[: -len(_seal(b""))]
    if content == body + _seal(body):
        return Check("seal", passed=True, found="every byte is as it was sealed")
    return Check("seal", passed=False, found="the content is not what was sealed: damaged or edited")


def _certificate(properties: dict[str, str]) -> Certificate:
    said = {field.name: json.loads(properties[_PREFIX + field.name]) for field in fields(Certificate)}
    inputs = tuple(
        Input(**one | {"shape": tuple(one["shape"]), "values": tuple(one.get("values", ()))}) for one in said["inputs"]
    )
    lists = {name: tuple(said[name]) for name in ("classes", "class_shares")}
    return Certificate(**said | lists | {"inputs": inputs, "golden": Golden(**said["golden"])})


def _check_golden(content: bytes, certificate: Certificate) -> Check:
    """Run the golden vectors, with the graph as it is and as onnxruntime rewrites it."""
    golden = certificate.golden
    rows = np.arange(max(ENOUGH, len(golden.label))) % len(golden.label)
    expected = Answer(np.array(golden.label), np.array(golden.probabilities)).take(rows)
    largest = 0.0
    try:
        feeds = {name: value[rows] for name, value in golden.feeds(certificate.inputs).items()}
        for optimise in (False, True):
            run = runtimes.runner(runtimes.open_session(content, optimise=optimise))
            for size in (*BATCH_SIZES, len(rows)):
                where = f"batches of {size}" if size < len(rows) else "all at once"
                found = runtimes.ask(run, feeds, size)
                if wrong := difference(found, expected, golden.tolerance):
                    return Check("golden vectors", passed=False, found=f"{where}: {wrong}")
                largest = max(largest, float(np.abs(found.probabilities - expected.probabilities).max()))
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises is what it says of the file
        return Check("golden vectors", passed=False, found=f"cannot be run: {' '.join(str(error).split())[:300]}")
    text = f"{len(golden.label)} rows as proven, largest difference {largest:.1e} of {golden.tolerance:.1e} allowed"
    return Check("golden vectors", passed=True, found=text)


def difference(found: Answer, expected: Answer, tolerance: float) -> str:
    """In what an answer is not the one that is expected: in words, or nothing.

    Another label is right where both have the same probability, within the tolerance: a tie.
    """
    if found.probabilities.shape != expected.probabilities.shape or found.label.shape != expected.label.shape:
        return f"expected shape {expected.probabilities.shape}, found {found.probabilities.shape}"
    apart = np.abs(found.probabilities - expected.probabilities).max(axis=1)
    bad = ~(apart <= tolerance) | _flipped(found, expected, tolerance)  # a NaN is not within a tolerance
    if not bad.any():
        return ""
    row = int(np.where(bad, np.where(np.isfinite(apart), apart, np.inf), -1.0).argmax())
    return (
        f"{bad.sum()} of {len(bad)} rows differ; row {row}: expected label {expected.label[row]}, "
        f"found {found.label[row]}, probabilities apart by {apart[row]:.1e}"
    )


def _flipped(found: Answer, expected: Answer, tolerance: float) -> NDArray[np.bool_]:
    rows, known = np.arange(len(found.label)), expected.probabilities
    inside = (found.label >= 0) & (found.label < known.shape[1])
    margin = np.abs(known[rows, expected.label] - known[rows, np.where(inside, found.label, 0)])
    flipped: NDArray[np.bool_] = (found.label != expected.label) & ~(inside & (margin <= tolerance))
    return flipped
