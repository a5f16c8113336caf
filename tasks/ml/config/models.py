"""The model kinds of an experiment. Each one states its fields, what it costs and whether it can be stacked.

A new kind is a class here, an entry in `Model`, and a case in `hallmark.tasks.ml.models.networks.build`. This module
imports no torch.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.fields import FLOAT32, Part, Widths
from hallmark.tasks.ml.config.losses import Loss

Shape = tuple[int, ...]
"""Shape of one raw row: `(F,)` for columns, `(H, W)` or `(H, W, 3)` for images."""


class Network(Part):
    """Fields and costs that every model kind has."""

    requires_images: ClassVar[bool] = False
    """Whether this kind takes images only; other kinds take columns and images alike."""
    stackable: ClassVar[bool]
    """Whether several models of this kind can be trained together as one `gradients.StackedPerceptrons`: their layers
    must be linear, with ReLU between them."""

    output: Literal["logits", "sigmoid", "softmax", "log_softmax"] = Field(
        default="logits", description="activation of the output layer; logits: raw scores, no activation"
    )

    @abstractmethod
    def multiplications(self, shape: Shape, logits: int) -> int:
        """Return the number of multiplications in one forward pass of one row."""

    @abstractmethod
    def parameter_count(self, shape: Shape, logits: int) -> int:
        """Return the number of trained weights and biases."""

    @abstractmethod
    def activation_count(self, shape: Shape, logits: int) -> int:
        """Return the number of values that the linear and convolutional layers output for one row."""

    def refuse_shape(self, shape: Shape) -> None:
        """Refuse rows of a shape that this kind cannot take.

        Raises:
            InputError: the images are too small.
        """


class Linear(Network):
    """One linear layer: logistic regression under bce losses, softmax regression under cross_entropy."""

    stackable = True

    kind: Literal["linear"] = Field(description="the model")
    weight: float | None = Field(
        default=None, ge=-FLOAT32, le=FLOAT32, description="initial value of every weight; random if not given"
    )
    bias: float | None = Field(
        default=None, ge=-FLOAT32, le=FLOAT32, description="initial value of every bias; random if not given"
    )

    def multiplications(self, shape: Shape, logits: int) -> int:
        """Return the number of multiplications in one forward pass of one row."""
        return _perceptron_multiplications((math.prod(shape), logits))

    def parameter_count(self, shape: Shape, logits: int) -> int:
        """Return the number of trained weights and biases."""
        return _perceptron_parameters((math.prod(shape), logits))

    def activation_count(self, shape: Shape, logits: int) -> int:  # noqa: ARG002 - the signature of every kind
        """Return the number of values that the layer outputs for one row."""
        return logits


class MLP(Network):
    """Multi-layer perceptron: linear layers with ReLU between them."""

    stackable = True

    kind: Literal["mlp"] = Field(description="the model")
    hidden: Widths = Field(default=(50, 50), description="units of each hidden layer, first to last")

    def multiplications(self, shape: Shape, logits: int) -> int:
        """Return the number of multiplications in one forward pass of one row."""
        return _perceptron_multiplications((math.prod(shape), *self.hidden, logits))

    def parameter_count(self, shape: Shape, logits: int) -> int:
        """Return the number of trained weights and biases."""
        return _perceptron_parameters((math.prod(shape), *self.hidden, logits))

    def activation_count(self, shape: Shape, logits: int) -> int:  # noqa: ARG002 - the signature of every kind
        """Return the number of values that the layers output for one row."""
        return sum(self.hidden) + logits


class CNN(Network):
    """Convolutional network for images: convolutions, each with 2 x 2 pooling and ReLU, then linear layers."""

    requires_images = True
    stackable = False

    kind: Literal["cnn"] = Field(description="the model")
    channels: Widths = Field(default=(16, 32), description="output channels of each convolution, first to last")
    kernel: int = Field(default=3, ge=1, le=255, description="side of the square convolution kernel, in pixels")
    padding: Literal["same", "valid"] = Field(
        default="same", description="same: pad images with zeros so that they keep their size; valid: no padding"
    )
    hidden: Widths = Field(default=(128,), description="units of each hidden layer after the convolutions")

    @model_validator(mode="after")
    def _same_padding_needs_an_odd_kernel(self) -> "CNN":
        if self.padding == "same" and self.kernel % 2 == 0:
            raise ValueError(
                f"kernel {self.kernel} and padding 'same' contradict each other: use an odd kernel or padding 'valid'"
            )
        return self

    def sides(self, shape: Shape) -> Iterator[Shape]:
        """Yield height and width after each convolution, before pooling; below 1 if nothing is left."""
        sides = shape[:2]
        for _ in self.channels:
            sides = tuple(side if self.padding == "same" else side - self.kernel + 1 for side in sides)
            yield sides
            sides = tuple(side // 2 for side in sides)

    def flattened(self, shape: Shape) -> int:
        """Return the number of values that the last pooling outputs for one image."""
        *_, last = self.sides(shape)
        return math.prod(side // 2 for side in last) * self.channels[-1]

    def multiplications(self, shape: Shape, logits: int) -> int:
        """Return the number of multiplications in one forward pass of one image."""
        convolutions = zip(self.sides(shape), self._planes(shape), strict=True)
        by_convolutions = sum(
            math.prod(sides) * self.kernel**2 * before * after for sides, (before, after) in convolutions
        )
        return by_convolutions + _perceptron_multiplications((self.flattened(shape), *self.hidden, logits))

    def parameter_count(self, shape: Shape, logits: int) -> int:
        """Return the number of trained weights and biases."""
        convolutions = sum((self.kernel**2 * before + 1) * after for before, after in self._planes(shape))
        return convolutions + _perceptron_parameters((self.flattened(shape), *self.hidden, logits))

    def activation_count(self, shape: Shape, logits: int) -> int:
        """Return the number of values that the layers output for one image."""
        planes = zip(self.sides(shape), self.channels, strict=True)
        return sum(math.prod(sides) * after for sides, after in planes) + sum(self.hidden) + logits

    def refuse_shape(self, shape: Shape) -> None:
        """Refuse images that are too small for the convolutions and poolings.

        Raises:
            InputError: the message names the size of the images.
        """
        if min(min(sides) for sides in self.sides(shape)) < 2:
            remedy = "give fewer" if self.padding == "same" else "give fewer, or model.padding 'same'"
            raise InputError(
                f"model.channels: {len(self.channels)} convolutions and poolings leave nothing of "
                f"{shape[0]} x {shape[1]} pixels: {remedy}"
            )

    def _planes(self, shape: Shape) -> Iterator[tuple[int, int]]:
        """Yield input and output channels of each convolution."""
        return pairwise((image_channels(shape), *self.channels))


Model = Annotated[Linear | MLP | CNN, Field(discriminator="kind")]


def image_channels(shape: Shape) -> int:
    """Return the number of colour channels of an image, `(H, W)` or `(H, W, 3)`."""
    return shape[2] if len(shape) == 3 else 1


def output_units(model: Model, loss: Loss, classes: int) -> int:
    """Return the number of logits: 1 if one sigmoid separates two classes, else one for each class."""
    by_sigmoid = loss.kind in ("bce", "bce_with_logits") or (loss.kind == "mse" and model.output == "sigmoid")
    return 1 if by_sigmoid and classes == 2 else classes


def update_multiplications(model: Model, loss: Loss, shape: Shape, classes: int) -> int:
    """Return the number of multiplications in an update, per row: once forward and twice backward."""
    return 3 * model.multiplications(shape, output_units(model, loss, classes))


def _perceptron_multiplications(widths: Shape) -> int:
    return sum(before * after for before, after in pairwise(widths))


def _perceptron_parameters(widths: Shape) -> int:
    return sum((before + 1) * after for before, after in pairwise(widths))
