"""Export of a trained classifier to an ONNX graph: raw input in, label and probabilities out. No certificate yet."""

import warnings
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.files import whole_file
from hallmark.tasks.common.records import OUTPUT_NAMES, Artifact, Dataset
from hallmark.tasks.ml.artifact import file_format
from hallmark.tasks.ml.artifact.runtimes import feeds, input_names
from hallmark.tasks.ml.config.experiment import Export
from hallmark.tasks.ml.data.dataset_store import ENCODING
from hallmark.tasks.ml.data.tables import encoding
from hallmark.tasks.ml.models.networks import Classifier

EXAMPLE_ROWS = 3
"""Rows of the traced example. A batch of one may be specialised into a constant."""


class Served(nn.Module):
    """A classifier with the inputs and outputs of the exported graph."""

    def __init__(self, classifier: Classifier) -> None:
        """Wrap a trained classifier."""
        super().__init__()
        self.classifier = classifier

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Classify raw rows.

        Args:
            inputs: one image batch, `(N, H, W)` or `(N, H, W, 3) uint8`, or each column as `(N, 1) float32` or
                float64.

        Returns:
            `label` `(N,) int64` and `probabilities` `(N, C) float32`.
        """
        raw = torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0]
        probabilities = self.classifier(raw)
        return probabilities.argmax(1), probabilities


def input_types(dataset: Dataset) -> tuple[str, ...]:
    """Return the type of each input: `uint8`, `float32`, `float64` (wide column), or `string` (categorical column)."""
    if dataset.is_table:
        numbers = ("float64" if name in dataset.wide else "float32" for name in dataset.columns)
        return tuple(
            "string" if kind == "categorical" else number for kind, number in zip(dataset.kinds, numbers, strict=True)
        )
    return (dataset.dtype,) * len(input_names(dataset.columns))


def trace(classifier: Classifier, dataset: Dataset, export: Export) -> torch.onnx.ONNXProgram:
    """Trace the classifier with torch: the ONNX graph, and the torch program that it was made from.

    For a user's table, only the part after the encoding is traced, because torch cannot express text.
    """
    zeros = np.zeros((EXAMPLE_ROWS, *dataset.shape), dtype=np.float32 if dataset.is_table else dataset.dtype)
    names: tuple[str, ...] = (encoding.FEATURES,) if dataset.is_table else input_names(dataset.columns)
    if dataset.is_table:
        classifier = Classifier(nn.Identity(), classifier.network, classifier.model, classifier.loss)
    given = feeds(() if dataset.is_table else dataset.columns, zeros)
    example = tuple(torch.from_numpy(value) for value in given.values())
    batch = torch.export.Dim("N")
    with warnings.catch_warnings():
        # All inputs share one batch axis, and torch warns for each of them.
        warnings.filterwarnings("ignore", message=".*axis name: N will not be used", category=UserWarning)
        traced = torch.onnx.export(
            Served(classifier).eval(),
            example,
            dynamo=True,
            input_names=names,
            output_names=OUTPUT_NAMES,
            opset_version=export.opset,
            dynamic_shapes=(tuple({0: batch} for _ in example),),
            external_data=False,
            verbose=False,
        )
    return cast(torch.onnx.ONNXProgram, traced)


def export(classifier: Classifier, dataset: Dataset, export: Export, path: Path) -> Artifact:
    """Write the classifier as one ONNX file with a dynamic batch size and its weights inside.

    The same classifier gives the same bytes in any folder: torch's notes on the traced source code are removed.

    Args:
        classifier: the trained model, on the CPU.
        dataset: gives names, shapes and types of the inputs, and the classes.
        export: the operator set.
        path: the file to write, whole or not at all.
    """
    model = trace(classifier, dataset, export).model_proto
    if dataset.is_table:
        model = encoding.join((dataset.folder / ENCODING).read_bytes(), model, dataset.columns)
    _strip(model)
    file_format.tidy(model)
    onnx.checker.check_model(model, full_check=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    return Artifact(path=path, sha256=file_digest(path))


def _strip(model: onnx.ModelProto) -> None:
    """Remove torch's notes on the traced code, such as stack traces with absolute paths."""
    graph = model.graph
    for noted in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
