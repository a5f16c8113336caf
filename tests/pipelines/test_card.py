"""The card that every run writes: escaped, self-contained, and in agreement with the trained model."""

import base64
import csv
import io
import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from sklearn.metrics import precision_score, recall_score

from hallmark.flows.experiments import options, presets
from hallmark.flows.train import train
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.records import Finding, Outcome
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation import intervals
from hallmark.tasks.ml.evaluation.metrics import METRICS
from hallmark.tasks.ml.reports import model_card
from hallmark.tasks.ml.reports.shipped_predictions import ShippedPredictions, predict_test_rows
from hallmark.tasks.runtime import settings
from hallmark.tasks.tracking.client import connect
from tests.support import browsers, interrupted, registered
from tests.support.html_pages import Parsed
from tests.support.registered import Call
from tests.system.test_consumers import MODULES, visit

WRITTEN = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)
CITIES = ("Köln", '"Bonn"', "Aa</script>", "x;{{model}}")

Trained = tuple[Experiment, Outcome]


def trained(experiment: Experiment) -> Trained:
    training = experiment.training.model_copy(update={"device": "cpu", "epochs": 30})
    changed = experiment.model_copy(update={"name": f"c{uuid.uuid4().hex[:12]}", "training": training})
    return changed, train(changed)


@pytest.fixture(scope="module")
def flowers(prefect_server: str) -> Trained:  # noqa: ARG001 - the server comes first
    return trained(presets.iris())


@pytest.fixture(scope="module")
def digits(prefect_server: str) -> Trained:  # noqa: ARG001 - as above
    return trained(presets.get("digits"))


