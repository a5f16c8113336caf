"""Iris from command to registered model, written as the documentation of the five libraries shows it.

The baseline of `bench_iris`: the same data, split, network, training, metrics, pictures, export, check and
registration as Hallmark's preset `iris`, in one simple script. Its argument is the folder for all files.
"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import mlflow
import numpy as np
import onnx
import onnxruntime
import torch
from mlflow.models import infer_signature
from prefect import flow, task
from sklearn.datasets import load_iris
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    RocCurveDisplay,
    accuracy_score,
    f1_score,
    log_loss,
    roc_auc_score,
)
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

Split = tuple[np.ndarray, np.ndarray]


class Classifier(torch.nn.Module):
    def __init__(self, scaler: StandardScaler, network: torch.nn.Module) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(scaler.mean_, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scaler.scale_, dtype=torch.float32))
        self.network = network

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        probabilities = self.network((x - self.mean) / self.scale).softmax(1)
        return probabilities.argmax(1), probabilities


@task
def prepare() -> tuple[Split, Split, Split]:
    x, y = load_iris(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    x_train, x_val, y_train, y_val = train_test_split(x, y, test_size=30, stratify=y, random_state=0)
    return (x_train, y_train), (x_val, y_val), (x_test, y_test)


@task
def fit(train: Split, validation: Split) -> Classifier:
    torch.manual_seed(0)
    scaler = StandardScaler().fit(train[0])
    network = torch.nn.Sequential(
        torch.nn.Linear(4, 50), torch.nn.ReLU(), torch.nn.Linear(50, 50), torch.nn.ReLU(), torch.nn.Linear(50, 3)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    loss_of = torch.nn.CrossEntropyLoss()
    x, x_val = (torch.tensor(scaler.transform(part[0]), dtype=torch.float32) for part in (train, validation))
    y, y_val = (torch.tensor(part[1]) for part in (train, validation))
    mlflow.log_params({"epochs": 100, "lr": 0.01, "optimizer": "adam", "hidden": "50,50", "seed": 0})
    for epoch in range(1, 101):
        optimizer.zero_grad()
        logits = network(x)
        loss = loss_of(logits, y)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            logits_val = network(x_val)
        metrics = {
            "train_loss": loss.item(),
            "train_accuracy": (logits.argmax(1) == y).float().mean().item(),
            "val_loss": loss_of(logits_val, y_val).item(),
            "val_accuracy": (logits_val.argmax(1) == y_val).float().mean().item(),
        }
        mlflow.log_metrics(metrics, step=epoch)
    return Classifier(scaler, network).eval()


@task
def evaluate(classifier: Classifier, test: Split) -> None:
    x, y = test
    with torch.no_grad():
        label, probabilities = (out.numpy() for out in classifier(torch.tensor(x, dtype=torch.float32)))
    metrics = {
        "test_accuracy": accuracy_score(y, label),
        "test_log_loss": log_loss(y, probabilities),
        "test_f1": f1_score(y, label, average="macro"),
        "test_auc": roc_auc_score(y, probabilities, multi_class="ovr"),
    }
    mlflow.log_metrics(metrics)
    mlflow.log_figure(ConfusionMatrixDisplay.from_predictions(y, label).figure_, "confusion_matrix.png")
    figure, axes = plt.subplots()
    for index in range(3):
        RocCurveDisplay.from_predictions(y == index, probabilities[:, index], ax=axes)
    mlflow.log_figure(figure, "roc.png")


@task
def export(classifier: Classifier, path: Path, example: np.ndarray) -> None:
    torch.onnx.export(
        classifier,
        (torch.tensor(example, dtype=torch.float32),),
        path,
        dynamo=True,
        input_names=["x"],
        output_names=["label", "probabilities"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
    )


@task
def verify(classifier: Classifier, path: Path, test: Split) -> None:
    x = test[0].astype(np.float32)
    found = onnxruntime.InferenceSession(path).run(None, {"x": x})
    with torch.no_grad():
        expected = classifier(torch.tensor(x))
    np.testing.assert_array_equal(found[0], expected[0].numpy())
    np.testing.assert_allclose(found[1], expected[1].numpy(), rtol=1e-5, atol=1e-5)


@task
def register(path: Path, example: np.ndarray) -> None:
    example = example.astype(np.float32)
    mlflow.onnx.log_model(
        onnx.load(path),
        name="model",
        input_example=example,
        signature=infer_signature(example, np.zeros((len(example), 3), dtype=np.float32)),
        registered_model_name="plain_iris",
    )


@flow
def train(folder: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.set_experiment("plain_iris")
    with mlflow.start_run():
        train_split, validation, test = prepare()
        classifier = fit(train_split, validation)
        evaluate(classifier, test)
        example, path = test[0][:3], folder / "plain_iris.onnx"
        export(classifier, path, example)
        verify(classifier, path, test)
        register(path, example)


if __name__ == "__main__":
    train(Path(sys.argv[1]).absolute())
