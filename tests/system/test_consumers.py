"""The shipped file where its users are: in Node.js, in a browser, over HTTP, and by the README's own lines.

`.ci/run` installs what these tests run with and sets HALLMARK_REQUIRE_CONSUMERS: there, what is missing fails them.
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
from hallmark.tasks.ml.artifact.runtimes import Predicted
from hallmark.tasks.runtime import settings
from tests.conftest import ROOT
from tests.support import browsers, owned

README = ROOT / "README.md"
JAVASCRIPT = ROOT / "tests" / "javascript"
MODULES = JAVASCRIPT / "node_modules"
ACTIVATED = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
"""As in a shell that has activated `.venv`."""
SIZES = (8, 1, 3)
"""Rows at a time."""
LIMIT = 120
"""Seconds after which a process that has not answered is a failure."""


@dataclass(frozen=True)
class Shipped:
    """A file with its certificate, and the registered model that it is."""

    name: str
    path: Path

    @property
    def said(self) -> Certificate:
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
    found = Shipped(name, train(owned.experiment(path, name)).artifact.path)
    # What is asked has a gap and text, or it would show nothing.
    assert any(None in row for rows in found.said.golden.inputs.values() for row in rows)
    assert "string" in {one.dtype for one in found.said.inputs}
    return found


@pytest.fixture(scope="module", params=["iris_shipped", "digits_shipped", "table_shipped"])
def shipped(request: pytest.FixtureRequest) -> Shipped:
    """A model of columns, one of images, and one of a table with text and gaps."""
    found: Shipped = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def address(shipped: Shipped) -> Iterator[str]:
    """Where MLflow serves the registered model, by the README's lines but for name and port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = snippet("sh", "mlflow models serve").replace("models:/iris@", f"models:/{shipped.name}@")
    store = settings.database(os.environ["MLFLOW_TRACKING_URI"])
    assert store
    with running(["bash", "-c", command.replace("5001", port)], store.parents[1], **ACTIVATED) as process:
        until(lambda: answers(f"http://127.0.0.1:{port}/ping"), process)
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def node() -> str:
    if not (MODULES / "onnxruntime-node").is_dir():
        browsers.missing("onnxruntime-node is not installed")
    return shutil.which("node") or browsers.missing("there is no Node.js")


@pytest.fixture(scope="module")
def browser() -> str:
    if not (MODULES / "onnxruntime-web").is_dir():
        browsers.missing("onnxruntime-web is not installed")
    return browsers.executable()


def ship(preset: str) -> Shipped:
    """Train, prove, stamp and register under a name of its own."""
    experiment = presets.get(preset)
    training = experiment.training.model_copy(update={"device": "cpu"})
    name = f"c{uuid.uuid4().hex[:12]}"
    return Shipped(name, train(experiment.model_copy(update={"name": name, "training": training})).artifact.path)