@pytest.fixture(scope="module")
def table(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:  # noqa: ARG001 - as above
    """Return a table of text, numbers and gaps, with names that contain markup."""
    random, path = np.random.default_rng(0), tmp_path_factory.mktemp("own") / "own.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "city <b>", "it's, 1", "kind"])
        for _ in range(300):
            age, city, number = random.normal(40, 12), str(random.choice(CITIES)), random.normal()
            kind = "yes & no" if age + 10 * (city == CITIES[0]) + random.normal(0, 8) > 42 else "<no>"
            gaps = random.random(2) < 0.1
            writer.writerow(["" if gaps[0] else f"{age:.1f}", "" if gaps[1] else city, f"{number:.3f}", kind])
    return trained(options.experiment(str(path), ["--target", "kind"]))


@pytest.fixture(scope="module", params=["flowers", "digits", "table"])
def each(request: pytest.FixtureRequest) -> Trained:
    found: Trained = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def console(capsys: pytest.CaptureFixture[str]) -> Call:
    return registered.console(capsys)


def stored(outcome: Outcome, folder: Path) -> Path:
    return Path(connect().download_artifacts(outcome.run.id, "card.html", str(folder)))


def is_offline(text: str) -> bool:
    """Return whether the page loads nothing except embedded images, and runs no script."""
    parsed = Parsed(text)
    addresses = [
        value or ""
        for _, attributes in parsed.elements
        for name, value in attributes.items()
        if name in ("src", "href")
    ]
    within = all(address.startswith(("#", "data:image/png;base64,")) for address in addresses)
    return within and not re.search(r"@import|url\(", text) and not parsed.named("script")


def section(text: str, name: str) -> str:
    """Return the HTML of one section of the card."""
    return text.split(f'<section id="{name}">')[1].split("</section>")[0]


def rows(html: str) -> list[list[str]]:
    """Return the cells of all table rows."""
    found = re.findall(r"<tr[^>]*>(.*?)</tr>", html)
    return [[unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in found]


def code(text: str, caption: str) -> str:
    (found,) = re.findall(rf"<h3>{re.escape(caption)}.*?</h3>\n<pre[^>]*><code>(.*?)</code>", text, re.DOTALL)
    return unescape(str(found))


def answers(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    """Return the true classes of the test rows and the probabilities that the file predicts."""
    return np.load(outcome.dataset.folder / "test.y.npy"), predict_test_rows(outcome).probabilities


def test_every_run_writes_a_card(each: Trained, tmp_path: Path) -> None:
    experiment, outcome = each
    path = stored(outcome, tmp_path)
    tags = connect().get_run(outcome.run.id).data.tags
    assert tags["hallmark.card_sha256"] == file_digest(path)
    text = path.read_text()
    parsed = Parsed(text)
    assert is_offline(text)
    assert parsed.named("html")[0]["lang"] == "en"
    assert not parsed.named("b")
    assert text.count("<h1>") == 1
    assert experiment.name in parsed.words
    linked = [link["href"] for link in parsed.named("a") if (link["href"] or "").startswith("#")]
    assert linked == [f"#{one['id']}" for one in parsed.named("section")]
    assert len(linked) == 9
    for digest in (outcome.artifact.sha256, experiment.digest, outcome.dataset.digest):
        assert digest in parsed.words


def test_prefect_links_to_the_card(flowers: Trained) -> None:
    outcome = flowers[1]
    flow_run = connect().get_run(outcome.run.id).data.tags["hallmark.prefect_flow_run"]
    with get_client(sync_client=True) as client:
        of_run = ArtifactFilterFlowRunId(any_=[uuid.UUID(flow_run)])
        (artifact,) = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=of_run))
    assert f"| card | [card.html]({outcome.run.url}/artifacts/card.html) |" in str(artifact.data)


def test_same_outcome_gives_same_card_and_an_undated_file(each: Trained) -> None:
    experiment, outcome = each
    text = model_card.build(experiment, outcome, WRITTEN)
    assert text == model_card.build(experiment, outcome, WRITTEN)
    assert "26 November 2026" in text
    assert file_digest(outcome.artifact.path) == outcome.artifact.sha256


def test_rows_are_counted_by_class_and_split(each: Trained) -> None:
    experiment, outcome = each
    found = rows(section(model_card.build(experiment, outcome, WRITTEN), "data"))
    dataset = outcome.dataset
    for index, name in enumerate(dataset.classes):
        counts = [
            f"{(y == index).sum():,} ({(y == index).mean():.1%})"
            for split in ("train", "validation", "test")
            for y in [np.load(dataset.folder / f"{split}.y.npy")]
        ]
        assert [name, *counts] in found
    assert ["all", *(f"{count:,}" for count in dataset.rows.values())] in found
    assert {one.name for one in certificate.read(outcome.artifact.path)[0].inputs} <= {row[0] for row in found}


def test_metrics_are_the_recorded_ones_and_within_their_intervals(each: Trained) -> None:
    experiment, outcome = each
    text = model_card.build(experiment, outcome, WRITTEN)
    found = {row[0]: row[1:] for row in rows(section(text, "metrics"))}
    for name in ("accuracy", "log_loss", "loss", "f1_macro", "roc_auc_macro", "brier", "calibration_error"):
        assert float(found[name][0]) == pytest.approx(outcome.evaluation.metrics[f"test/{name}"], abs=5.1e-5)
    at_most_one = ("f1_macro", "roc_auc_macro", "roc_auc_micro")
    perfect = {name for name in at_most_one if outcome.evaluation.metrics[f"test/{name}"] == pytest.approx(1, abs=1e-9)}
    for name in {metric.name for metric in METRICS} & found.keys() - perfect - {"loss"}:
        low, high = map(float, found[name][1].split(" to "))
        assert low < high
        assert low - 1e-4 <= float(found[name][0]) <= high + 1e-4
    assert all(found[name][1] == "" for name in perfect | {"loss"})
    assert "Metrics that resampling does not change have no interval" in section(text, "metrics")


def test_card_names_metrics_that_are_too_large_to_resample(table: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "LARGEST", 10)
    text = section(model_card.build(*table, WRITTEN), "metrics")
    found = {row[0]: row[2] for row in rows(text)}
    assert found["f1_macro"] == found["roc_auc_macro"] == found["calibration_error"] == ""
    assert " to " in found["accuracy"]
    resampled = "f1_macro, roc_auc_micro, roc_auc_macro, calibration_error"
    assert f"There are too many rows and classes to resample {resampled}." in text


def test_class_metrics_and_confusions_agree_with_the_file(each: Trained) -> None:
    experiment, outcome = each
    y, probabilities = answers(outcome)
    label, classes = probabilities.argmax(axis=1), outcome.dataset.classes
    confusion = [
        [f"{((y == true) & (label == predicted)).sum():,}" for predicted in range(len(classes))]
        for true in range(len(classes))
    ]
    found = rows(section(model_card.build(experiment, outcome, WRITTEN), "classes"))
    assert found[-len(classes) :] == [[name, *counts] for name, counts in zip(classes, confusion, strict=True)]
    for index, name in enumerate(classes):
        row = next(row for row in found if row[0] == name)
        assert int(row[1]) == (y == index).sum()
        for column, measure in ((2, precision_score), (4, recall_score)):
            value = measure(y == index, label == index)
            assert float(row[column]) == pytest.approx(value, abs=5.1e-5)
            low, high = map(float, row[column + 1].split(" to "))
            assert low - 1e-4 <= value <= high + 1e-4


def test_most_confident_mistakes_are_shown(table: Trained, digits: Trained) -> None:
    for experiment, outcome in (table, digits):
        y, probabilities = answers(outcome)
        label, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
        wrong = np.flatnonzero(label != y)
        expected = wrong[np.argsort(-sure[wrong], kind="stable")][: model_card.MISTAKES]
        text = section(model_card.build(experiment, outcome, WRITTEN), "mistakes")
        assert len(expected) > 2
        if outcome.dataset.columns:
            numbers = [int(row[0]) - 1 for row in rows(text)[1:]]
        else:
            numbers = [int(row) - 1 for row in re.findall(r'alt="test row (\d+):', text)]
            pictures = re.findall(r'src="data:image/png;base64,([^"]*)"', text)
            x = np.load(outcome.dataset.folder / "test.x.npy")
            drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[0]))))
            assert drawn == pytest.approx(x[numbers[0]] * (255 / 16), abs=1)
        assert numbers == expected.tolist()


