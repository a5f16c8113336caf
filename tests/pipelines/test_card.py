"""The card that every run writes: escaped, self-contained, and in agreement with the trained model."""

import base64
import io
import re
import uuid
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from sklearn.metrics import precision_score, recall_score

from hallmark.flows.train import train
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.records import Finding
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.evaluation import intervals
from hallmark.tasks.ml.evaluation.metrics import METRICS
from hallmark.tasks.ml.reports import model_card
from hallmark.tasks.ml.reports.shipped_predictions import ShippedPredictions, predict_test_rows
from hallmark.tasks.tracking.client import connect
from tests.support import interrupted
from tests.support.cards import WRITTEN_AT, Trained, download_card
from tests.support.html_pages import Parsed


def is_offline(text: str) -> bool:
    """Return whether the page loads nothing except embedded images, and runs no script."""
    parsed = Parsed(text)
    addresses = [
        value or ""
        for _, attributes in parsed.elements
        for name, value in attributes.items()
        if name in ("src", "href")
    ]
    are_embedded = all(address.startswith(("#", "data:image/png;base64,")) for address in addresses)
    return are_embedded and not re.search(r"@import|url\(", text) and not parsed.named("script")


def section(text: str, name: str) -> str:
    """Return the HTML of one section of the card."""
    return text.split(f'<section id="{name}">')[1].split("</section>")[0]


def rows(html: str) -> list[list[str]]:
    """Return the cells of all table rows."""
    found = re.findall(r"<tr[^>]*>(.*?)</tr>", html)
    return [[unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in found]


def answers(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    """Return the true classes of the test rows and the probabilities that the file predicts."""
    return np.load(outcome.dataset.folder / "test.y.npy"), predict_test_rows(outcome).probabilities


def test_every_run_writes_a_card(each: Trained, tmp_path: Path) -> None:
    experiment, outcome = each
    path = download_card(outcome, tmp_path)
    tags = connect().get_run(outcome.run.id).data.tags
    assert tags["hallmark.card_sha256"] == file_digest(path)
    text = path.read_text()
    parsed = Parsed(text)
    assert is_offline(text)
    assert parsed.named("html")[0]["lang"] == "en"
    assert not parsed.named("b")
    assert text.count("<h1>") == 1
    assert experiment.name in parsed.texts
    linked = [link["href"] for link in parsed.named("a") if (link["href"] or "").startswith("#")]
    assert linked == [f"#{one['id']}" for one in parsed.named("section")]
    assert len(linked) == 9
    for digest in (outcome.artifact.sha256, experiment.digest, outcome.dataset.digest):
        assert digest in parsed.texts


def test_prefect_links_to_the_card(flowers: Trained) -> None:
    outcome = flowers[1]
    flow_run = connect().get_run(outcome.run.id).data.tags["hallmark.prefect_flow_run"]
    with get_client(sync_client=True) as client:
        run_filter = ArtifactFilterFlowRunId(any_=[uuid.UUID(flow_run)])
        (artifact,) = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run_filter))
    assert f"| card | [card.html]({outcome.run.url}/artifacts/card.html) |" in str(artifact.data)


def test_same_outcome_gives_same_card_and_leaves_the_file_unchanged(each: Trained) -> None:
    experiment, outcome = each
    text = model_card.build(experiment, outcome, WRITTEN_AT)
    assert text == model_card.build(experiment, outcome, WRITTEN_AT)
    assert "26 November 2026" in text
    assert file_digest(outcome.artifact.path) == outcome.artifact.sha256


def test_rows_are_counted_by_class_and_split(each: Trained) -> None:
    experiment, outcome = each
    found = rows(section(model_card.build(experiment, outcome, WRITTEN_AT), "data"))
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
    text = model_card.build(experiment, outcome, WRITTEN_AT)
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
    text = section(model_card.build(*table, WRITTEN_AT), "metrics")
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
    found = rows(section(model_card.build(experiment, outcome, WRITTEN_AT), "classes"))
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
        label, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
        wrong = np.flatnonzero(label != y)
        expected = wrong[np.argsort(-confidence[wrong], kind="stable")][: model_card.MISTAKES]
        text = section(model_card.build(experiment, outcome, WRITTEN_AT), "mistakes")
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
    text = model_card.build(experiment, replace(outcome, findings=(finding,)), WRITTEN_AT)
    words = " ".join(Parsed(section(text, "diagnosis")).texts)
    assert all(part in words for part in (finding.code, finding.sentence, finding.remedy))
    assert "No problems were found." in model_card.build(experiment, replace(outcome, findings=()), WRITTEN_AT)


def test_proof_is_summarised(each: Trained) -> None:
    experiment, outcome = each
    proof, text = outcome.proof, section(model_card.build(experiment, outcome, WRITTEN_AT), "proof")
    for part in (f"{proof.rows:,}", f"{proof.rows_made:,}", f"{proof.largest_error:.1e}", *proof.ways):
        assert part in unescape(text)


def test_many_classes_have_a_list_of_frequent_confusions(flowers: Trained) -> None:
    classes = tuple(f"class {index}" for index in range(model_card.MAX_CLASSES + 1))
    changed = replace(certificate.read(flowers[1].artifact.path)[0], classes=classes)
    y, label = np.arange(60) % len(classes), np.arange(60) % len(classes)
    label[[0, 26, 52]], label[1] = 5, 2  # class 0 is predicted as 5 three times, class 1 as 2 once
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

    experiment = interrupted.iris_experiment(epochs=3)
    with monkeypatch.context() as patch:
        patch.setattr(model_card, "build", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(experiment)
    (left,) = interrupted.runs(experiment.name)
    assert "hallmark.card_sha256" not in left.data.tags
    outcome = train(experiment)
    assert outcome.run.id == left.info.run_id
    assert outcome.model_version.version == 1
    assert outcome.artifact.sha256 in download_card(outcome, tmp_path).read_text()
