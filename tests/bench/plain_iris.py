"""Iris from command to registered model, written the way the tutorials of the five libraries say."""
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import mlflow
import numpy as np
import onnx
import onnxruntime
import torch
from mlflow.models import infer_signature
from prefect import flow, task
from sklearn.datasets import load_iris
from sklearn.metrics import ConfusionMatrixDisplay, RocCurveDisplay, f1_score, log_loss, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler


@task
def prepare():
    x, y = load_iris(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    x_train, x_val, y_train, y_val = train_test_split(x_train, y_train, test_size=0.25, stratify=y_train, random_state=0)
    return x_train, x_val, x_test, y_train, y_val, y_test


@task
def fit(x_train, x_val, y_train, y_val):
    torch.manual_seed(0)
    scaler = StandardScaler().fit(x_train)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 50), torch.nn.ReLU(), torch.nn.Linear(50, 50), torch.nn.ReLU(), torch.nn.Linear(50, 3)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x = torch.tensor(scaler.transform(x_train), dtype=torch.float32)
    y = torch.tensor(y_train)
    xv = torch.tensor(scaler.transform(x_val), dtype=torch.float32)
    yv = torch.tensor(y_val)
    for epoch in range(1, 101):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            logits = model(xv)
            mlflow.log_metrics(
                {
                    "train_loss": loss.item(),
                    "val_loss": torch.nn.functional.cross_entropy(logits, yv).item(),
                    "val_accuracy": (logits.argmax(1) == yv).float().mean().item(),
                },
                step=epoch,
            )
    return scaler, model


class Classifier(torch.nn.Module):
    def __init__(self, scaler, model):
        super().__init__()
        self.register_buffer("mean", torch.tensor(scaler.mean_, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scaler.scale_, dtype=torch.float32))
        self.model = model

    def forward(self, x):
        probabilities = torch.softmax(self.model((x - self.mean) / self.scale), dim=1)
        return probabilities.argmax(1), probabilities


@task
def evaluate(classifier, x_test, y_test):
    with torch.no_grad():
        label, p = (t.numpy() for t in classifier(torch.tensor(x_test, dtype=torch.float32)))
    mlflow.log_metrics(
        {
            "test_accuracy": float((label == y_test).mean()),
            "test_log_loss": log_loss(y_test, p),
            "test_f1": f1_score(y_test, label, average="macro"),
            "test_auc": roc_auc_score(y_test, p, multi_class="ovr"),
        }
    )
    ConfusionMatrixDisplay.from_predictions(y_test, label)
    mlflow.log_figure(plt.gcf(), "confusion_matrix.png")
    RocCurveDisplay.from_predictions(y_test == 2, p[:, 2])
    mlflow.log_figure(plt.gcf(), "roc.png")


@task
def export(classifier, x_test):
    example = torch.tensor(x_test[:2], dtype=torch.float32)
    torch.onnx.export(
        classifier,
        (example,),
        "iris.onnx",
        input_names=["x"],
        output_names=["label", "probabilities"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        dynamo=True,
    )


@task
def verify(classifier, x_test):
    x = x_test.astype(np.float32)
    session = onnxruntime.InferenceSession("iris.onnx")
    label, p = session.run(None, {"x": x})
    with torch.no_grad():
        expected = classifier(torch.tensor(x))[1].numpy()
    np.testing.assert_allclose(p, expected, rtol=1e-5, atol=1e-5)


@task
def register(x_test):
    x = x_test[:5].astype(np.float32)
    mlflow.onnx.log_model(
        onnx.load("iris.onnx"),
        name="model",
        input_example=x,
        signature=infer_signature(x, np.zeros((5, 3), dtype=np.float32)),
        registered_model_name="plain-iris",
    )


@flow
def train():
    mlflow.set_tracking_uri(f"sqlite:///{Path('plain.db').resolve()}")
    mlflow.set_experiment("plain-iris")
    with mlflow.start_run():
        x_train, x_val, x_test, y_train, y_val, y_test = prepare()
        scaler, model = fit(x_train, x_val, y_train, y_val)
        classifier = Classifier(scaler, model).eval()
        evaluate(classifier, x_test, y_test)
        export(classifier, x_test)
        verify(classifier, x_test)
        register(x_test)


if __name__ == "__main__":
    train()
