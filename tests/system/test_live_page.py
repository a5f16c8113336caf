"""The live page in a real Chromium: its predictions agree with those of `hallmark predict`."""

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from hallmark.flows.experiments import presets
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.data.images import image_file
from hallmark.tasks.ml.reports.live_page import live_folder
from tests.support import browsers, certified, http_servers, photographed, registered
from tests.support.consoles import Call

Points = list[tuple[float, float]]

THREE: Points = [(0.3, 0.25), (0.45, 0.18), (0.6, 0.25), (0.6, 0.4), (0.5, 0.48), (0.64, 0.6), (0.5, 0.85), (0.3, 0.8)]
ONE: Points = [(0.25, 0.15), (0.2, 0.55)]
"""Strokes: points of the drawing area in relative coordinates."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http_servers.running(ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))) as http:
        yield f"http://127.0.0.1:{http.server_port}"


def ready(page: Page, address: str) -> None:
    page.goto(address)
    page.locator("#answer", has_text=re.compile("^(Draw, or choose|Choose) a picture")).wait_for()


def draw(page: Page, points: Points) -> None:
    box = page.locator("#board").bounding_box()
    assert box
    (x, y), *rest = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(x, y)
    page.mouse.down()
    for point in rest:
        page.mouse.move(*point, steps=5)
    page.mouse.up()


def prediction(page: Page) -> tuple[str, list[float]]:
    """Return label and probabilities once the page is idle."""
    page.locator(".says[aria-busy=false]").wait_for()
    best = page.locator("#table .best th").inner_text()
    assert page.locator("#answer").inner_text().startswith(f"{best}, ")
    values = page.locator("#table data").evaluate_all("items => items.map(item => item.value)")
    return best, [float(value) for value in values]


def saved(page: Page, folder: Path) -> Path:
    """Save the picture that is the input of the model."""
    with page.expect_download() as download:
        page.locator("#save").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def predicted(console: Call, onnx: Path, picture: Path) -> tuple[str, list[float]]:
    """Return the prediction of `hallmark predict`."""
    code, out, error = console("predict", str(onnx), str(picture), "--format", "csv")
    assert code == 0, error
    (row,) = csv.DictReader(io.StringIO(out))
    return row["class"], [float(value) for name, value in row.items() if name.startswith("p_")]


def assert_agree(found: tuple[str, list[float]], expected: tuple[str, list[float]]) -> None:
    assert found[0] == expected[0]
    assert found[1] == pytest.approx(expected[1], abs=1e-5)


def area_means(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the mean over each area of a picture whose sides are multiples of the model's."""
    rows, columns = x.shape[0] // shape[0], x.shape[1] // shape[1]
    split = x.reshape(shape[0], rows, shape[1], columns, *x.shape[2:]).astype(np.float64)
    return np.floor(split.mean(axis=(1, 3)) + 0.5)


@pytest.mark.parametrize("way", ["file", "http"])
def test_drawn_digit_agrees_with_predict(
    digits: Outcome, console: Call, runtime: Path, tmp_path: Path, way: str
) -> None:
    assert runtime.is_dir()
    folder = tmp_path / "live"
    code, out, error = console("card", digits.run.id, "--live", str(folder))
    assert (code, error) == (0, "")
    assert out.split() == ["live", str(folder / "index.html")]
    with served(folder) as address, browsers.open_page(tmp_path) as page:
        ready(page, f"{address}/" if way == "http" else (folder / "index.html").as_uri())
        assert "verified by this page" in (page.locator("#checked").text_content() or "")
        draw(page, THREE)
        found, picture = prediction(page), saved(page, tmp_path)
    with Image.open(picture) as image:
        assert (image.mode, image.size) == ("L", (8, 8))
        assert 8 < np.asarray(image).max() <= 16
    assert found[0] == "3"
    assert_agree(found, predicted(console, digits.artifact.path, picture))


@pytest.mark.skipif("HALLMARK_MIRROR" not in os.environ, reason="HALLMARK_MIRROR is not set: there is no real MNIST")
def test_mnist_digit_is_recognised_at_any_place(
    prefect_server: str,  # noqa: ARG001 - the server comes first
    console: Call,
    runtime: Path,
    tmp_path: Path,
) -> None:
    experiment = presets.get("mnist_cnn")
    short = experiment.model_copy(update={"training": experiment.training.model_copy(update={"epochs": 1})})
    outcome, folder = registered.train_on_cpu(short), tmp_path / "live"
    live_folder.write(outcome.artifact.path, b"card", "", runtime, folder)
    small: Points = [(x * 0.4, 0.05 + y * 0.4) for x, y in THREE]
    predictions = []
    with browsers.open_page(tmp_path) as page:
        ready(page, (folder / "index.html").as_uri())
        for points, label in ((THREE, "3"), (small, "3"), (ONE, "1")):
            draw(page, points)
            found, picture = prediction(page), saved(page, tmp_path)
            renamed = picture.rename(tmp_path / f"{len(predictions)}.png")
            predictions.append((found, renamed))
            assert found[0] == label
            page.get_by_role("button", name="Clear").click()
    for found, picture in predictions:
        x = np.asarray(Image.open(picture))
        rows, columns = np.flatnonzero(x.any(axis=1)), np.flatnonzero(x.any(axis=0))
        assert abs(max(np.ptp(rows), np.ptp(columns)) + 1 - 20) <= 1  # as in MNIST
        assert_agree(found, predicted(console, outcome.artifact.path, picture))