@contextmanager
def running(command: list[str], folder: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that ends with the block, with all that it has started. What it wrote is shown if a test fails."""
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
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def until(happened: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + LIMIT
    while not happened():
        assert process.poll() is None, f"it ended with exit code {process.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except OSError:
        return False


class Site(ThreadingHTTPServer):
    """A folder on 127.0.0.1, and what its pages send."""

    def __init__(self, folder: Path) -> None:
        self.said: SimpleQueue[bytes] = SimpleQueue()
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))


class Handler(SimpleHTTPRequestHandler):
    server: Site

    def do_POST(self) -> None:
        self.server.said.put(self.rfile.read(int(self.headers["Content-Length"])))
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
    """Open a page of `tests/javascript` beside these files, and return what it sends."""
    served = folder / "served"
    served.mkdir()
    for path in JAVASCRIPT.iterdir():
        (served / path.name).symlink_to(path)
    for name, content in files.items():
        (served / name.replace("_", ".")).write_bytes(content)
    with site(served) as http:
        command = [browser, *browsers.FLAGS, f"--user-data-dir={folder / 'profile'}"]
        with running([*command, f"http://127.0.0.1:{http.server_port}/{page}"], folder) as process:
            until(lambda: not http.said.empty(), process)
    said = json.loads(http.said.get())
    assert "error" not in said, said["error"]
    return list(said["answers"])


def question(said: Certificate) -> bytes:
    """The golden vectors in batches of several sizes, as `ask.js` takes them."""
    # As the certificate has them: where a number is missing, JSON has null.
    rows, count = said.golden.inputs, len(said.golden.label)
    starts = [(start, start + size) for size in SIZES for start in range(0, count, size)]
    lists = [{name: value[start:end] for name, value in rows.items()} for start, end in starts]
    inputs = [{"name": one.name, "dtype": one.dtype, "shape": one.shape} for one in said.inputs]
    return json.dumps({"inputs": inputs, "batches": lists}).encode()


def compare(said: Certificate, found: list[dict[str, Any]]) -> None:
    """Compare what `ask.js` was told with the golden vectors, and its form with the contract."""
    for answer in found:
        rows = answer["label"]["dims"][0]
        assert {name: (output["type"], output["dims"]) for name, output in answer.items()} == {
            "label": ("int64", [rows]),
            "probabilities": ("float32", [rows, len(said.classes)]),
        }
    label = [value for answer in found for value in answer["label"]["data"]]
    probabilities = [value for answer in found for value in answer["probabilities"]["data"]]
    agree(said, label, np.reshape(probabilities, (-1, len(said.classes))), len(SIZES))


def agree(said: Certificate, label: list[int], probabilities: object, times: int = 1) -> None:
    """Hold answers against the golden vectors, which were asked so many times."""
    rows = np.tile(np.arange(len(said.golden.label)), times)
    expected = Predicted(np.array(said.golden.label), np.array(said.golden.probabilities)).take(rows)
    found = Predicted(np.array(label), np.array(probabilities))
    assert certificate.difference(found, expected, said.golden.tolerance) == ""


def post(address: str, request: object) -> dict[str, Any]:
    """What MLflow predicts."""
    headers = {"Content-Type": "application/json"}
    data = json.dumps(request).encode()
    asked = urllib.request.Request(f"{address}/invocations", data, headers)  # noqa: S310 - our own address
    with urllib.request.urlopen(asked, timeout=LIMIT) as answer:  # noqa: S310
        predictions: dict[str, Any] = json.load(answer)["predictions"]
    return predictions


def section() -> str:
    """The consumer's page."""
    return README.read_text().split("\n## Use the model\n")[1].split("\n## ")[0]


def snippet(language: str, containing: str = "") -> str:
    """The one code block in this language with this text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", section(), re.DOTALL)
    (found,) = [block for block in blocks if containing in block]
    return str(found)


def flower(shipped: Shipped) -> tuple[int, list[float]]:
    """Label and probabilities of the README's flower."""
    rows = {"sepal_length": 6.3, "sepal_width": 3.3, "petal_length": 6.0, "petal_width": 2.5}
    given = {name: np.array([[value]], np.float32) for name, value in rows.items()}
    label, probabilities = onnxruntime.InferenceSession(shipped.path).run(None, given)
    return int(label[0]), probabilities[0].tolist()


def assert_flower(shipped: Shipped, label: str, probabilities: list[str]) -> None:
    expected = flower(shipped)
    assert int(label) == expected[0]
    assert [float(value) for value in probabilities] == pytest.approx(expected[1], abs=1e-6)


def test_node_says_what_was_proven(shipped: Shipped, node: str, tmp_path: Path) -> None:
    asked = tmp_path / "question.json"
    asked.write_bytes(question(shipped.said))
    compare(shipped.said, json.loads(run([node, "node.js", str(shipped.path), str(asked)], JAVASCRIPT)))


def test_a_browser_says_what_was_proven(shipped: Shipped, browser: str, tmp_path: Path) -> None:
    files = {"model_onnx": shipped.path.read_bytes(), "question_json": question(shipped.said)}
    compare(shipped.said, visit(browser, "page.html", tmp_path, **files))


def test_the_registered_model_says_over_http_what_was_proven(shipped: Shipped, address: str) -> None:
    agree(shipped.said, **post(address, {"inputs": shipped.said.golden.inputs}))


@pytest.mark.parametrize("shipped", ["iris_shipped", "table_shipped"], indirect=True)
def test_columns_go_over_http_as_objects_too(shipped: Shipped, address: str) -> None:
    columns = {name: [value for (value,) in rows] for name, rows in shipped.said.golden.inputs.items()}
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    agree(shipped.said, **post(address, {"dataframe_records": records}))


@pytest.mark.parametrize("shipped", ["iris_shipped"], indirect=True)
def test_the_readmes_request_is_answered_as_written(shipped: Shipped, address: str, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        browsers.missing("there is no curl")
    request = snippet("sh", "curl").replace("http://127.0.0.1:5001", address)
    predictions = json.loads(run(["bash", "-c", request], tmp_path))["predictions"]
    label, probabilities = flower(shipped)
    assert predictions == {"label": [label], "probabilities": [pytest.approx(probabilities, abs=1e-6)]}


def test_the_readmes_python_runs_as_written(iris_shipped: Shipped, python: Callable[..., str], tmp_path: Path) -> None:
    code = snippet("python")
    assert len([line for line in code.splitlines() if line]) == 5
    shutil.copy(iris_shipped.path, tmp_path / "iris.onnx")
    said = python(code, cwd=tmp_path)
    classes, end = json.JSONDecoder().raw_decode(said)
    label, probabilities = re.fullmatch(r" (\d) \[(.*)\]\n", said[end:]).groups()  # type: ignore[union-attr]
    assert classes[int(label)] == "virginica"
    assert_flower(iris_shipped, label, probabilities.split())


def test_the_readmes_javascript_runs_as_written_in_node(iris_shipped: Shipped, node: str, tmp_path: Path) -> None:
    code = snippet("javascript")
    assert len([line for line in code.splitlines() if line]) == 5
    (tmp_path / "readme.mjs").write_text(code)
    (tmp_path / "node_modules").symlink_to(MODULES)
    shutil.copy(iris_shipped.path, tmp_path / "iris.onnx")
    said = re.fullmatch(r"(\d)n Float32Array\(3\) \[(.*)\]\n", run([node, "readme.mjs"], tmp_path), re.DOTALL)
    assert said
    assert_flower(iris_shipped, said[1], said[2].split(","))


def test_the_readmes_javascript_runs_in_a_browser_but_for_the_import(
    iris_shipped: Shipped, browser: str, tmp_path: Path
) -> None:
    code = snippet("javascript").replace("onnxruntime-node", "onnxruntime-web")
    files = {"readme_mjs": code.encode(), "iris_onnx": iris_shipped.path.read_bytes()}
    label, probabilities = visit(browser, "readme.html", tmp_path, **files)
    assert_flower(iris_shipped, label, probabilities.split(","))


def test_the_readmes_check_holds_as_written(iris_shipped: Shipped, tmp_path: Path) -> None:
    shutil.copy(iris_shipped.path, tmp_path / "iris.onnx")
    said = run(["bash", "-ec", snippet("sh", "hallmark verify")], tmp_path)
    assert [line.split() for line in said.splitlines() if line.startswith("verdict")] == [["verdict", "holds"]] * 2
    assert f"{iris_shipped.name} version 1" in said


def test_the_readme_names_all_that_the_metadata_has() -> None:
    for name in (*(field.name for field in fields(Certificate)), "digest"):
        assert f"`hallmark.{name}`" in section()
