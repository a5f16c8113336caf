"""The argument that names the source of an experiment. Imports pydantic, which not every command needs."""

from typing import Annotated

from cyclopts import Parameter

from hallmark.tasks.ml.config.table_names import TABLE_SUFFIXES

ExperimentSource = Annotated[
    str,
    Parameter(
        help=f"A preset, a .toml file, a table ({' or '.join(TABLE_SUFFIXES)}; needs --target) or its address, or a "
        "folder of images.",
        allow_leading_hyphen=True,
    ),
]
"""Source of an experiment on the command line."""
