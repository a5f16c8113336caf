"""The tutorial's MNIST loop as published: torchvision's images one by one through PIL and ToTensor, batches of 32.

The baseline of `bench_engine` and `bench_cnn`. A `Subset` selects the rows of Hallmark's training split, so that
seconds and accuracy are comparable. Selecting a row by its index costs a thousandth of decoding it.
"""

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

BATCH = 32
LR = 0.001


def loader(downloads: Path, rows: NDArray[np.int64]) -> DataLoader:
    """Return batches of these rows of torchvision's training images, in another order every epoch."""
    images = datasets.MNIST(downloads, train=True, transform=transforms.ToTensor())
    return DataLoader(Subset(images, rows.tolist()), batch_size=BATCH, shuffle=True)


def model(seed: int) -> nn.Linear:
    """Return the model, with the same initial weights as Hallmark's preset."""
    torch.manual_seed(seed)
    return nn.Linear(28 * 28, 10)


def epoch(network: nn.Linear, batches: DataLoader) -> float:
    """Train for one epoch and return its seconds."""
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=LR)
    started = time.perf_counter()
    for images, labels in batches:
        optimizer.zero_grad()
        loss = criterion(network(images.view(-1, 28 * 28)), labels)
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def accuracy(network: nn.Linear, downloads: Path) -> float:
    """Return the share of the 10,000 test images that it classifies correctly."""
    images = datasets.MNIST(downloads, train=False, transform=transforms.ToTensor())
    right = 0
    with torch.no_grad():
        for batch, labels in DataLoader(images, batch_size=BATCH):
            right += int((network(batch.view(-1, 28 * 28)).argmax(1) == labels).sum())
    return right / len(images)
