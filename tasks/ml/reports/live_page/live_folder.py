"""The live page: a folder whose page runs a shipped file in the browser, on drawings and pictures.

The page contains the file, onnxruntime-web and everything else that it needs. It opens with a double click, without a
server and without a network.
"""

import base64
import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.files import whole_folder
from hallmark.tasks.common.records import CARD
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.artifact.certificate import Certificate
from hallmark.tasks.ml.reports import code_snippets, templating
from hallmark.tasks.ml.reports.live_page.browser_runtime import LICENSE_TEXT, MODULE, VERSION, WASM

PAGE, LICENSE = "index.html", "LICENSE.txt"
_DARK = 128
"""Drawings whose pixels are all below this value have fewer levels than 256, as those of scikit-learn's digits."""


def refuse_folder(onnx: Path, folder: Path, *, overwrite: bool) -> None:
    """Refuse files that take no images and folders that must not be replaced, before anything is downloaded.

    Raises:
        InputError: the file's input is not an image; the folder exists and `overwrite` is not set; or it contains
            other files.
    """
    sealed, _ = certificate.read(onnx)
    if not code_snippets.takes_images(sealed):
        names = ", ".join(one.name for one in sealed.inputs[:4]) + ", ..." * (len(sealed.inputs) > 4)
        raise InputError(f"--live: expected a model whose input is an image, but {onnx.name} takes columns: {names}")
    if not folder.parent.is_dir():
        raise InputError(f"{folder}: there is no folder {folder.parent}: create it first")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder")
    existing = sorted(path.name for path in folder.iterdir())
    if other := [name for name in existing if name not in (PAGE, CARD, LICENSE) and not name.endswith(".onnx")]:
        raise InputError(f"{folder}: contains another file, '{other[0]}': choose another folder")
    if existing and not overwrite:
        raise InputError(f"{folder}: exists: choose another name, or add --overwrite")


def write(onnx: Path, card: bytes, lead: str, runtime: Path, folder: Path) -> Path:
    """Write the folder atomically: page, model file, card and license.

    Args:
        onnx: the shipped file.
        card: its model card.
        lead: sentence that describes the model.
        runtime: folder of onnxruntime-web; see `browser_runtime.fetch`.
        folder: folder to write. It is replaced if it exists.

    Returns:
        Path of the page.

    Raises:
        DamagedError: the file's seal is broken.
    """
    sealed, content = certificate.read(onnx)
    with whole_folder(folder.absolute()) as temporary:
        (temporary / onnx.name).write_bytes(content)
        (temporary / CARD).write_bytes(card)
        (temporary / LICENSE).write_text(LICENSE_TEXT.format(version=VERSION), encoding="utf-8")
        (temporary / PAGE).write_text(page(sealed, content, onnx.name, lead, runtime), encoding="utf-8")
    return folder / PAGE


def page(sealed: Certificate, content: bytes, file: str, lead: str, runtime: Path) -> str:
    """Return the page as HTML.

    Args:
        sealed: certificate of the file.
        content: bytes of the file.
        file: name of the file.
        lead: sentence that describes the model.
        runtime: folder of onnxruntime-web.
    """
    return templating.render(
        "live_page.html.jinja",
        title=file.removesuffix(".onnx"),
        lead=lead,
        file=file,
        picture=code_snippets.picture_name(file),
        version=VERSION,
        about=about(sealed, content),
        model=_packed(content),
        module=_packed((runtime / MODULE).read_bytes()),
        wasm=_packed((runtime / WASM).read_bytes()),
        script=(templating.TEMPLATES / "live_page.js").read_text(encoding="utf-8"),
    )


def about(sealed: Certificate, content: bytes) -> dict[str, Any]:
    """Return the facts about the model that the page's script needs.

    `white` is the value of white in pictures: that of the training images if they are drawings with few levels, but
    never if they are photos, which may all be dark. `placement` is the size and position of the ink in the golden rows
    of grey images, see `placement`. `dark` says whether their background is dark.
    """
    image = sealed.inputs[0]
    highest = image.highest or 255.0  # 255 is only for the type: pixels always have a range
    rows = np.array(sealed.golden.inputs[image.name], dtype=np.float64)
    is_grey = len(image.shape) == 2
    border = np.concatenate([rows[:, [0, -1]].ravel(), rows[:, :, [0, -1]].ravel()])
    is_dark = bool(is_grey and np.median(border) <= highest / 2)
    return {
        "input": image.name,
        "shape": image.shape,
        "highest": highest,
        "white": 255.0 if image.resized or highest >= _DARK else highest,
        "resized": image.resized,
        "background": "black" if image.on_black else "white",
        "classes": sealed.classes,
        "sha256": hashlib.sha256(content).hexdigest(),
        "drawable": is_grey,
        "dark": is_dark,
        "placement": placement(rows if is_dark else highest - rows) if is_grey else None,
    }


def placement(ink: NDArray[np.floating]) -> dict[str, float]:
    """Return the typical size and position of the ink in images `(N, H, W)` with background 0.

    Returns:
        `side`, the longer side of the ink; `x` and `y`, its centre of mass from the left and from the top. Each is the
        median over the images, in pixels.
    """
    measured = []
    for image in ink[ink.any(axis=(1, 2))]:
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        side = max(np.ptp(rows), np.ptp(columns)) + 1
        y, x = (
            (image.sum(axis=1 - axis) * (np.arange(image.shape[axis]) + 0.5)).sum() / image.sum() for axis in (0, 1)
        )
        measured.append((side, x, y))
    height, width = ink.shape[1:]
    side, x, y = np.median(measured, axis=0) if measured else (max(height, width), width / 2, height / 2)
    return {"side": float(side), "x": round(float(x), 1), "y": round(float(y), 1)}


def _packed(content: bytes) -> str:
    """Return bytes gzipped, in base64, as the script unpacks them. The same bytes give the same text."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()
