"""The certificate in a shipped file: inputs, outputs, origin and proof.

It is stored in the file's metadata, one JSON value under `hallmark.<field>` for each field of `Certificate`. The last
entry, `hallmark.digest`, is the seal: the SHA-256 of all bytes before it. It detects damage and careless edits. A file
that was changed on purpose can be sealed again; comparing its SHA-256 with the registry detects that.

This module imports only onnx, onnxruntime and numpy: checking a file needs no torch.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.common.files import whole_file
from hallmark.tasks.ml.artifact import runtimes
from hallmark.tasks.ml.artifact.runtimes import Feeds, Predicted

LIMIT = 512 * 2**20
"""Maximum size of a file in bytes; larger ones are not read."""
BATCH_SIZES = (1, 2, 7)
"""Batch sizes in which golden vectors are run, besides all rows at once."""
ENOUGH = 14
"""Number of rows to which golden vectors are repeated: two batches of seven."""

_PREFIX = "hallmark."
_SEAL = "hallmark.digest"


@dataclass(frozen=True, slots=True)
class Input:
    """One input of the graph."""

    name: str
    dtype: str
    """`float32`, `uint8` or `string`."""
    shape: tuple[int, ...]
    """Shape of one row: `(1,)` for a column, `(H, W)` for a grey image, `(H, W, 3)` for a colour image."""
    lowest: float | None
    highest: float | None
    """Range of the training rows; None for text."""
    description: str
    kind: str | None = None
    """`numeric`, `boolean` or `categorical` for a user's table, where values may be missing; else None."""
    values: tuple[str, ...] = ()
    """Values of a categorical column that the network knows."""
    mixed: bool = False
    """Whether text in place of a number is treated as missing, as in training."""
    resized: bool = False
    """Whether image files are turned upright and resized to this size when they are decoded."""
    bits: int = 0
    """Bits in use of image files with more than eight bits; 0 refuses such files."""
    on_black: bool = False
    """Whether their transparent pixels are blended with black instead of white."""


@dataclass(frozen=True, slots=True)
class Golden:
    """A few real rows with the predictions that every runtime must give."""

    inputs: dict[str, list[Any]]
    """Rows by input name, nested like their shape."""
    label: list[int]
    probabilities: list[list[float]]
    tolerance: float
    """Maximum absolute difference of a probability that counts as rounding."""

    def feeds(self, inputs: tuple[Input, ...]) -> Feeds:
        """Return the rows as arrays that a runtime accepts."""
        types = {"string": object}
        return {one.name: np.array(self.inputs[one.name], dtype=types.get(one.dtype, one.dtype)) for one in inputs}


