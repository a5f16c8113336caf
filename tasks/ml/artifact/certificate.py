"""The certificate in a shipped file: inputs, outputs, origin and proof.

It is stored in the file's metadata, one JSON value under `hallmark.<field>` for each field of `Certificate`. The last
entry, `hallmark.digest`, is the seal: the SHA-256 of all bytes before it. It detects damage and careless edits. A file
that was changed on purpose can be sealed again; comparing its SHA-256 with the registry detects that.

This module imports only onnx, onnxruntime and numpy: checking a file needs no torch.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import onnx

from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.common.files import whole_file
from hallmark.tasks.ml.artifact import certificate_schema, graph_checks
from hallmark.tasks.ml.artifact.graph_checks import Expected
from hallmark.tasks.ml.artifact.runtimes import Feeds

LIMIT = 512 * 2**20
"""Maximum size of a file in bytes; larger ones are not read."""

_PREFIX = "hallmark."
_SEAL = "hallmark.digest"


@dataclass(frozen=True, slots=True)
class Input:
    """One input of the graph."""

    name: str
    dtype: str
    """`float32`, `float64`, `uint8` or `string`."""
    shape: tuple[int, ...]
    """Shape of one row: `(1,)` for a column, `(H, W)` for a grey image, `(H, W, 3)` for a colour image."""
    lowest: float | None
    highest: float | None
    """Range of the training rows; None for text."""
    description: str
    kind: str | None = None
    """`numeric`, `boolean`, `categorical` or `date` for a user's table, where values may be missing; else None."""
    values: tuple[str, ...] = ()
    """Values of a categorical column that the network knows."""
    mixed: bool = False
    """Whether text in place of a number is treated as missing, as in training."""
    resized: bool = False
    """Whether image files are turned upright and resized to this size when they are decoded."""
    missing_text: tuple[str, ...] | None = None
    """Texts in a file that mark a missing value, besides empty text; None for the usual ones."""
    decimal: str = ""
    """Character before the fraction of numbers in a file; empty for those of programming languages."""
    unit: str = ""
    """Sign or unit beside the numbers in a file, which is dropped."""
    joined: bool = False
    """Whether texts in a file that differ from a known value by their spelling only stand for it."""
    date_form: str = ""
    """Form in which a file writes dates, besides ISO 8601; see `tables.date_columns.date_formats.FORMATS`."""
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
        return graph_checks.golden_feeds([(one.name, one.dtype, list(one.shape)) for one in inputs], self.inputs)


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


def check(path: Path, *, apart: bool = False) -> FileChecks:
    """Check a file: its certificate, its graph, its seal, and the golden vectors in several batch sizes.

    Args:
        path: the file.
        apart: whether the graph is checked and run in a process with a limit of time and memory, which a file of
            unknown origin needs.

    Raises:
        InputError: the file cannot be read, is too large, is not an ONNX file, has weights in another file, or has no
            seal.
    """
    content = load(path)
    properties = _properties(_parse(content, path), path)
    checks = [_check_seal(content)]
    certificate = None
    try:
        certificate = _certificate(properties)
    except InputError as error:
        checks.append(Check("certificate", passed=False, found=str(error)))
    examine = graph_checks.examine_apart if apart else graph_checks.examine
    graph, *golden = [Check(*one) for one in examine(content, _expected(certificate))]
    return FileChecks(hashlib.sha256(content).hexdigest(), certificate, (graph, *checks, *golden))


def read(path: Path, *, apart: bool = False) -> tuple[Certificate, bytes]:
    """Return certificate and content of a sealed file, whose graph has the form that Hallmark writes.

    Args:
        path: the file.
        apart: whether the golden vectors are run too, in a process with a limit of time and memory, which a file of
            unknown origin needs.

    Raises:
        InputError: see `check`.
        DamagedError: the seal is broken, the certificate cannot be used, the graph is not as the certificate says, or
            golden vectors fail.
    """
    content = load(path)
    model = _parse(content, path)
    properties = _properties(model, path)
    if not (sealed := _check_seal(content)).passed:
        raise DamagedError(f"{path}: {sealed.found}: fetch the file again; see `hallmark verify`")
    try:
        certificate = _certificate(properties)
    except InputError as error:
        raise DamagedError(f"{path}: its certificate cannot be read: {error}") from error
    expected = _expected(certificate)
    if found := graph_checks.form(model, expected):
        raise DamagedError(f"{path}: {found}: see `hallmark verify`")
    for name, passed, found in graph_checks.examine_apart(content, expected) if apart else ():
        if not passed:
            raise DamagedError(f"{path}: {name}: {found}: see `hallmark verify`")
    return certificate, content


def load(path: Path) -> bytes:
    """Read a regular file of at most `LIMIT` bytes.

    Raises:
        InputError: it is no regular file, is too large, or cannot be read.
    """
    try:
        # Without waiting: a named pipe that nobody writes to would never open.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise InputError(f"{path}: is not a regular file: give an .onnx file")
            if about.st_size > LIMIT:
                raise InputError(f"{path}: the file has {about.st_size:,} bytes: expected at most {LIMIT:,}")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(descriptor)
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
    optional = {field.name: field.default for field in fields(Input) if field.default is not MISSING}
    return {key: value for key, value in asdict(one).items() if key not in optional or value != optional[key]}


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
    if len(properties) < len(model.metadata_props):
        keys = [entry.key for entry in model.metadata_props]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"{path}: its metadata has '{twice}' twice: give a file that Hallmark has shipped")
    if _SEAL not in properties:
        raise InputError(f"{path}: an ONNX file without Hallmark's seal: give a file that Hallmark has shipped")
    return properties


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
    """Return the certificate in a file's metadata.

    Raises:
        InputError: a value is missing or not as Hallmark writes it.
    """
    try:
        content = {field.name: json.loads(properties[_PREFIX + field.name]) for field in fields(Certificate)}
        if found := certificate_schema.violation(content):
            raise InputError(found)
        inputs = tuple(
            Input(**one | {name: tuple(one[name]) for name in ("shape", "values", "missing_text") if name in one})
            for one in content["inputs"]
        )
        lists = {name: tuple(content[name]) for name in ("classes", "class_shares")}
        return Certificate(**content | lists | {"inputs": inputs, "golden": Golden(**content["golden"])})
    except KeyError as error:
        raise InputError(f"{error.args[0]} is missing") from error
    except TypeError as error:
        raise InputError("it has fields that this version of Hallmark does not know") from error
    except (ValueError, RecursionError, OverflowError) as error:
        raise InputError(f"{type(error).__name__}: {str(error)[:200]}") from error


def _expected(certificate: Certificate | None) -> Expected | None:
    """Return what a certificate says about its graph."""
    if certificate is None:
        return None
    golden = certificate.golden
    inputs = [(one.name, one.dtype, list(one.shape)) for one in certificate.inputs]
    return Expected(
        inputs, len(certificate.classes), golden.inputs, golden.label, golden.probabilities, golden.tolerance
    )
