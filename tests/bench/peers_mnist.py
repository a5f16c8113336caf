"""Softmax regression by skorch, Lightning, scikit-learn, and with the least arithmetic that is possible.

Batches of 32, plain SGD, learning rate 0.001, on rows in memory. Each function takes `(N, 784) float32` in 0..1 and
`(N,) int64`, trains one epoch, and returns its seconds without the setup before the first batch. The libraries are
used as their documentation shows, without validation, progress bars or files. Worker processes and fewer threads were
tried and made none of them faster. A batch sampler, which is not plain usage, makes Lightning a tenth faster and
skorch slower.
"""

import logging
import time
import warnings
from importlib.util import find_spec

import torch
from sklearn.linear_model import SGDClassifier
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCH = 32
LR = 0.001
FEATURES, CLASSES = 784, 10


def refuse_if_missing() -> None:
    """Exit with one line and exit code 2 if a library is not installed."""
    if missing := [name for name in ("skorch", "lightning") if find_spec(name) is None]:
        print(f"{' and '.join(missing)} not found: install the bench extra: pip install -e .[bench]")
        raise SystemExit(2)


def skorch(x: Tensor, y: Tensor) -> float:
    """Train a `NeuralNetClassifier` with its default callbacks, which print nothing."""
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(
        nn.Linear,
        module__in_features=FEATURES,
        module__out_features=CLASSES,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        lr=LR,
        batch_size=BATCH,
        max_epochs=1,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    ).initialize()
    started = time.perf_counter()
    net.partial_fit(x, y)
    return time.perf_counter() - started


def lightning(x: Tensor, y: Tensor) -> float:
    """Train with a `Trainer` over a `TensorDataset`, timed by its hooks, so that the setup does not count."""
    from lightning import LightningModule, Trainer

    class Classifier(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(FEATURES, CLASSES)

        def training_step(self, batch: list[Tensor]) -> Tensor:
            images, labels = batch
            return nn.functional.cross_entropy(self.layer(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=LR)

        def on_train_epoch_start(self) -> None:
            self.started = time.perf_counter()

        def on_train_epoch_end(self) -> None:
            self.seconds = time.perf_counter() - self.started

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    classifier = Classifier()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends worker processes, which are slower for rows in memory
        trainer.fit(classifier, DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True))
    return classifier.seconds


def sgd(x: Tensor, y: Tensor) -> float:
    """Train with scikit-learn's SGD, without batches or softmax: ten classifiers, row by row, in compiled code."""
    classifier = SGDClassifier(
        loss="log_loss", penalty=None, learning_rate="constant", eta0=LR, max_iter=1, tol=None, random_state=0
    )
    started = time.perf_counter()
    classifier.fit(x.numpy(), y.numpy())
    return time.perf_counter() - started


def floor(x: Tensor, y: Tensor) -> float:
    """Train with the analytic gradient in reused buffers, on one thread: no autograd, no metrics, no loss."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return _floor(x, y)
    finally:
        torch.set_num_threads(threads)


def _floor(x: Tensor, y: Tensor) -> float:
    weight, bias = torch.zeros(CLASSES, FEATURES), torch.zeros(CLASSES, 1)
    targets = nn.functional.one_hot(y, CLASSES).float()
    batch, ones = torch.empty(BATCH, FEATURES), torch.ones(BATCH, 1)
    # Classes by rows: this product takes half the time of rows by classes.
    errors = torch.empty(CLASSES, BATCH)
    started = time.perf_counter()
    order = torch.randperm(len(x))
    for rows, target in zip(order.split(BATCH), targets.index_select(0, order).t().split(BATCH, 1), strict=True):
        if (count := len(rows)) < BATCH:
            batch, ones, errors = batch[:count], ones[:count], torch.empty(CLASSES, count)
        torch.index_select(x, 0, rows, out=batch)
        torch.mm(weight, batch.t(), out=errors)
        torch.softmax(errors.add_(bias), 0, out=errors)
        errors.sub_(target)
        weight.addmm_(errors, batch, alpha=-LR / count)
        bias.addmm_(errors, ones, alpha=-LR / count)
    return time.perf_counter() - started