@dataclass(frozen=True, slots=True)
class Certificate:
    """The content of a certificate. It names no run and no time: the same experiment gives the same bytes."""

    inputs: tuple[Input, ...]
    classes: tuple[str, ...]
    """Names; `label` is an index into them."""
    class_shares: tuple[float, ...]
    """Shares of the classes in the training rows."""
    experiment: str
    """Digest of the experiment, 64 hex digits."""
    dataset: str
    """Digest of the dataset, 64 hex digits."""
    metrics: dict[str, float]
    """Metrics on the test split."""
    proof: dict[str, Any]
    """Verdict and numbers of `hallmark.tasks.ml.artifact.proof.verifier` on a CPU."""
    golden: Golden


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True, slots=True)
class FileChecks:
    """The results of all checks of a file."""

    sha256: str
    """SHA-256 of the whole file, which identifies it in the registry."""
    certificate: Certificate | None
    """None if the certificate cannot be read."""
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def stamp(bare: Path, certificate: Certificate, path: Path) -> str:
    """Write a proven graph with its certificate, read the file back, check it, and return its SHA-256.

    Args:
        bare: the proven graph.
        certificate: the certificate to add.
        path: the file to write, whole or not at all.

    Raises:
        DamagedError: the written file fails a check.
    """
    model = _parse(load(bare), bare)
    del model.metadata_props[:]
    values = asdict(certificate) | {"inputs": [_without_defaults(one) for one in certificate.inputs]}
    onnx.helper.set_model_props(model, {_PREFIX + name: json.dumps(value) for name, value in values.items()})
    body = model.SerializeToString(deterministic=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(body + _seal(body))
        checked = check(temporary)
        if not checked.holds:
            raise DamagedError(f"{path}: the stamped file fails its checks: {failures(checked)}")
    return checked.sha256


def check(path: Path) -> FileChecks:
    """Check a file: well-formed graph, seal, and the golden vectors in several batch sizes.

    Args:
        path: the file.

    Raises:
        InputError: the file cannot be read, is too large, is not an ONNX file, has weights in another file, or has no
            seal.
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
    return FileChecks(hashlib.sha256(content).hexdigest(), certificate, tuple(checks))


def read(path: Path) -> tuple[Certificate, bytes]:
    """Return certificate and content of a sealed file.

    Raises:
        InputError: see `check`.
        DamagedError: the seal is broken, or the certificate cannot be read.
    """
    content = load(path)
    properties = _properties(_parse(content, path), path)
    if not (sealed := _check_seal(content)).passed:
        raise DamagedError(f"{path}: {sealed.found}: fetch the file again; see `hallmark verify`")
    try:
        return _certificate(properties), content
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path}: its certificate cannot be read: {type(error).__name__}: {error}") from error


def load(path: Path) -> bytes:
    """Read a file of at most `LIMIT` bytes.

    Raises:
        InputError: the file is too large or cannot be read.
    """
    try:
        if (size := path.stat().st_size) > LIMIT:
            raise InputError(f"{path}: the file has {size:,} bytes: expected at most {LIMIT:,}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def failures(checked: FileChecks) -> str:
    """Return the failed checks in one line."""
    return "; ".join(f"{check.name}: {check.found}" for check in checked.checks if not check.passed)


def proof_sentence(proof: Mapping[str, Any]) -> str:
    """Return the numbers of a passed proof in one line.

    Args:
        proof: as in a certificate, or the fields of a `Proof`.
    """
    return (
        f"{proof['rows']} test rows and {proof['rows_made']} synthetic rows in {len(proof['ways'])} ways, "
        f"maximum deviation {proof['largest_error']:.1e} (PyTorch's own rounding: {proof['own_error']:.1e})"
    )


def _without_defaults(one: Input) -> dict[str, Any]:
    """Return the fields of an input, without optional ones that have their default."""
    optional = ("kind", "values", "mixed", "resized", "bits", "on_black")
    return {key: value for key, value in asdict(one).items() if value or key not in optional}


def _parse(content: bytes, path: Path) -> onnx.ModelProto:
    """Parse a model that contains its weights. No other file is opened."""
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        raise InputError(f"{path}: not an ONNX file: it cannot be parsed") from error
    if not model.HasField("graph"):
        raise InputError(f"{path}: not an ONNX file: it has no graph")
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            places = [entry.value for entry in tensor.external_data if entry.key == "location"]
            raise InputError(
                f"{path}: weights are in another file, '{tensor.name}' in '{' '.join(places)}': "
                "expected one file with all weights"
            )
    return model


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor, including those in functions, attributes and inner graphs."""
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
        raise InputError(f"{path}: an ONNX file without Hallmark's seal: give a file that Hallmark has shipped")
    return properties


def _check_form(model: onnx.ModelProto) -> Check:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # noqa: BLE001 - the checker and shape inference have errors of several kinds
        return Check("ONNX checker", passed=False, found=" ".join(str(error).split())[:300])
    opset = next((entry.version for entry in model.opset_import if not entry.domain), 0)
    return Check("ONNX checker", passed=True, found=f"well-formed, opset {opset}")


def _seal(body: bytes) -> bytes:
    """Return the last entry of the metadata as it is stored in the file."""
    entry = onnx.ModelProto()
    onnx.helper.set_model_props(entry, {_SEAL: hashlib.sha256(body).hexdigest()})
    return bytes(entry.SerializeToString())


def _check_seal(content: bytes) -> Check:
    body = content[: -len(_seal(b""))]
    if content == body + _seal(body):
        return Check("seal", passed=True, found="no byte has changed since it was sealed")
    return Check("seal", passed=False, found="the content has changed since it was sealed: damaged or edited")


def _certificate(properties: dict[str, str]) -> Certificate:
    content = {field.name: json.loads(properties[_PREFIX + field.name]) for field in fields(Certificate)}
    inputs = tuple(
        Input(**one | {"shape": tuple(one["shape"]), "values": tuple(one.get("values", ()))})
        for one in content["inputs"]
    )
    lists = {name: tuple(content[name]) for name in ("classes", "class_shares")}
    return Certificate(**content | lists | {"inputs": inputs, "golden": Golden(**content["golden"])})


def _check_golden(content: bytes, certificate: Certificate) -> Check:
    """Run the golden vectors, with the graph as it is and as optimised by onnxruntime."""
    golden = certificate.golden
    rows = np.arange(max(ENOUGH, len(golden.label))) % len(golden.label)
    expected = Predicted(np.array(golden.label), np.array(golden.probabilities)).take(rows)
    largest = 0.0
    try:
        feeds = {name: value[rows] for name, value in golden.feeds(certificate.inputs).items()}
        for optimise in (False, True):
            predict = runtimes.runner(runtimes.open_session(content, optimise=optimise))
            for size in (*BATCH_SIZES, len(rows)):
                where = f"batches of {size}" if size < len(rows) else "all at once"
                predicted = runtimes.predict_in_batches(predict, feeds, size)
                if wrong := difference(predicted, expected, golden.tolerance):
                    return Check("golden vectors", passed=False, found=f"{where}: {wrong}")
                largest = max(largest, float(np.abs(predicted.probabilities - expected.probabilities).max()))
    except Exception as error:  # noqa: BLE001 - any error of a runtime is a failure of the file
        return Check("golden vectors", passed=False, found=f"cannot be run: {' '.join(str(error).split())[:300]}")
    text = f"{len(golden.label)} rows as proven, maximum deviation {largest:.1e} (allowed: {golden.tolerance:.1e})"
    return Check("golden vectors", passed=True, found=text)


def difference(found: Predicted, expected: Predicted, tolerance: float) -> str:
    """Describe how predictions differ from the expected ones; empty if they do not.

    A different label is accepted if both classes have the same probability within the tolerance: a tie.
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


def _flipped(found: Predicted, expected: Predicted, tolerance: float) -> NDArray[np.bool_]:
    rows, probabilities = np.arange(len(found.label)), expected.probabilities
    inside = (found.label >= 0) & (found.label < probabilities.shape[1])
    margin = np.abs(probabilities[rows, expected.label] - probabilities[rows, np.where(inside, found.label, 0)])
    flipped: NDArray[np.bool_] = (found.label != expected.label) & ~(inside & (margin <= tolerance))
    return flipped
