"""Read all rows of each kind of data, in the source's own order."""

from pathlib import Path

import numpy as np

from hallmark.tasks.ml.config.data import MNIST, Blobs, Data, Digits, Images, Iris, Points, Table, Threshold
from hallmark.tasks.ml.data.source_rows import Progress, SourceRows


def is_local(data: Data) -> bool:
    """Return whether the rows can be read without a download."""
    return not isinstance(data, MNIST)


def read(data: Data, home: Path, mirror: str | None = None, progress: Progress | None = None) -> SourceRows:
    """Read all rows of a source.

    Args:
        data: the source.
        home: Hallmark's home folder, which has a subfolder for downloads.
        mirror: URL to download from; see `downloads.fetch`.
        progress: displays how many of a user's images have been decoded; None displays nothing.

    Raises:
        InputError: a download fails, or the user's own data is invalid.
        DamagedError: a downloaded file does not match its digest.
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
    # "sepal length (cm)" becomes an identifier, which suits the name of an ONNX input better.
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

    decoded = cache.read(data, home, progress or cache.silent)
    return SourceRows(
        x=decoded.x,
        y=decoded.y,
        columns=(),
        classes=decoded.classes,
        largest=255.0,
        split_key=decoded.split,
        resized=True,
        bits=decoded.bits,
        on_black=data.background == "black",
        notes=decoded.notes,
    )


def _numbered(classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(classes)))