def test_findings_are_listed(flowers: Trained) -> None:
    experiment, outcome = flowers
    finding = Finding("a_code", "something <b>else</b> is wrong", "--training.lr 0.1")
    text = model_card.build(experiment, replace(outcome, findings=(finding,)), WRITTEN)
    words = " ".join(Parsed(section(text, "diagnosis")).words)
    assert all(part in words for part in (finding.code, finding.sentence, finding.remedy))
    assert "No problems were found." in model_card.build(experiment, replace(outcome, findings=()), WRITTEN)


def test_proof_is_summarised(each: Trained) -> None:
    experiment, outcome = each
    proof, text = outcome.proof, section(model_card.build(experiment, outcome, WRITTEN), "proof")
    for part in (f"{proof.rows:,}", f"{proof.rows_made:,}", f"{proof.largest_error:.1e}", *proof.ways):
        assert part in unescape(text)


def use(each: Trained, folder: Path) -> tuple[str, str, str, list[float]]:
    """Write the shipped file and the example into a folder; return the card, and the expected prediction."""
    experiment, outcome = each
    text, file = model_card.build(experiment, outcome, WRITTEN), outcome.artifact.path.name
    shutil.copy(outcome.artifact.path, folder / file)
    golden = certificate.read(outcome.artifact.path)[0].golden
    example = folder / ("row.csv" if outcome.dataset.columns else f"{experiment.name}.png")
    if outcome.dataset.columns:
        example.write_text(code(text, "row.csv"))
    else:
        (address,) = re.findall(rf'download="{example.name}" href="data:image/png;base64,([^"]*)"', text)
        example.write_bytes(base64.b64decode(address))
    return text, example.name, outcome.dataset.classes[golden.label[0]], golden.probabilities[0]


