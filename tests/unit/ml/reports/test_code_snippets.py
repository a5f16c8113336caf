"""The code examples of the card: the Python programs run, and names of any kind are quoted."""

import base64
import json
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.data.images import image_file
from hallmark.tasks.ml.reports import code_snippets, model_card
from tests.support import certified, photographed

HOSTILE = ('it\'s "x"', "</script>\n\\", "{{ 7 * 7 }} Köln")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: certified.columns(path, classes=HOSTILE),
        lambda path: certified.columns(path, names=HOSTILE),
        lambda path: certified.images(path, (6, 5), HOSTILE[:2]),
        lambda path: certified.images(path, (6, 5, 3), resized=True),
    ],
)
def test_python_example_predicts_the_golden_row(
    make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed, _ = certificate.read(make(tmp_path / "hand.onnx"))
    if code_snippets.takes_images(sealed):
        picture = base64.b64decode(model_card.png(sealed.golden.inputs["image"][1]))
        (tmp_path / code_snippets.picture_name("hand.onnx")).write_bytes(picture)
    (tmp_path / "example.py").write_text(code_snippets.python(sealed, "hand.onnx", 1))
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path("example.py")
    assert found["label"].tolist() == [sealed.golden.label[1]]
    assert found["probabilities"][0] == pytest.approx(sealed.golden.probabilities[1], abs=1e-5)
    assert capsys.readouterr().out.startswith(f"{sealed.classes[sealed.golden.label[1]]} [")


@pytest.mark.parametrize(
    ("shape", "bits", "background"), [((6, 5, 3), 12, "white"), ((6, 5), 16, "black"), ((6, 5), 0, "white")]
)
def test_python_example_decodes_or_refuses_any_picture_as_predict_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], bits: int, background: str
) -> None:
    files = [*photographed.kinds(tmp_path / "kinds"), *photographed.deep_kinds(tmp_path / "deep")]
    files.append(tmp_path / "cmyk.tiff")
    Image.fromarray(photographed.smooth(1, 9)).convert("CMYK").save(files[-1])
    sealed, _ = certificate.read(certified.images(tmp_path / "hand.onnx", shape, resized=True))
    on_black = background == "black"
    image = replace(sealed.inputs[0], bits=bits, on_black=on_black)
    text = code_snippets.python(replace(sealed, inputs=(image,)), "hand.onnx", 0)
    monkeypatch.chdir(tmp_path)
    for file in files:
        (tmp_path / "example.py").write_text(text.replace("'hand.png'", repr(str(file))))
        try:
            expected = image_file.read_resized(file, shape, bits, on_black=on_black)
        except InputError:
            with pytest.raises(AssertionError):
                runpy.run_path("example.py")
            continue
        np.testing.assert_array_equal(runpy.run_path("example.py")["image"], expected, file.name)


def test_python_example_of_one_size_refuses_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed, _ = certificate.read(certified.images(tmp_path / "hand.onnx", (6, 5)))
    photographed.save(tmp_path / "hand.png", np.zeros((7, 5), np.uint8))
    (tmp_path / "example.py").write_text(code_snippets.python(sealed, "hand.onnx", 0))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError):
        runpy.run_path("example.py")


def test_javascript_example_quotes_names(tmp_path: Path) -> None:
    sealed, _ = certificate.read(certified.columns(tmp_path / "hand.onnx", names=HOSTILE, classes=HOSTILE))
    text = code_snippets.javascript(sealed, "hand.onnx", 0)
    assert f"const classes = {json.dumps(HOSTILE, ensure_ascii=False)};" in text
    for name in HOSTILE:
        assert f'  {json.dumps(name, ensure_ascii=False)}: new Tensor("float32", [' in text


def test_csv_example_has_one_row(tmp_path: Path) -> None:
    sealed, _ = certificate.read(certified.columns(tmp_path / "hand.onnx"))
    head, row = code_snippets.table(sealed, 0).splitlines()
    assert head.split(",") == [one.name for one in sealed.inputs]
    assert [float(cell) for cell in row.split(",")] == list(code_snippets.row_values(sealed, 0).values())
