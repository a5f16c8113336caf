"""A folder whose page runs a shipped file in the browser: draw something, or choose a picture, and see what it says.

The page holds the file, onnxruntime-web and all else that it needs, so that it opens by a double click, without a
server and without a network.
"""

import base64
import gzip
import hashlib
import json
import re
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.files import whole_folder
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.artifact.certificate import Certificate
from hallmark.tasks.ml.reports import code_snippets
from hallmark.tasks.ml.reports.live_page.browser_runtime import LICENSE_TEXT, MODULE, VERSION, WASM

PAGE, CARD, LICENSE = "index.html", "card.html", "LICENSE.txt"

_HERE = Path(__file__).parent


def refuse(onnx: Path, folder: Path, *, overwrite: bool) -> None:
    """Refuse what cannot be shown, or must not be written, before anything is fetched.

    Raises:
        InputError: the file takes no image; the folder exists and is not to be replaced, or holds something else.
    """
    said, _ = certificate.read(onnx)
    if not code_snippets.takes_images(said):
        names = ", ".join(one.name for one in said.inputs[:4]) + ", ..." * (len(said.inputs) > 4)
        raise InputError(f"--live: {onnx.name} takes no image but columns: {names}: its page could not be drawn on")
    if not folder.parent.is_dir():
        raise InputError(f"{folder}: there is no folder {folder.parent}: make it first")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder")
    found = sorted(path.name for path in folder.iterdir())
    if other := [name for name in found if name not in (PAGE, CARD, LICENSE) and not name.endswith(".onnx")]:
        raise InputError(f"{folder}: holds something else, '{other[0]}': choose another folder")
    if found and not overwrite:
        raise InputError(f"{folder}: exists: choose another name, or add --overwrite")


def write(onnx: Path, card: bytes, lead: str, runtime: Path, folder: Path) -> Path:
    """Write the folder, whole or not at all: page, file, card, and the license of what runs it.

    Args:
        onnx: the shipped file.
        card: its card.
        lead: a sentence that says which model it is.
        runtime: where `browser_runtime.fetch` has put onnxruntime-web.
        folder: is replaced if it exists.

    Returns:
        The page.

    Raises:
        DamagedError: the file's seal is broken.
    """
    said, content = certificate.read(onnx)
    with whole_folder(folder.absolute()) as temporary:
        (temporary / onnx.name).write_bytes(content)
        (temporary / CARD).write_bytes(card)
        (temporary / LICENSE).write_text(LICENSE_TEXT.format(version=VERSION), encoding="utf-8")
        (temporary / PAGE).write_text(page(said, content, onnx.name, lead, runtime), encoding="utf-8")
    return folder / PAGE


def page(said: Certificate, content: bytes, file: str, lead: str, runtime: Path) -> str:
    """Lay out the page.

    Args:
        said: the file's certificate.
        content: the file.
        file: its name.
        lead: a sentence that says which model it is.
        runtime: as for `write`.
    """
    facts = about(said, content)
    words = {
        "title": file.removesuffix(".onnx"),
        "lead": lead,
        "choose": "Or choose a picture" if facts["drawable"] else "Choose a picture",
        "file": file,
        "picture": code_snippets.picture_name(file),
        "sha256": facts["sha256"],
        "version": VERSION,
    }
    parts = {name: escape(text) for name, text in words.items()} | {
        "about": json.dumps(facts).replace("<", "\\u003c"),
        "model": _packed(content),
        "module": _packed((runtime / MODULE).read_bytes()),
        "wasm": _packed((runtime / WASM).read_bytes()),
        "script": (_HERE / "live.js").read_text(encoding="utf-8"),
    }
    template = (_HERE / "live.html").read_text(encoding="utf-8")
    # In one pass: what is put in is not looked at again.
    return re.sub(r"{{(\w+)}}", lambda found: parts[found[1]], template)


def about(said: Certificate, content: bytes) -> dict[str, Any]:
    """What the page's script knows of the model; it computes all else.

    `placement` is where and how large the ink of a grey image is, as a median over the golden rows, in pixels; `dark`
    is whether its ground is.
    """
    image = said.inputs[0]
    highest = image.highest or 255.0  # of pixels there is always one
    rows = np.array(said.golden.inputs[image.name], dtype=np.float64)
    is_grey = len(image.shape) == 2
    is_dark = bool(is_grey and np.median(_border(rows)) <= highest / 2)
    return {
        "input": image.name,
        "shape": image.shape,
        "highest": highest,
        "resized": image.resized,
        "classes": said.classes,
        "sha256": hashlib.sha256(content).hexdigest(),
        "drawable": is_grey,
        "dark": is_dark,
        "placement": placement(rows if is_dark else highest - rows) if is_grey else None,
    }


def placement(ink: NDArray[np.floating]) -> dict[str, float]:
    """Size and place of what is drawn in images `(N, H, W)`, whose ground is 0.

    Returns:
        `side`, the longer side of the ink, and `x` and `y`, its centre of mass from the left and from the top; each the
        median over the images, in pixels.
    """
    found = []
    for image in ink[ink.any(axis=(1, 2))]:
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        side = max(np.ptp(rows), np.ptp(columns)) + 1
        y, x = (
            (image.sum(axis=1 - axis) * (np.arange(image.shape[axis]) + 0.5)).sum() / image.sum() for axis in (0, 1)
        )
        found.append((side, x, y))
    height, width = ink.shape[1:]
    side, x, y = np.median(found, axis=0) if found else (max(height, width), width / 2, height / 2)
    return {"side": float(side), "x": round(float(x), 1), "y": round(float(y), 1)}


def _border(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.concatenate([rows[:, [0, -1], :].ravel(), rows[:, :, [0, -1]].ravel()])


def _packed(content: bytes) -> str:
    """As the page's script unpacks it. The same content gives the same text."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()
