"""The certificate says how image files become the input, and prediction reads them in this way."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hallmark.tasks.ml.artifact import certificate, stamping
from hallmark.tasks.ml.config.data import Images
from hallmark.tasks.ml.data.dataset_store import open_split
from hallmark.tasks.ml.predict import input_rows
from tests.conftest import prepare
from tests.support import certified, photographed


def test_prediction_reads_deep_and_transparent_files_as_training_did(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(1, 4080, (40, 12, 16)).astype(np.uint16)
    levels[:, 0, :3] = 1, 4095, 4095
    files = [tmp_path / "photos" / name / f"{number}.png" for name in "ab" for number in range(20)]
    for file, pixels in zip(files, levels, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        photographed.save(file, pixels, transparency=4095)
    data = Images(kind="images", path=str(tmp_path / "photos"), background="black")
    dataset = prepare(data, tmp_path / "home")
    (image,) = stamping.inputs(dataset)
    assert (image.bits, image.on_black) == (12, True)
    assert (
        "laid on black and resized (Pillow, bilinear); of a file with more than eight bits, 12 are" in image.description
    )
    sealed, content = certificate.read(certified.images(tmp_path / "hand.onnx", (12, 16)))
    (tmp_path / "bare.onnx").write_bytes(content)
    certificate.stamp(tmp_path / "bare.onnx", replace(sealed, inputs=(image,)), tmp_path / "stamped.onnx")
    inputs = certificate.read(tmp_path / "stamped.onnx")[0].inputs
    assert inputs == (image,)
    known = {row.tobytes() for split in ("train", "validation", "test") for row in open_split(dataset, split).x}
    batches = input_rows.open_source(str(tmp_path / "photos" / "a"), inputs).batches
    predicted = {row.tobytes() for batch in batches for row in batch.feeds["image"]}
    assert predicted < known
    assert max(max(row) for row in predicted) < 255  # transparent
