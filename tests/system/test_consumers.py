"""The exported file in Node.js, in a browser, behind an HTTP server, and in the examples of the README.

`.ci/run` installs the programs that these tests need and sets HALLMARK_REQUIRE_CONSUMERS, so that a missing one fails
its tests.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryFile
from threading import Thread
from typing import Any

import numpy as np
import onnxruntime
import pytest

from hallmark.flows.experiments import presets
from hallmark.flows.train import train
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.artifact.certificate import Certificate
from hallmark.tasks.ml.artifact.runtimes import Answer
from hallmark.tasks.runtime import settings
from tests.conftest import ROOT
from tests.support import browsers, owned

README = ROOT / "README.md"
JAVASCRIPT = ROOT / "tests" / "javascript"
MODULES = JAVASCRIPT / "node_modules"
ACTIVATED = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
"""Environment of a shell in which `.venv` is activated."""
SIZES = (8, 1, 3)
"""Batch sizes."""
LIMIT = 120
"""Timeout in seconds."""


@dataclass(frozen=True)
class Shipped:
    """An exported file and the name of its registered model."""

    name: str
    path: Path

    @property
    def certificate(self) -> Certificate:
        return certificate.read(self.path)[0]


@pytest.fixture(scope="module")
def iris_shipped(prefect_server: str) -> Shipped:  # noqa: ARG001 - the server comes first
    return ship("iris")


@pytest.fixture(scope="module")
def digits_shipped(prefect_server: str) -> Shipped:  # noqa: ARG001 - the server comes first
    return ship("digits")


@pytest.fixture(scope="module")
def table_shipped(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Shipped:  # noqa: ARG001 - as above
    path = owned.write(owned.mixed(), tmp_path_factory.mktemp("table") / "people.csv")
    name = f"c{uuid.uuid4().hex[:12]}"
    shipped = Shipped(name, train(owned.experiment(path, name)).artifact.path)
    # The golden rows must contain a missing value and text.
    assert any(None in row for rows in shipped.certificate.golden.inputs.values() for row in rows)
    assert "string" in {one.dtype for one in shipped.certificate.inputs}
    return shipped


@pytest.fixture(scope="module", params=["iris_shipped", "digits_shipped", "table_shipped"])
def shipped(request: pytest.FixtureRequest) -> Shipped:
    """Return a model of columns, of images, and of a table with text and missing values."""
    shipped: Shipped = request.getfixturevalue(request.param)
    return shipped


@pytest.fixture(scope="module")
def address(shipped: Shipped) -> Iterator[str]:
    """Serve the registered model with MLflow by the README's command, with another name and port; return the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    command = snippet("sh", "mlflow models serve").replace("models:/iris@", f"models:/{shipped.name}@")
    store = settings.database(os.environ["MLFLOW_TRACKING_URI"])
    assert store
    with running(["bash", "-c", command.replace("5001", port)], store.parents[1], **ACTIVATED) as process:
        until(lambda: answers(f"http://127.0.0.1:{port}/ping"), process)
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def node() -> str:
    if not (MODULES / "onnxruntime-node").is_dir():
        browsers.skip_or_fail("onnxruntime-node is not installed")
    return shutil.which("node") or browsers.skip_or_fail("there is no Node.js")


@pytest.fixture(scope="module")
def browser() -> str:
    if not (MODULES / "onnxruntime-web").is_dir():
        browsers.skip_or_fail("onnxruntime-web is not installed")
    return browsers.executable()


def ship(preset: str) -> Shipped:
    """Train and register a preset under a unique name."""
    experiment = presets.get(preset)
    training = experiment.training.model_copy(update={"device": "cpu"})
    name = f"c{uuid.uuid4().hex[:12]}"
    return Shipped(name, train(experiment.model_copy(update={"name": name, "training": training})).artifact.path)


