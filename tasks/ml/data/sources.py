"""Where rows come from: each kind of data, read whole and in the source's own order."""

from pathlib import Path

import numpy as np

from hallmark.tasks.ml.config.data import MNIST, Blobs, Data, Digits, Images, Iris, Points, Table, Threshold
from hallmark.tasks.ml.data.source_rows import Progress, SourceRows


def is_local(data: Data) -> bool:
    """Whether the rows come with this machine's libraries, and need no download."""
    return not isinstance(data, MNIST)


def read(data: Data, home: Path, mirror: str | None = None, progress: Progress | None = None) -> SourceRows:
    """Read every row of the source that `data` names.

    Args:
        data: the source.
        home: Hallmark's home folder; downloads lie there.
        mirror: address to download from; see `downloads.fetch`.
        progress: shows how many images of one's own were decoded; nothing is shown if not given.

    Raises:
        InputError: a download cannot be reached, or data of one's own is not what it must be.
        DamagedError: a download is not what it should be.
    """
    match data:
        case Iris():
            return _iris()
        case Threshold():
            return _threshold()
        case Points():
            x = np.array(data.x, dtype=np.float32)[:, None]
            return SourceRows(x, np.array(data.y, dtype=np.int64), ("x",), _numbered(max(data.y) + 1))
        case Blobs():
            return _blobs(data)
        case Digits():
            return _digits()
        case MNIST():
            return _mnist(data, home, mirror)
        case Table() | Images():
            return _own(data, home, progress)


def _iris() -> SourceRows:
    from sklearn.datasets import load_iris

    bunch = load_iris()
    # scikit-learn says "sepal length (cm)"; an ONNX input is better off with an identifier.
    columns = tuple(name.removesuffix(" (cm)").replace(" ", "_") for name in bunch.feature_names)
    classes = tuple(str(name) for name in bunch.target_names)
    return SourceRows(bunch.data.astype(np.float32), bunch.target.astype(np.int64), columns, classes)


def _threshold() -> SourceRows:
    import torch

    points = torch.arange(-2, 2, 0.1).numpy()  # as published: the float32 points of torch
    x = np.concatenate([points, (points[1:] + points[:-1]) / 2])
    return SourceRows(x[:, None], (x > 0.2).astype(np.int64), ("x",), _numbered(2), test_rows=len(points) - 1)


def _blobs(data: Blobs) -> SourceRows:
    from sklearn.datasets import make_blobs

    x, y = make_blobs(
        n_samples=data.rows,
        n_features=data.features,
        centers=data.centers,
        cluster_std=data.std,
        random_state=data.seed,
    )
    columns = tuple(f"x{index}" for index in range(1, data.features + 1))
    return SourceRows(x.astype(np.float32), y.astype(np.int64), columns, _numbered(data.centers))


def _digits() -> SourceRows:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return SourceRows(bunch.images.astype(np.uint8), bunch.target.astype(np.int64), (), _numbered(10), largest=16.0)


def _mnist(data: MNIST, home: Path, mirror: str | None) -> SourceRows:
    from torchvision import datasets

    from hallmark.tasks.ml.data import downloads

    kind = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST, "kmnist": datasets.KMNIST}[data.kind]
    root = downloads.fetch(kind, home, mirror)
    train, test = (kind(root, train=train) for train in (True, False))
    return SourceRows(
        x=np.concatenate([train.data.numpy(), test.data.numpy()]),
        y=np.concatenate([train.targets.numpy(), test.targets.numpy()]),
        columns=(),
        classes=_numbered(10) if data.kind == "mnist" else tuple(kind.classes),
        largest=255.0,
        test_rows=len(test),
    )


def _own(data: Table | Images, home: Path, progress: Progress | None) -> SourceRows:
    if isinstance(data, Table):
        from hallmark.tasks.ml.data.tables import reader

        return reader.read(data)
    from hallmark.tasks.ml.data.images import cache

    found = cache.read(data, home, progress or cache.silent)
    return SourceRows(found.x, found.y, (), found.classes, largest=255.0, resized=True, notes=found.notes)


def _numbered(classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(classes)))
