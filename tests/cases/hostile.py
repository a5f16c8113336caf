"""Hostile and foreign ONNX files, made from an honest file of an image model with two classes.

Each file has a verdict: `refused` by `verify` and `predict`; `unproven` by what it states, which `verify` refuses; or
`either` if it may be harmless, but then a file that `verify` accepts must also predict.
"""

import io
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from hallmark.tasks.ml.artifact import certificate
from tests.cases import hostile_certificates, hostile_graphs
from tests.cases.hostile_certificates import Verdict

DIGEST = "hallmark.digest"
"""Key of the entry that is the seal."""
SPARSE = {"sparse2GB": 2**31, "sparse500MB": 500 * 2**20}
"""Sizes in bytes of files without content."""
LINKS = {"link_dev_zero": "/dev/zero", "link_dangling": "/nowhere", "link_loop": "link_loop.onnx"}

FOREIGN = ("empty", "text", "picture", "directory", "zipbomb", "claims_2GB", "truncated", "no_seal", "digest_twice")
OTHER_LIBRARIES = ("torch", "torch_external", "sklearn", "quantized", "hallmark_quantized")

VERDICTS: dict[str, Verdict] = {
    **dict.fromkeys((*FOREIGN, *OTHER_LIBRARIES, "fifo", *SPARSE, *LINKS), "refused"),
    **{name: verdict for name, (verdict, _) in hostile_graphs.CHANGES.items()},
    **{name: verdict for name, (verdict, _, _) in hostile_certificates.CHANGES.items()},
}
"""What is expected of each file, by its name without a suffix."""


def write(honest: Path, picture: Path, folder: Path, names: tuple[str, ...] = tuple(VERDICTS)) -> None:
    """Write some of the files.

    Args:
        honest: a shipped file of an image model with two classes.
        picture: a PNG file, which is no model.
        folder: an existing folder.
        names: keys of `VERDICTS`.
    """
    model = onnx.load(honest)
    for name in names:
        path = folder / f"{name}.onnx"
        if name in hostile_graphs.CHANGES:
            path.write_bytes(_changed(model, hostile_graphs.CHANGES[name][1]))
        elif name in hostile_certificates.CHANGES:
            path.write_bytes(_changed(model, hostile_certificates.change(name)))
        elif name not in OTHER_LIBRARIES:
            _write_foreign(path, name, honest, picture)
    if set(names) & set(OTHER_LIBRARIES):
        _write_other_libraries(honest, folder)


def _changed(model: onnx.ModelProto, change: Callable[[onnx.ModelProto], object]) -> bytes:
    """Change a copy of the model and seal it, as a forger would."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    change(copy)
    body = _without_seal(copy).SerializeToString(deterministic=True)
    return bytes(body + certificate._seal(body))


def _without_seal(model: onnx.ModelProto) -> onnx.ModelProto:
    kept = [entry for entry in model.metadata_props if entry.key != DIGEST]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return model


def _write_foreign(path: Path, name: str, honest: Path, picture: Path) -> None:
    """Write a file that needs no graph, or something that is no file."""
    match name:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case _ if name in LINKS:
            path.symlink_to(LINKS[name])
        case _ if name in SPARSE:
            with path.open("wb") as file:
                file.truncate(SPARSE[name])
        case _:
            path.write_bytes(_foreign(name, honest, picture))


def _foreign(name: str, honest: Path, picture: Path) -> bytes:
    match name:
        case "empty":
            return b""
        case "text":
            return b"hello, this is no model\n"
        case "picture":
            return picture.read_bytes()
        case "truncated":
            return honest.read_bytes()[:-1000]
        case "claims_2GB":  # a field that says that it is this long
            return b"\x08\x0a\x3a\xff\xff\xff\xff\x07" + b"x" * 100
        case "zipbomb":
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("a", b"\0" * 50_000_000)
            return packed.getvalue()
    model = onnx.load(honest)
    if name == "no_seal":
        _without_seal(model)
    else:
        model.metadata_props.add(key=DIGEST, value="0")
    return bytes(model.SerializeToString())


def _write_other_libraries(honest: Path, folder: Path) -> None:
    """Write files that torch, scikit-learn and onnxruntime's quantisation export."""
    import torch
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    x, y = load_iris(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("torch", "torch_external"):
            torch.onnx.export(
                network, (torch.zeros(2, 4),), folder / f"{name}.onnx",
                dynamo=True, verbose=False, external_data=name.endswith("external"),
            )  # fmt: skip
        regression = LogisticRegression(max_iter=500).fit(x, y)
        (folder / "sklearn.onnx").write_bytes(to_onnx(regression, x[:1].astype(np.float32)).SerializeToString())
        _quantise(folder / "torch.onnx", folder / "quantized.onnx")
        _quantise(honest, folder / "hallmark_quantized.onnx")


def _quantise(source: Path, path: Path) -> None:
    """Quantise a model, without the shapes of inner values, which the quantisation contradicts."""
    from onnxruntime.quantization import quantize_dynamic

    plain = path.with_name("plain.onnx")
    model = onnx.load(source)
    del model.graph.value_info[:]
    plain.write_bytes(model.SerializeToString())
    quantize_dynamic(plain, path)
    plain.unlink()
