from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits, load_iris, make_blobs

from hallmark.tasks.ml.config.data import MNIST, Blobs, Data, Digits, Iris, Points, Threshold
from hallmark.tasks.ml.data.source_rows import SourceRows
from hallmark.tasks.ml.data.sources import is_local, read

NOWHERE = Path("/nowhere")


def table(data: Data) -> SourceRows:
    return read(data, NOWHERE)


def test_iris_and_digits_equal_scikit_learns() -> None:
    iris, digits = table(Iris(kind="iris")), table(Digits(kind="digits"))
    np.testing.assert_array_equal(iris.x, load_iris().data.astype(np.float32))
    assert iris.columns == ("sepal_length", "sepal_width", "petal_length", "petal_width")
    assert iris.classes == ("setosa", "versicolor", "virginica")
    np.testing.assert_array_equal(digits.x, load_digits().images)
    assert (digits.x.dtype, digits.x.shape, digits.x.max(), digits.largest) == (np.uint8, (1797, 8, 8), 16, 16.0)


def test_threshold_tests_half_way_between_the_published_points() -> None:
    found = table(Threshold(kind="threshold"))
    published, between = found.x[:40, 0], found.x[40:, 0]
    np.testing.assert_array_equal(published, torch.arange(-2, 2, 0.1).numpy())
    assert found.y[:40].sum() == 17
    np.testing.assert_allclose(between, np.arange(-1.95, 1.9, 0.1), atol=1e-6)
    np.testing.assert_array_equal(found.y, found.x[:, 0] > 0.2)
    assert found.test_rows == len(between) == 39


def test_points_equal_those_in_the_experiment() -> None:
    found = table(Points(kind="points", x=(1, 2.5), y=(1, 0)))
    assert (found.x.tolist(), found.y.tolist(), found.classes) == ([[1.0], [2.5]], [1, 0], ("0", "1"))


def test_blobs_equal_scikit_learns() -> None:
    x, y = make_blobs(1000, n_features=2, centers=4, cluster_std=1.5, random_state=666)
    found = table(Blobs(kind="blobs"))
    np.testing.assert_array_equal(found.x, x.astype(np.float32))
    np.testing.assert_array_equal(found.y, y)
    assert (found.columns, found.classes) == (("x1", "x2"), ("0", "1", "2", "3"))


def test_only_mnist_is_not_local() -> None:
    assert is_local(Iris(kind="iris"))
    assert not is_local(MNIST(kind="kmnist"))
