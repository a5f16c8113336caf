"""The exported file in Node.js, in a browser, behind an HTTP server, and in the examples of the README.

`.ci/run` installs the programs that these tests need and sets HALLMARK_REQUIRE_CONSUMERS, so that a missing one fails
its tests.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest

from hallmark.flows.experiments import presets
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.artifact import certificate, graph_checks
from hallmark.tasks.ml.artifact.certificate import Certificate
from hallmark.tasks.ml.artifact.runtimes import Predicted
from hallmark.tasks.ml.data.images import image_file
from hallmark.tasks.ml.reports import code_snippets
from hallmark.tasks.runtime import settings
from hallmark.tasks.runtime.prefect_api import answers
from tests.conftest import ROOT
from tests.support import browsers, certified, javascript, owned, photographed, registered

README = ROOT / "README.md"
ACTIVATED = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
"""Environment of a shell in which `.venv` is activated."""
SIZES = (8, 1, 3)
"""Batch sizes."""


@dataclass(frozen=True)
class Shipped:
    """An exported file and the name of its registered model."""

    name: str
    path: Path

    @classmethod
    def of(cls, outcome: Outcome) -> "Shipped":
        return cls(outcome.model_version.name, outcome.artifact.path)

    @property
    def certificate(self) -> Certificate:
        return certificate.read(self.path)[0]


@pytest.fixture(scope="module")
def iris_shipped(prefect_server: str) -> Shipped:  # noqa: ARG001 - the server comes first
    return Shipped.of(registered.train_on_cpu(presets.get("iris")))


@pytest.fixture(scope="module")
def digits_shipped(digits: Outcome) -> Shipped:
    return Shipped.of(digits)


@pytest.fixture(scope="module")
def table_shipped(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Shipped:  # noqa: ARG001 - as above
    times = 1_700_000_000 + 30 * np.random.default_rng(3).integers(0, 900, owned.ROWS)
    table = owned.mixed().append_column("seen", pa.array(times, mask=times % 7 == 0))
    table = table.append_column("day", pa.array((times - times % 999 * 86_400).astype("datetime64[s]")))
    path = owned.write(table, tmp_path_factory.mktemp("table") / "people.csv")
    # The golden rows must contain a missing value and text, as they do with this split.
    stratified = owned.experiment(path, "", "--data.split.method", "stratified", "--data.columns.day", "date")
    shipped = Shipped.of(registered.train_on_cpu(stratified))
    assert any(None in row for rows in shipped.certificate.golden.inputs.values() for row in rows)
    assert {"string", "float64", "float32"} == {one.dtype for one in shipped.certificate.inputs}
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
    command = command.replace("5001", port)
    with javascript.running(["bash", "-c", command], store.parents[1], **ACTIVATED) as process:
        javascript.wait(process, lambda: answers(f"http://127.0.0.1:{port}"))
        yield f"http://127.0.0.1:{port}"


def run(command: list[str], folder: Path) -> str:
    environment = os.environ | ACTIVATED
    completed = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=javascript.LIMIT
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


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
    expected = Predicted(np.array(cert.golden.label), np.array(cert.golden.probabilities)).take(rows)
    answer = Predicted(np.array(label), np.array(probabilities))
    assert graph_checks.difference(answer, expected, cert.golden.tolerance) == ""


def post(address: str, request: object) -> dict[str, Any]:
    """Send a request to the MLflow server; return its predictions."""
    headers = {"Content-Type": "application/json"}
    data = json.dumps(request).encode()
    http_request = urllib.request.Request(f"{address}/invocations", data, headers)  # noqa: S310 - our own address
    with urllib.request.urlopen(http_request, timeout=javascript.LIMIT) as response:  # noqa: S310
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


def test_node_predicts_the_golden_rows(shipped: Shipped, tmp_path: Path) -> None:
    batches = tmp_path / "question.json"
    batches.write_bytes(golden_batches(shipped.certificate))
    assert_outputs(
        shipped.certificate,
        json.loads(run([javascript.node(), "node.js", str(shipped.path), str(batches)], javascript.FOLDER)),
    )


def test_browser_predicts_the_golden_rows(shipped: Shipped, tmp_path: Path) -> None:
    files = {"model_onnx": shipped.path.read_bytes(), "question_json": golden_batches(shipped.certificate)}
    assert_outputs(shipped.certificate, javascript.visit("page.html", tmp_path, **files))


def test_registered_model_predicts_the_golden_rows_over_http(shipped: Shipped, address: str) -> None:
    assert_predictions(shipped.certificate, **post(address, {"inputs": shipped.certificate.golden.inputs}))


@pytest.mark.parametrize("shipped", ["digits_shipped"], indirect=True)
def test_images_over_http_are_whole_numbers_as_the_readme_says(shipped: Shipped, address: str) -> None:
    image = np.array(shipped.certificate.golden.inputs["image"][:1])
    black, fractions = (post(address, {"inputs": {"image": x.tolist()}}) for x in (image * 0, image / 17))
    assert black == fractions
    with pytest.raises(urllib.error.HTTPError, match="400"):
        post(address, {"inputs": {"image": "iVBORw0KGgo="}})


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


def test_javascript_in_the_readme_works_as_written_in_node(iris_shipped: Shipped, tmp_path: Path) -> None:
    code = snippet("javascript")
    assert len([line for line in code.splitlines() if line]) == 5
    (tmp_path / "readme.mjs").write_text(code)
    (tmp_path / "node_modules").symlink_to(javascript.MODULES)
    shutil.copy(iris_shipped.path, tmp_path / "iris.onnx")
    match = re.fullmatch(
        r"(\d)n Float32Array\(3\) \[(.*)\]\n", run([javascript.node(), "readme.mjs"], tmp_path), re.DOTALL
    )
    assert match
    assert_readme_row(iris_shipped, match[1], match[2].split(","))


def test_javascript_in_the_readme_works_in_a_browser_with_another_import(iris_shipped: Shipped, tmp_path: Path) -> None:
    code = snippet("javascript").replace("onnxruntime-node", "onnxruntime-web")
    files = {"readme_mjs": code.encode(), "iris_onnx": iris_shipped.path.read_bytes()}
    label, probabilities = javascript.visit("readme.html", tmp_path, **files)
    assert_readme_row(iris_shipped, label, probabilities.split(","))


@pytest.mark.parametrize("shape", [(20, 24, 3), (20, 24)])
def test_javascript_of_a_card_decodes_photos_as_predict_does(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = certified.images(tmp_path / "hand.onnx", shape, tuple("abcd"), resized=True)
    files = photographed.kinds(tmp_path / "kinds")
    code = code_snippets.javascript(certificate.read(model)[0], "hand.onnx", 0).split("const row =")[0]
    names = json.dumps([f"{number}.photo" for number in range(len(files))])
    code += f"""
    const found = [];
    for (const name of {names}) {{
      const x = await pixels(name);
      const {{ label }} = await session.run({{ image: new Tensor("uint8", x, [1, {", ".join(map(str, shape))}]) }});
      found.push([Number(label.data[0]), ...x]);
    }}
    const refused = await pixels("deep.photo").catch((error) => error.message);
    console.log(...[...found, refused].map((one) => JSON.stringify(one)));
    """
    deep = photographed.save(tmp_path / "deep.png", np.full((8, 8), 999, np.uint16))
    photos = {f"{number}_photo": file.read_bytes() for number, file in enumerate(files)}
    photos["deep_photo"] = deep.read_bytes()
    *answers, refused = javascript.visit(
        "readme.html", tmp_path, readme_mjs=code.encode(), hand_onnx=model.read_bytes(), **photos
    )
    assert "expected a PNG file of eight bits" in refused
    x = np.stack([image_file.read_resized(file, shape) for file in files])
    labels, _ = onnxruntime.InferenceSession(model).run(None, {"image": x})
    for file, answer, label, expected in zip(files, map(json.loads, answers), labels, x, strict=True):
        assert np.abs(np.array(answer[1:]) - expected.ravel()).max() <= 3, file.name
        assert answer[0] == label, file.name


def test_verify_commands_in_the_readme_work_as_written(iris_shipped: Shipped, tmp_path: Path) -> None:
    shutil.copy(iris_shipped.path, tmp_path / "iris.onnx")
    output = run(["bash", "-ec", snippet("sh", "hallmark verify")], tmp_path)
    assert [line.split() for line in output.splitlines() if line.startswith("verdict")] == [["verdict", "holds"]] * 2
    assert f"{iris_shipped.name} version 1" in output


def test_readme_names_all_metadata() -> None:
    for name in (*(field.name for field in fields(Certificate)), "digest"):
        assert f"`hallmark.{name}`" in section()