def test_python_example_runs(each: Trained, python: Callable[..., str], tmp_path: Path) -> None:
    text, _, expected, probabilities = use(each, tmp_path)
    output = python(code(text, "Python"), cwd=tmp_path)
    assert output.startswith(f"{expected} [")
    numbers = [float(number) for number in output[len(expected) :].strip(" []\n").split()]
    assert numbers == pytest.approx(probabilities, abs=1e-5)


def test_command_line_examples_run(
    each: Trained, console: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, _, expected, probabilities = use(each, tmp_path)
    monkeypatch.chdir(tmp_path)
    lines = [line.split("  #")[0].split() for line in code(text, "Command line").splitlines()]
    assert [line[:2] for line in lines[:3]] == [
        ["hallmark", "predict"],
        ["hallmark", "predict"],
        ["hallmark", "verify"],
    ]
    for line in lines[:2]:
        status, out, _ = console(*line[1:], "--format", "jsonl")
        found = json.loads(out)
        assert (status, found["class"]) == (0, expected)
        predicted = [value for name, value in found.items() if name.startswith("p_")]
        assert predicted == pytest.approx(probabilities, abs=1e-5)
    assert console(*lines[2][1:])[0] == 0
    done = subprocess.run(lines[3], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == each[1].artifact.sha256 == code(text, "Command line").split()[-1]


@pytest.mark.parametrize("each", ["flowers", "table"], indirect=True)
def test_javascript_example_runs_in_node(each: Trained, tmp_path: Path) -> None:
    if not (MODULES / "onnxruntime-node").is_dir():
        browsers.missing("onnxruntime-node is not installed")
    node = shutil.which("node") or browsers.missing("there is no Node.js")
    text, _, expected, probabilities = use(each, tmp_path)
    (tmp_path / "card.mjs").write_text(code(text, "JavaScript"))
    (tmp_path / "node_modules").symlink_to(MODULES)
    done = subprocess.run([node, "card.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{expected} Float32Array")
    numbers = re.findall(r"[\d.]+(?:e-\d+)?", done.stdout.split("[", 1)[1])
    assert [float(number) for number in numbers] == pytest.approx(probabilities, abs=1e-5)


def test_javascript_example_for_images_runs_in_a_browser(digits: Trained, tmp_path: Path) -> None:
    if not (MODULES / "onnxruntime-web").is_dir():
        browsers.missing("onnxruntime-web is not installed")
    text, example, expected, probabilities = use(digits, tmp_path)
    names = {digits[1].artifact.path.name: "model.onnx", example: "example.png"}
    program = re.sub("|".join(names), lambda found: names[found[0]], code(text, "JavaScript"))
    files = {
        "readme_mjs": program.encode(),
        "model_onnx": digits[1].artifact.path.read_bytes(),
        "example_png": (tmp_path / example).read_bytes(),
    }
    label, printed = visit(browsers.executable(), "readme.html", tmp_path, **files)
    assert label == expected
    assert [float(number) for number in printed.split(",")] == pytest.approx(probabilities, abs=1e-5)


def test_many_classes_have_a_list_of_frequent_confusions(flowers: Trained) -> None:
    classes = tuple(f"class {index}" for index in range(model_card.MOST_CLASSES + 1))
    changed = replace(certificate.read(flowers[1].artifact.path)[0], classes=classes)
    y, label = np.arange(60) % len(classes), np.arange(60) % len(classes)
    label[[0, 26, 52]], label[1] = 5, 2  # class 0 three times for 5, class 1 once for 2
    predictions = ShippedPredictions(changed, {}, y, label, np.eye(len(classes))[label])
    assert predictions.confusion().sum() == 60
    found = model_card._classes(predictions.confusion(), classes)
    assert found["frequent_confusions"] == [("class 0", "class 5", "3"), ("class 1", "class 2", "1")]


def test_run_killed_before_its_card_writes_it_when_resumed(
    prefect_server: str,  # noqa: ARG001 - the server comes first
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    experiment = interrupted.named(epochs=3)
    with monkeypatch.context() as patch:
        patch.setattr(model_card, "build", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(experiment)
    (left,) = interrupted.runs(experiment.name)
    assert "hallmark.card_sha256" not in left.data.tags
    outcome = train(experiment)
    assert outcome.run.id == left.info.run_id
    assert outcome.model_version.version == 1
    assert outcome.artifact.sha256 in stored(outcome, tmp_path).read_text()


# The command


def test_command_accepts_every_kind_of_reference(
    flowers: Trained, console: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, outcome = flowers
    expected = stored(outcome, tmp_path).read_bytes()
    monkeypatch.chdir(tmp_path)
    for number, reference in enumerate((outcome.run.id[:12], experiment.name, f"{experiment.name}@champion")):
        code, out, error = console("card", reference, "--output", f"{number}.html")
        assert (code, error) == (0, "")
        assert out.split() == ["card", f"{number}.html"]
        assert Path(f"{number}.html").read_bytes() == expected
    code, out, _ = console("card", experiment.name, "--json")
    path = tmp_path / f"{experiment.name}.card.html"
    assert json.loads(out) == {"status": "written", "run_id": outcome.run.id, "card": str(path), "live": None}
    assert path.read_bytes() == expected
    assert console("card", experiment.name)[0] == 2
    assert console("card", experiment.name, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["no-such@champion"], "there is no registered model 'no-such'"),
        (["no-such"], "there is no run 'no-such'"),
        (["BARE"], "has no card: only a run that shipped a file has one"),
        (["NAME", "--output", "FOLDER"], "is not a regular file: choose another name"),
        (["NAME", "--output", "FOLDER/none/card.html"], "there is no folder"),
        (
            ["NAME", "--live", "FOLDER/live"],
            "an image, but NAME.onnx takes columns: sepal_length",
        ),
        (["NAME", "--live", "FOLDER/none/live"], "--live: expected a model whose input is an image"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(
    flowers: Trained, console: Call, tmp_path: Path, tokens: list[str], message: str
) -> None:
    experiment, outcome = flowers
    client = connect()
    tags = {"hallmark.experiment_digest": "0" * 64, "hallmark.name": "bare"}
    made = client.create_run(client.get_run(outcome.run.id).info.experiment_id, tags=tags).info.run_id
    meant = {"NAME": experiment.name, "FOLDER": str(tmp_path), "BARE": made}

    def typed(text: str) -> str:
        return re.sub("|".join(meant), lambda found: meant[found[0]], text)

    output = [] if "--output" in tokens else ["--output", str(tmp_path / "card.html")]
    code, out, error = console("card", *map(typed, tokens), *output)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert typed(message) in error
    assert not list(tmp_path.iterdir())
    code, out, _ = console("card", *map(typed, tokens), *output, "--json")
    assert (code, json.loads(out)["status"]) == (2, "refused")


def test_changed_card_is_refused(flowers: Trained, console: Call, tmp_path: Path) -> None:
    outcome, client = flowers[1], connect()
    expected = client.get_run(outcome.run.id).data.tags["hallmark.card_sha256"]
    client.set_tag(outcome.run.id, "hallmark.card_sha256", "0" * 64)
    try:
        code, _, error = console("card", outcome.run.id, "--output", str(tmp_path / "card.html"))
    finally:
        client.set_tag(outcome.run.id, "hallmark.card_sha256", expected)
    assert (code, error.count("\n")) == (1, 1)
    assert "expected sha256 000000000000" in error
    assert not list(tmp_path.iterdir())


def test_command_imports_neither_torch_nor_prefect_nor_jinja(
    flowers: Trained, python: Callable[..., str], tmp_path: Path
) -> None:
    program = (
        "import sys; from hallmark.flows.__main__ import run; assert run(['card', *sys.argv[1:]]) == 0\n"
        "print(sorted({'torch', 'prefect', 'sklearn', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    )
    assert settings.read().home.is_dir()
    output = python(program, flowers[1].run.id, "--output", tmp_path / "card.html")
    assert output.splitlines()[-1] == "[]"
