"""The argument that names what an experiment is built from. Imports pydantic, which other commands do without."""

from typing import Annotated

from cyclopts import Parameter

from hallmark.tasks.ml.config.data import TABLE_SUFFIXES

ExperimentSource = Annotated[
    str,
    Parameter(
        help=f"A preset, a .toml file, a table ({' or '.join(TABLE_SUFFIXES)}; needs --target), or a folder of images."
    ),
]
"""What an experiment is built from."""
