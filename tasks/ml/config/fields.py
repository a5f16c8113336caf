"""Base class and field types of the experiment's parts."""

import csv
import io
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

FLOAT32 = 3e38
"""Largest number accepted by fields that are used in float32 arithmetic."""

MOST_LAYERS = 50
"""Maximum number of hidden layers or of convolutions. With hundreds, the export does not end."""


class Part(BaseModel):
    """A frozen part of the experiment that rejects unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def describe_problem(message: str) -> str:
    """Return a message of pydantic as the end of a sentence: `Value error, Too large` becomes `too large`."""
    message = message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _comma_separated(value: object) -> object:
    """Split a list given on the command line, such as `64,32`."""
    return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def names(value: Any) -> Any:  # noqa: ANN401 - unvalidated input
    """Split a list of names given as `id,name`; names with a comma are in double quotes, as in CSV."""
    if not isinstance(value, str):
        return value
    lines = csv.reader(io.StringIO(value, newline=""), skipinitialspace=True)
    return [part.strip() for line in lines for part in line if part.strip()]


def _some_above_0(factors: tuple[float, ...]) -> tuple[float, ...]:
    if not any(factors):
        raise ValueError("every factor is 0: expected at least one above 0")
    return factors


Numbers = Annotated[
    tuple[Annotated[float, Field(ge=-FLOAT32, le=FLOAT32)], ...],
    BeforeValidator(_comma_separated),
]
Labels = Annotated[
    tuple[Annotated[int, Field(ge=0, le=999)], ...],
    BeforeValidator(_comma_separated),
]
Factors = Annotated[
    tuple[Annotated[float, Field(ge=0, le=FLOAT32)], ...],
    BeforeValidator(_comma_separated),
    Field(min_length=1),
    AfterValidator(_some_above_0),
]
Widths = Annotated[
    tuple[Annotated[int, Field(ge=1, le=65536)], ...],
    BeforeValidator(_comma_separated),
    Field(min_length=1, max_length=MOST_LAYERS),
]
Names = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(names),
]
