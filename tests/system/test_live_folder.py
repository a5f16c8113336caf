"""The folder of a live page: what it contains, and when `hallmark card --live` writes it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.reports.live_page import live_folder
from tests.support import certified
from tests.support.consoles import Call


def test_folder_contains_all_linked_files(write_live: Callable[..., Path]) -> None:
    folder = write_live((4, 4)).parent
    assert {path.name for path in folder.iterdir()} == {"index.html", "hand.onnx", "card.html", "LICENSE.txt"}
    assert "MIT License" in (folder / "LICENSE.txt").read_text()
    text = (folder / "index.html").read_text()
    linked = {link for link in re.findall(r'href="([^"]+)"', text) if not link.startswith("data:")}
    assert linked == {"hand.onnx", "card.html", "LICENSE.txt"}
    assert not re.findall(r"""(?:src|href)\s*=\s*["']https?:""", text)


def test_placement_is_the_median_over_images() -> None:
    ink = np.zeros((3, 10, 12))
    ink[0, 2:6, 3:5] = 1  # 4 x 2 around 4, 4
    ink[1, 4:8, 5:8] = 7
    assert live_folder.placement(ink[:2]) == {"side": 4.0, "x": 5.2, "y": 5.0}
    assert live_folder.placement(ink[2:]) == {"side": 12.0, "x": 6.0, "y": 5.0}


def test_background_is_taken_from_the_golden_rows(tmp_path: Path) -> None:
    stamped, content = certificate.read(certified.images(tmp_path / "hand.onnx", (4, 4)))
    rows = np.zeros((2, 4, 4), np.uint8)
    rows[:, 1:3, 1:2] = 8
    for is_dark, image in ((True, rows), (False, 8 - rows)):
        golden = replace(stamped.golden, inputs={"image": image.tolist()})
        facts = live_folder.about(replace(stamped, golden=golden), content)
        assert (facts["dark"], facts["drawable"]) == (is_dark, True)
        assert facts["placement"] == {"side": 2.0, "x": 1.5, "y": 2.0}


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: (folder / "thesis.txt").write_text("x"), "contains another file, 'thesis.txt'"),
        (lambda folder: (folder / "index.html").write_text("x"), "add --overwrite"),
    ],
)
def test_existing_folder_is_not_replaced(
    digits: Outcome, console: Call, tmp_path: Path, prepare: Callable[[Path], object], message: str
) -> None:
    folder = tmp_path / "live"
    folder.mkdir()
    prepare(folder)
    before = sorted(path.name for path in folder.iterdir())
    more = ["--overwrite"] if "thesis" in message else []
    code, out, error = console("card", digits.run.id, "--live", str(folder), *more)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert sorted(path.name for path in folder.iterdir()) == before


def test_empty_folder_and_live_folder_are_replaced(
    digits: Outcome, console: Call, runtime: Path, tmp_path: Path
) -> None:
    assert runtime.is_dir()
    folder, card = tmp_path / "live", tmp_path / "card.html"
    folder.mkdir()
    code, out, _ = console("card", digits.run.id, "--live", str(folder), "--output", str(card), "--json")
    assert json.loads(out) == {
        "status": "written",
        "run_id": digits.run.id,
        "card": str(card),
        "live": str(folder / "index.html"),
    }
    assert code == 0
    assert (folder / "card.html").read_bytes() == card.read_bytes()
    before = (folder / "index.html").read_bytes()
    assert console("card", digits.run.id, "--live", str(folder), "--overwrite")[0] == 0
    assert (folder / "index.html").read_bytes() == before


def test_failed_download_gives_one_line(
    digits: Outcome, console: Call, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALLMARK_NPM_REGISTRY", "http://127.0.0.1:9")
    code, out, error = console("card", digits.run.id, "--live", str(tmp_path / "live"))
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "onnxruntime-web-1.30.0.tgz: download failed" in error
    assert "HALLMARK_NPM_REGISTRY" in error
    assert not (tmp_path / "live").exists()
    assert home.is_dir()
