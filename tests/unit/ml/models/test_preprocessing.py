from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.preprocessing import StandardScaler

from hallmark.tasks.ml.config.data import Digits, Iris, Split
from hallmark.tasks.ml.data import dataset_store
from hallmark.tasks.ml.models import preprocessing
from tests.conftest import prepare


def test_chunks_of_large_images_have_fewer_rows() -> None:
    assert preprocessing.chunk_size(28 * 28) == preprocessing.chunk_size(64 * 64 * 3) == 1000
    assert preprocessing.chunk_size(256 * 256 * 3) == 85
    assert preprocessing.chunk_size(10**9) == 1


@pytest.mark.parametrize("fitted_on", ["train", "all"])
@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_standard_scaling_equals_that_of_scikit_learn_fitted_on_the_same_rows(
    tmp_path: Path, fitted_on: str, validation: float
) -> None:
    source = Iris.model_validate(
        {"kind": "iris", "split": Split(validation=validation), "scaling_fitted_on": fitted_on}
    )
    dataset = prepare(source, tmp_path)
    train = dataset_store.open_split(dataset, "train").x
    rows = load_iris().data if fitted_on == "all" else train
    scaled = preprocessing.fit_scaling(dataset, source)(torch.tensor(train))
    np.testing.assert_allclose(scaled, StandardScaler().fit(rows).transform(train), atol=2e-6)


def test_pixels_are_scaled_by_range_and_constant_ones_survive_standard_scaling(tmp_path: Path) -> None:
    dataset = prepare(Digits(kind="digits"), tmp_path)
    images = torch.tensor(dataset_store.open_split(dataset, "train").x)
    by_range = preprocessing.fit_scaling(dataset, Digits(kind="digits"))(images)
    assert torch.equal(by_range, images.flatten(1) / 16)
    standard = preprocessing.fit_scaling(dataset, Digits(kind="digits", scaling="standard"))(images)
    np.testing.assert_allclose(standard, StandardScaler().fit_transform(images.flatten(1).numpy()), atol=5e-5)
    raw = preprocessing.fit_scaling(dataset, Digits(kind="digits", scaling="none"))(images)
    assert torch.equal(raw, images.flatten(1).float())
