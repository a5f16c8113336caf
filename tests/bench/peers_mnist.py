"""Softmax regression by four others: skorch, Lightning, scikit-learn, and as little arithmetic as there can be.

Batches of 32, plain SGD, learning rate 0.001, on rows already in memory: each function takes `(N, 784) float32` in
0..1 and `(N,) int64`, trains one epoch and returns its seconds, without what is made before the first batch. Where
libraries leave a choice, it is the plain usage of their documentation, without validation, pictures of progress or
files. Worker processes and fewer threads were tried and made none of them faster; a batch sampler, which is no plain
usage, makes Lightning a tenth faster and skorch slower.
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
    """End with one line and exit code 2 where a peer is not installed."""
    if missing := [name for name in ("skorch", "lightning") if find_spec(name) is None]:
        print(f"{' and '.join(missing)} not found: install the bench extra: pip install -e .[bench]")
        raise SystemExit(2)


def skorch(x: Tensor, y: Tensor) -> float:
    """`NeuralNetClassifier` with its own callbacks, which print nothing."""
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
    """`Trainer` over a `TensorDataset`, timed by its own hooks, so that setting it up costs nothing here."""
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
        warnings.simplefilter("ignore")  # it asks for worker processes, which are slower for rows in memory
        trainer.fit(classifier, DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True))
    return classifier.seconds


def sgd(x: Tensor, y: Tensor) -> float:
    """scikit-learn's SGD, which knows no batches and no softmax: ten classifiers, row by row, in compiled code."""
    classifier = SGDClassifier(
        loss="log_loss", penalty=None, learning_rate="constant", eta0=LR, max_iter=1, tol=None, random_state=0
    )
    started = time.perf_counter()
    classifier.fit(x.numpy(), y.numpy())
    return time.perf_counter() - started


def floor(x: Tensor, y: Tensor) -> float:
    """The analytic gradient in buffers made once: no autograd, no metrics, no loss. On one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return _floor(x, y)
    finally:
        torch.set_num_threads(threads)


def _floor(x: Tensor, y: Tensor) -> float:
    weight, bias = torch.zeros(CLASSES, FEATURES), torch.zeros(CLASSES, 1)
    wanted = nn.functional.one_hot(y, CLASSES).float()
    batch, ones = torch.empty(BATCH, FEATURES), torch.ones(BATCH, 1)
    # Classes by rows: this product takes half the time of rows by classes.
    errors = torch.empty(CLASSES, BATCH)
    started = time.perf_counter()
    order = torch.randperm(len(x))
    for rows, target in zip(order.split(BATCH), wanted.index_select(0, order).t().split(BATCH, 1), strict=True):
        if (count := len(rows)) < BATCH:
            batch, ones, errors = batch[:count], ones[:count], torch.empty(CLASSES, count)
        torch.index_select(x, 0, rows, out=batch)
        torch.mm(weight, batch.t(), out=errors)
        torch.softmax(errors.add_(bias), 0, out=errors)
        errors.sub_(target)
        weight.addmm_(errors, batch, alpha=-LR / count)
        bias.addmm_(errors, ones, alpha=-LR / count)
    return time.perf_counter() - started
