"""Code examples that predict a stored row with a shipped file, in Python and JavaScript, and the row as a CSV file."""

import csv
import io
import json
import math
from typing import Any

import numpy as np

from hallmark.tasks.ml.artifact.certificate import Certificate, Input
from hallmark.tasks.ml.data.images import image_file
from hallmark.tasks.ml.reports import templating

_NUMPY = {"float32": "np.float32", "float64": "np.float64", "uint8": "np.uint8", "string": "object"}


def takes_images(certificate: Certificate) -> bool:
    """Return whether the file's input is an image, not columns."""
    return len(certificate.inputs[0].shape) > 1


def row_values(certificate: Certificate, row: int) -> dict[str, Any]:
    """Return a golden row of columns by name. Numbers have just enough digits to identify the value of their type."""
    return {one.name: _short(certificate.golden.inputs[one.name][row][0], one) for one in certificate.inputs}


def python(certificate: Certificate, file: str, row: int) -> str:
    """Return a Python program that predicts a golden row, which for an image is in a file beside the model."""
    if takes_images(certificate):
        image, arrays = _image_facts(certificate.inputs[0], file), [(certificate.inputs[0].name, "image[None]")]
    else:
        image, values = None, row_values(certificate, row)
        literals = {name: "np.nan" if _is_nan(value) else repr(value) for name, value in values.items()}
        arrays = [(one.name, f"np.array([[{literals[one.name]}]], {_NUMPY[one.dtype]})") for one in certificate.inputs]
    classes = list(certificate.classes)
    return templating.render("example.py.jinja", file=file, classes=classes, image=image, arrays=arrays)


def javascript(certificate: Certificate, file: str, row: int) -> str:
    """Return the same program as a JavaScript module: for a browser if the input is an image, else for Node.js."""
    if takes_images(certificate):
        image, (one,) = _image_facts(certificate.inputs[0], file), certificate.inputs
        tensors = [
            (one.name, "uint8", f"await pixels({json.dumps(picture_name(file), ensure_ascii=False)})", [1, *one.shape])
        ]
    else:
        image, values = None, row_values(certificate, row)
        literals = {
            name: "NaN" if _is_nan(value) else json.dumps(value, ensure_ascii=False) for name, value in values.items()
        }
        tensors = [(one.name, one.dtype, f"[{literals[one.name]}]", [1, 1]) for one in certificate.inputs]
    classes = list(certificate.classes)
    return templating.render("example.js.jinja", file=file, classes=classes, image=image, tensors=tensors)


def table(certificate: Certificate, row: int) -> str:
    """Return a CSV file with a golden row. Missing values are empty cells."""
    values = row_values(certificate, row)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(values)
    writer.writerow(["" if _is_nan(value) else value for value in values.values()])
    return file.getvalue()


def row_format(one: Input) -> str:
    """Return the type and the shape of one row, in words."""
    if one.dtype == "uint8":
        kind = "colour" if len(one.shape) == 3 else "grey"
        return f"{kind}, {one.shape[0]} x {one.shape[1]} pixels, uint8"
    return one.dtype


def picture_name(file: str) -> str:
    """Return the name under which the golden image of a file is saved."""
    return f"{file.removesuffix('.onnx')}.png"


def _image_facts(image: Input, file: str) -> dict[str, Any]:
    height, width, *colours = image.shape
    return {
        "file": picture_name(file),
        "format": row_format(image),
        "height": height,
        "width": width,
        "size": math.prod(image.shape),
        "mode": "RGB" if colours else "L",
        "planes": 3 if colours else 1,
        "resized": image.resized,
        "draft": image_file.SHRUNK * max(height, width),
        "background": "black" if image.on_black else "white",
        "bits": image.bits,
    }


def _short(value: Any, one: Input) -> Any:  # noqa: ANN401 - a cell is a number or text
    if one.dtype == "string":
        return value
    return math.nan if value is None else float(str(np.dtype(one.dtype).type(value)))


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