@contextmanager
def running(command: list[str], folder: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process and kill its process group at the end of the block. Its output is shown if a test fails."""
    with TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            output.seek(0)
            sys.stderr.write(output.read().decode(errors="replace"))


def run(command: list[str], folder: Path) -> str:
    environment = os.environ | ACTIVATED
    completed = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert process.poll() is None, f"the process ended with exit code {process.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own address
            return bool(response.status == 200)
    except OSError:
        return False


class Site(ThreadingHTTPServer):
    """HTTP server for a folder that collects the bodies of POST requests."""

    def __init__(self, folder: Path) -> None:
        self.received: SimpleQueue[bytes] = SimpleQueue()
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))


class Handler(SimpleHTTPRequestHandler):
    server: Site

    def do_POST(self) -> None:
        self.server.received.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    with Site(folder) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        try:
            yield http
        finally:
            http.shutdown()
            thread.join()


def visit(browser: str, page: str, folder: Path, **files: bytes) -> list[Any]:
    """Open a page of `tests/javascript` together with these files; return the answers that it posts."""
    served = folder / "served"
    served.mkdir()
    for path in JAVASCRIPT.iterdir():
        (served / path.name).symlink_to(path)
    for name, content in files.items():
        (served / name.replace("_", ".")).write_bytes(content)
    with site(served) as http:
        command = [browser, *browsers.FLAGS, f"--user-data-dir={folder / 'profile'}"]
        with running([*command, f"http://127.0.0.1:{http.server_port}/{page}"], folder) as process:
            until(lambda: not http.received.empty(), process)
    body = json.loads(http.received.get())
    assert "error" not in body, body["error"]
    return list(body["answers"])


def golden_batches(cert: Certificate) -> bytes:
    """Return the golden rows in batches of several sizes, as JSON for `ask.js`. Missing numbers are null."""
    rows, count = cert.golden.inputs, len(cert.golden.label)
    starts = [(start, start + size) for size in SIZES for start in range(0, count, size)]
    lists = [{name: value[start:end] for name, value in rows.items()} for start, end in starts]
    inputs = [{"name": one.name, "dtype": one.dtype, "shape": one.shape} for one in cert.inputs]
    return json.dumps({"inputs": inputs, "batches": lists}).encode()


def assert_outputs(cert: Certificate, answers: list[dict[str, Any]]) -> None:
    """Check types, shapes and values of the outputs from `ask.js` against the certificate."""
    for answer in answers:
        rows = answer["label"]["dims"][0]
        assert {name: (output["type"], output["dims"]) for name, output in answer.items()} == {
            "label": ("int64", [rows]),
            "probabilities": ("float32", [rows, len(cert.classes)]),
        }
    label = [value for answer in answers for value in answer["label"]["data"]]
    probabilities = [value for answer in answers for value in answer["probabilities"]["data"]]
    assert_predictions(cert, label, np.reshape(probabilities, (-1, len(cert.classes))), len(SIZES))


def assert_predictions(cert: Certificate, label: list[int], probabilities: object, times: int = 1) -> None:
    """Compare predictions with the golden rows, repeated `times` times."""
    rows = np.tile(np.arange(len(cert.golden.label)), times)
    expected = Answer(np.array(cert.golden.label), np.array(cert.golden.probabilities)).take(rows)
    answer = Answer(np.array(label), np.array(probabilities))
    assert certificate.difference(answer, expected, cert.golden.tolerance) == ""


def post(address: str, request: object) -> dict[str, Any]:
    """Send a request to the MLflow server; return its predictions."""
    headers = {"Content-Type": "application/json"}
    data = json.dumps(request).encode()
    http_request = urllib.request.Request(f"{address}/invocations", data, headers)  # noqa: S310 - our own address
    with urllib.request.urlopen(http_request, timeout=LIMIT) as response:  # noqa: S310
        predictions: dict[str, Any] = json.load(response)["predictions"]
    return predictions


def section() -> str:
    """Return the README's section for users of a model."""
    return README.read_text().split("\n## Use the model\n")[1].split("\n## ")[0]


def snippet(language: str, containing: str = "") -> str:
    """Return the only code block in this language that contains this text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", section(), re.DOTALL)
    (only,) = [block for block in blocks if containing in block]
    return str(only)


def predict_readme_row(shipped: Shipped) -> tuple[int, list[float]]:
    """Return label and probabilities of the row in the README's examples."""
    rows = {"sepal_length": 6.3, "sepal_width": 3.3, "petal_length": 6.0, "petal_width": 2.5}
    inputs = {name: np.array([[value]], np.float32) for name, value in rows.items()}
    label, probabilities = onnxruntime.InferenceSession(shipped.path).run(None, inputs)
    return int(label[0]), probabilities[0].tolist()


def assert_readme_row(shipped: Shipped, label: str, probabilities: list[str]) -> None:
    expected = predict_readme_row(shipped)
    assert int(label) == expected[0]
    assert [float(value) for value in probabilities] == pytest.approx(expected[1], abs=1e-6)


def test_node_predicts_the_golden_rows(shipped: Shipped, node: str, tmp_path: Path) -> None:
    batches = tmp_path / "question.json"
    batches.write_bytes(golden_batches(shipped.certificate))
    assert_outputs(shipped.certificate, json.loads(run([node, "node.js", str(shipped.path), str(batches)], JAVASCRIPT)))


def test_browser_predicts_the_golden_rows(shipped: Shipped, browser: str, tmp_path: Path) -> None:
    files = {"model_onnx": shipped.path.read_bytes(), "question_json": golden_batches(shipped.certificate)}
    assert_outputs(shipped.certificate, visit(browser, "page.html", tmp_path, **files))


def test_registered_model_predicts_the_golden_rows_over_http(shipped: Shipped, address: str) -> None:
    assert_predictions(shipped.certificate, **post(address, {"inputs": shipped.certificate.golden.inputs}))


@pytest.mark.parametrize("shipped", ["iris_shipped", "table_shipped"], indirect=True)
def test_columns_can_be_sent_over_http_as_records(shipped: Shipped, address: str) -> None:
    columns = {name: [value for (value,) in rows] for name, rows in shipped.certificate.golden.inputs.items()}
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    assert_predictions(shipped.certificate, **post(address, {"dataframe_records": records}))


@pytest.mark.parametrize("shipped", ["iris_shipped"], indirect=True)
def test_request_in_the_readme_works_as_written(shipped: Shipped, address: str, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        browsers.skip_or_fail("there is no curl")
    request = snippet("sh", "curl").replace("http://127.0.0.1:5001", address)
    predictions = json.loads(run(["bash", "-c", request], tmp_path))["predictions"]
    label, probabilities = predict_readme_row(shipped)
    assert predictions == {"label": [label], "probabilities": [pytest.approx(probabilities, abs=1e-6)]}


def test_python_in_the_readme_works_as_written(
    iris_shipped: Shipped, python: Callable[..., str], tmp_path: Path
) -> None:
    code = snippet("python")
    assert len([line for line in code.splitlines() if line]) == 5
    shutil.copy(iris_shipped.path, tmp_path / "iris.onnx")
    output = python(code, cwd=tmp_path)
    classes, end = json.JSONDecoder().raw_decode(output)
    label, probabilities = re.fullmatch(r" (\d) \[(.*)\]\n", output[end:]).groups()  # type: ignore[union-attr]
    assert classes[int(label)] == "virginica"
    assert_readme_row(iris_shipped, label, probabilities.split())


def test_javascript_in_the_readme_works_as_written_in_node(iris_shipped: Shipped, node: str, tmp_path: Path) -> None:
    code = snippet("javascript")
    assert len([line for line in code.splitlines() if line]) == 5
    (tmp_path / "readme.mjs").write_text(code)
    (tmp_path / "node_modules").symlink_to(MODULES)
    shutil.copy(iris_shipped.path, tmp_path / "iris.onnx")
    match = re.fullmatch(r"(\d)n Float32Array\(3\) \[(.*)\]\n", run([node, "readme.mjs"], tmp_path), re.DOTALL)
    assert match
    assert_readme_row(iris_shipped, match[1], match[2].split(","))


def test_javascript_in_the_readme_works_in_a_browser_with_another_import(
    iris_shipped: Shipped, browser: str, tmp_path: Path
) -> None:
    code = snippet("javascript").replace("onnxruntime-node", "onnxruntime-web")
    files = {"readme_mjs": code.encode(), "iris_onnx": iris_shipped.path.read_bytes()}
    label, probabilities = visit(browser, "readme.html", tmp_path, **files)
    assert_readme_row(iris_shipped, label, probabilities.split(","))


def test_verify_commands_in_the_readme_work_as_written(iris_shipped: Shipped, tmp_path: Path) -> None:
    shutil.copy(iris_shipped.path, tmp_path / "iris.onnx")
    output = run(["bash", "-ec", snippet("sh", "hallmark verify")], tmp_path)
    assert [line.split() for line in output.splitlines() if line.startswith("verdict")] == [["verdict", "holds"]] * 2
    assert f"{iris_shipped.name} version 1" in output


def test_readme_names_all_metadata() -> None:
    for name in (*(field.name for field in fields(Certificate)), "digest"):
        assert f"`hallmark.{name}`" in section()
