"""Lines to copy that put a real row to a shipped file, in the languages of those who have only the file."""

import csv
import io
import json
import math
from typing import Any

import numpy as np

from hallmark.tasks.ml.artifact.certificate import Certificate, Input

_NUMPY = {"float32": "np.float32", "uint8": "np.uint8", "string": "object"}


def takes_images(said: Certificate) -> bool:
    """Whether the file takes an image, not columns."""
    return len(said.inputs[0].shape) > 1


def values(said: Certificate, row: int) -> dict[str, Any]:
    """A golden row of columns by name: each number as short as its float32 can be told from all others."""
    return {one.name: _short(said.golden.inputs[one.name][row][0], one) for one in said.inputs}


def python(said: Certificate, file: str, row: int) -> str:
    """A program that asks about a golden row, or about a picture that lies beside it."""
    head = "import numpy as np, onnxruntime\n"
    opened = f"session = onnxruntime.InferenceSession({file!r})\n"
    ask = "label, probabilities = session.run(None, row)\n"
    shown = f"classes = {list(said.classes)!r}\nprint(classes[label[0]], probabilities[0])\n"
    if takes_images(said):
        mode = "RGB" if len(said.inputs[0].shape) == 3 else "L"
        height, width = said.inputs[0].shape[:2]
        resize = f".resize(({width}, {height}), Image.Resampling.BILINEAR)" * said.inputs[0].resized
        picture = f"image = np.asarray(Image.open({picture_name(file)!r}).convert({mode!r}){resize})"
        row_of = f"row = {{{said.inputs[0].name!r}: image[None]}}\n"
        return f"{head}from PIL import Image\n\n{opened}# {form(said.inputs[0])}\n{picture}\n{row_of}{ask}{shown}"
    given = values(said, row)
    lines = [
        f"    {one.name!r}: np.array([[{_literal(given[one.name], 'python')}]], {_NUMPY[one.dtype]}),\n"
        for one in said.inputs
    ]
    return f"{head}\n{opened}row = {{\n{''.join(lines)}}}\n{ask}{shown}"


def javascript(said: Certificate, file: str, row: int) -> str:
    """The same as a module, for Node.js, or for a browser where it takes images."""
    ask = "const { label, probabilities } = await session.run(row);\n"
    shown = (
        f"const classes = {json.dumps(list(said.classes), ensure_ascii=False)};\n"
        "console.log(classes[Number(label.data[0])], probabilities.data);\n"
    )
    if takes_images(said):
        return _head("web", file) + _pixels(said.inputs[0], picture_name(file)) + ask + shown
    given = values(said, row)
    lines = [
        f"  {_text(one.name)}: new Tensor({_text(one.dtype)}, [{_literal(given[one.name], 'javascript')}], [1, 1]),\n"
        for one in said.inputs
    ]
    return f"{_head('node', file)}const row = {{\n{''.join(lines)}}};\n{ask}{shown}"


def table(said: Certificate, row: int) -> str:
    """A CSV file of one row; what is missing is an empty cell."""
    given = values(said, row)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(given)
    writer.writerow([_cell(value) for value in given.values()])
    return file.getvalue()


def form(one: Input) -> str:
    """Type and shape of one row, in words."""
    if one.dtype == "uint8":
        kind = "colour" if len(one.shape) == 3 else "grey"
        return f"{kind}, {one.shape[0]} x {one.shape[1]} pixels, uint8"
    return one.dtype


def picture_name(file: str) -> str:
    """The name under which a golden image is offered."""
    return f"{file.removesuffix('.onnx')}.png"


def _head(runtime: str, file: str) -> str:
    return (
        f'import {{ InferenceSession, Tensor }} from "onnxruntime-{runtime}";\n\n'
        f"const session = await InferenceSession.create({_text(file)});\n"
    )


def _pixels(image: Input, picture: str) -> str:
    """Lines that decode a picture as it lies in its file."""
    height, width, *colours = image.shape
    pick = "rgba[(i - (i % 3)) / 3 * 4 + (i % 3)]" if colours else "rgba[4 * i]"
    shape = ", ".join(map(str, (1, *image.shape)))
    return (
        f"const file = await (await fetch({_text(picture)})).blob(); // {form(image)}\n"
        f'const canvas = new OffscreenCanvas({width}, {height}).getContext("2d");\n'
        "canvas.drawImage(await createImageBitmap(file), 0, 0);\n"
        f"const rgba = canvas.getImageData(0, 0, {width}, {height}).data;\n"
        f"const pixels = Uint8Array.from({{ length: {math.prod(image.shape)} }}, (_, i) => {pick});\n"
        f'const row = {{ {_text(image.name)}: new Tensor("uint8", pixels, [{shape}]) }};\n'
    )


def _short(value: Any, one: Input) -> Any:  # noqa: ANN401 - a cell holds what it holds
    if one.dtype != "float32":
        return value
    return math.nan if value is None else float(str(np.float32(value)))


def _literal(value: Any, language: str) -> str:  # noqa: ANN401 - as above
    if isinstance(value, float) and math.isnan(value):
        return "np.nan" if language == "python" else "NaN"
    return repr(value) if language == "python" else json.dumps(value, ensure_ascii=False)


def _cell(value: Any) -> Any:  # noqa: ANN401 - as above
    return "" if isinstance(value, float) and math.isnan(value) else value


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
