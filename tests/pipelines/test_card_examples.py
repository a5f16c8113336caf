"""The examples on a card run as written: in Python, in a shell, in Node.js and in a browser."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.reports import model_card
from tests.support import javascript
from tests.support.cards import WRITTEN_AT, Trained
from tests.support.consoles import Call


def code(text: str, caption: str) -> str:
    (found,) = re.findall(rf"<h3>{re.escape(caption)}.*?</h3>\n<pre[^>]*><code>(.*?)</code>", text, re.DOTALL)
    return unescape(str(found))


def use(each: Trained, folder: Path) -> tuple[str, str, str, list[float]]:
    """Write the shipped file and the example into a folder; return the card, and the expected prediction."""
    experiment, outcome = each
    text, file = model_card.build(experiment, outcome, WRITTEN_AT), outcome.artifact.path.name
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
    node = javascript.node()
    text, _, expected, probabilities = use(each, tmp_path)
    (tmp_path / "card.mjs").write_text(code(text, "JavaScript"))
    (tmp_path / "node_modules").symlink_to(javascript.MODULES)
    done = subprocess.run([node, "card.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{expected} Float32Array")
    numbers = re.findall(r"[\d.]+(?:e-\d+)?", done.stdout.split("[", 1)[1])
    assert [float(number) for number in numbers] == pytest.approx(probabilities, abs=1e-5)


def test_javascript_example_for_images_runs_in_a_browser(digits: Trained, tmp_path: Path) -> None:
    text, example, expected, probabilities = use(digits, tmp_path)
    names = {digits[1].artifact.path.name: "model.onnx", example: "example.png"}
    program = re.sub("|".join(names), lambda found: names[found[0]], code(text, "JavaScript"))
    files = {
        "readme_mjs": program.encode(),
        "model_onnx": digits[1].artifact.path.read_bytes(),
        "example_png": (tmp_path / example).read_bytes(),
    }
    label, printed = javascript.visit("readme.html", tmp_path, **files)
    assert label == expected
    assert [float(number) for number in printed.split(",")] == pytest.approx(probabilities, abs=1e-5)
