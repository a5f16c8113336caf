import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hallmark.flows.experiments import options, presets
from hallmark.tasks.ml.data.dataset_store import open_split
from hallmark.tasks.ml.reports import data_profile
from tests.conftest import prepare


def test_profile_describes_the_splits(tmp_path: Path) -> None:
    dataset = prepare(presets.get("iris").data, tmp_path)
    report, _ = data_profile.profile(dataset, tmp_path)
    found = json.loads(report.read_text())
    assert found["rows"] == {"train": 90, "validation": 30, "test": 30}
    assert (found["dtype"], found["shape"]) == ("float32", [4])
    assert found["range"]["petal_width"] == pytest.approx([0.1, 2.5])
    assert found["class_shares"]["setosa"] == pytest.approx({"train": 1 / 3, "validation": 1 / 3, "test": 1 / 3})
    x = {split: open_split(dataset, split).x for split in ("train", "test")}
    repeated = sum(any(np.array_equal(row, known) for known in x["train"]) for row in np.unique(x["test"], axis=0))
    assert found["rows_also_in_train"]["test"] == repeated


def test_range_of_images_is_over_all_pixels(tmp_path: Path) -> None:
    dataset = prepare(presets.get("digits").data, tmp_path)
    assert data_profile.describe(dataset)["range"] == [0, 16]


@pytest.mark.parametrize("name", ["digits", "blobs", "points3_as_published", "iris"])
def test_every_kind_of_dataset_has_a_plot(name: str, tmp_path: Path) -> None:
    _, picture = data_profile.profile(prepare(presets.get(name).data, tmp_path), tmp_path)
    with Image.open(picture) as image:
        assert len(image.convert("RGB").getcolors(2**24) or []) > 40


def test_summary_names_the_options_that_are_set(tmp_path: Path) -> None:
    tokens = [
        "--training.augmentation.shift=2",
        "--training.augmentation.rotation=5",
        "--training.schedule.kind=cosine",
    ]
    experiment = options.experiment("digits", tokens)
    summary = dict(data_profile.summary_lines(prepare(experiment.data, tmp_path), experiment))
    assert "augmentation shift 2 rotation 5.0" in summary["training"]
    assert "schedule cosine" in summary["training"]