def test_unplaced_drawing_is_averaged_over_areas(write_live: Callable[..., Path], tmp_path: Path) -> None:
    with browsers.open_page(tmp_path) as page:
        ready(page, write_live((20, 20)).as_uri())
        page.get_by_label("Scale and move it").uncheck()
        draw(page, [(0.5, 0.25), (0.5, 0.25)])
        prediction(page)
        x = np.asarray(Image.open(saved(page, tmp_path)))
    quarter = np.pi * (0.04 * 20) ** 2 / 4  # of a dot whose centre is the corner of four pixels
    ink = np.abs(x - np.median(x))
    assert np.argwhere(ink).tolist() == [[4, 9], [4, 10], [5, 9], [5, 10]]
    assert ink[ink > 0] == pytest.approx(certified.HIGHEST * quarter, abs=0.7)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
@pytest.mark.parametrize("times", [1, 3])
def test_picture_is_used_unchanged_or_averaged(
    write_live: Callable[..., Path], console: Call, tmp_path: Path, shape: tuple[int, ...], times: int
) -> None:
    original = (
        np.random.default_rng(0).integers(0, 9, (shape[0] * times, shape[1] * times, *shape[2:])).astype(np.uint8)
    )
    path = tmp_path / "given.png"
    Image.fromarray(original).save(path)
    with browsers.open_page(tmp_path) as page:
        ready(page, write_live(shape).as_uri())
        assert page.locator("#drawing").is_visible() == (len(shape) == 2)
        page.get_by_label("Choose a file").set_input_files(path)
        found, picture = prediction(page), saved(page, tmp_path)
        origin = page.locator("#origin").text_content()
    expected = "used unchanged" if times == 1 else "resized from 15 x 18"
    assert expected in (origin or "")
    x = np.asarray(Image.open(picture))
    assert (x == area_means(original, shape)).all()
    assert found[1] == pytest.approx(certified.expected(x.reshape(1, -1), 2)[0], abs=1e-5)
    if len(shape) == 2:
        assert_agree(found, predicted(console, tmp_path / "hand.onnx", picture))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
@pytest.mark.parametrize("size", [(20, 33), (13, 3), (6, 5)])
def test_picture_is_resized_as_predict_does(
    write_live: Callable[..., Path], console: Call, tmp_path: Path, shape: tuple[int, ...], size: tuple[int, int]
) -> None:
    """The photo is lighter than all training images, as those of a dark training set: it is not made darker."""
    path = tmp_path / "given.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)
    with browsers.open_page(tmp_path) as page:
        ready(page, write_live(shape, resized=True).as_uri())
        page.get_by_label("Choose a file").set_input_files(path)
        found, picture = prediction(page), saved(page, tmp_path)
    x, expected = np.asarray(Image.open(picture)).astype(int), image_file.read_resized(path, shape)
    # Which side Pillow resizes first depends on its version, and it rounds between the two passes.
    assert np.abs(x - expected).max() <= 1
    for file in (picture, path) if (x == expected).all() else (picture,):
        assert_agree(found, predicted(console, tmp_path / "hand.onnx", file))


def test_picture_is_converted_to_grey_as_in_pillow_and_inverted(
    write_live: Callable[..., Path], tmp_path: Path
) -> None:
    original = np.random.default_rng(0).integers(0, 9, (6, 5, 3)).astype(np.uint8)
    path = tmp_path / "given.png"
    Image.fromarray(original).save(path)
    grey = np.asarray(Image.open(path).convert("L"))
    with browsers.open_page(tmp_path) as page:
        ready(page, write_live((6, 5)).as_uri())
        page.get_by_label("Choose a file").set_input_files(path)
        prediction(page)
        assert (np.asarray(Image.open(saved(page, tmp_path))) == grey).all()
        assert "converted to grey" in (page.locator("#origin").text_content() or "")
        page.get_by_label("Invert light and dark").check()
        prediction(page)
        assert (np.asarray(Image.open(saved(page, tmp_path))) == certified.HIGHEST - grey).all()


def test_page_works_with_the_keyboard(write_live: Callable[..., Path], tmp_path: Path) -> None:
    page_file = write_live((4, 4))
    with browsers.open_page(tmp_path) as page:
        ready(page, page_file.as_uri())
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "board"
        page.keyboard.press("ArrowRight")
        assert page.locator("#table").is_hidden()  # the pen is up
        page.keyboard.press("Space")
        for _ in range(5):
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Space")
        prediction(page)
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Delete")
        page.locator("#answer", has_text="Draw, or choose a picture.").wait_for()
        reached = []
        for _ in range(5):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id"))
        assert reached[:4] == ["clear", "placed", "file", "inverted"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible(write_live: Callable[..., Path], tmp_path: Path, scheme: str) -> None:
    with browsers.open_page(tmp_path, size=(360, 800), color_scheme=scheme) as page:
        ready(page, write_live((4, 4)).as_uri())
        draw(page, ONE)
        prediction(page)
        answer = page.get_by_role("status")
        assert answer.get_attribute("aria-live") == "polite"
        for name in ("Drawing area", "Scale and move it", "Choose a file", "Invert light and dark"):
            assert page.get_by_label(name).count() == 1
        assert page.get_by_role("button", name="Clear").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for selector in ("#answer", "#save", ".remark >> nth=0", ".best th", "footer a >> nth=0"):
            assert contrast(page, selector) >= 4.5


def contrast(page: Page, selector: str) -> float:
    """Return the WCAG 2 contrast ratio of a text and the page. The opacity of the text is applied."""
    text, background, opacity = page.locator(selector).evaluate(
        """element => {
            const canvas = document.createElement("canvas").getContext("2d");
            const colour = (name) => {
                canvas.fillStyle = name;
                canvas.fillRect(0, 0, 1, 1);
                return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
            };
            const style = getComputedStyle(element);
            return [colour(style.color), colour("Canvas"), Number(style.opacity)];
        }"""
    )
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    background = [18, 18, 18] if dark else background
    mixed = [opacity * t + (1 - opacity) * b for t, b in zip(text, background, strict=True)]
    lighter, darker = sorted((luminance(mixed), luminance(background)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: list[float]) -> float:
    parts = [c / 255 / 12.92 if c / 255 <= 0.03928 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_file_that_is_not_a_picture_is_reported(write_live: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    with browsers.open_page(tmp_path) as page:
        ready(page, write_live((4, 4)).as_uri())
        page.get_by_label("Choose a file").set_input_files(tmp_path / "notes.png")
        page.locator("#answer", has_text="notes.png: this browser cannot read it as a picture.").wait_for()
        deep = photographed.save(tmp_path / "deep.png", np.full((8, 8), 999, np.uint16))
        page.get_by_label("Choose a file").set_input_files(deep)
        page.locator("#answer", has_text="deep.png: it has more than eight bits: convert it").wait_for()
        assert page.locator("#table").is_hidden()
        draw(page, ONE)
        prediction(page)


def test_hostile_class_names_are_shown_literally(write_live: Callable[..., Path], tmp_path: Path) -> None:
    names = ("</script><b>", "{{model}} & <!-- x")
    with browsers.open_page(tmp_path) as page:
        ready(page, write_live((4, 4), names).as_uri())
        draw(page, ONE)
        prediction(page)
        assert page.locator("#table th").all_text_contents() == list(names)
        assert page.locator("b").count() == 0


def test_damaged_model_is_not_run(write_live: Callable[..., Path], tmp_path: Path) -> None:
    path = write_live((4, 4))
    digest = certificate.check(tmp_path / "hand.onnx").sha256
    path.write_text(path.read_text().replace(f'"sha256": "{digest}"', f'"sha256": "{"0" * 64}"'))
    with browsers.open_page(tmp_path) as page:
        page.goto(path.as_uri())
        page.locator("#answer", has_text="The model cannot be run in this browser: expected sha256 000").wait_for()


@pytest.mark.parametrize("background", ["dark", "light"])
def test_ink_has_the_polarity_of_the_training_images(
    write_live: Callable[..., Path], tmp_path: Path, background: str
) -> None:
    path, is_dark = write_live((4, 4)), background == "dark"
    text, replacement = path.read_text(), f'"dark": {json.dumps(is_dark)}'
    path.write_text(re.sub(r'"dark": \w+', replacement, text, count=1))
    with browsers.open_page(tmp_path) as page:
        ready(page, path.as_uri())
        draw(page, THREE)
        prediction(page)
        x = np.asarray(Image.open(saved(page, tmp_path)))
    assert (np.median(x) < certified.HIGHEST / 2) == is_dark
