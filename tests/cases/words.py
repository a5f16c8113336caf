"""Patterns of what is printed about a table, and short forms to write cases with."""

from tests.cases.case import Case

TARGET = "--target y"
SHORT = f"{TARGET} --training.epochs 3 --training.patience 0"
"""Options of a training whose result does not matter."""
RAN, REFUSED, EITHER = (0,), (2,), (0, 2)
"""Exit codes."""


def numeric(name: str) -> str:
    """Match the line that lists a column as numeric."""
    return rf"numeric: (.*, )?{name}\b"


def boolean(name: str) -> str:
    """Match the line that lists a column as boolean."""
    return rf"boolean: (.*, )?{name}\b"


def categorical(name: str) -> str:
    """Match the line that lists a column as categorical."""
    return rf"categorical: (.*, )?{name}\b"


def date(name: str) -> str:
    """Match the line that lists a column as a date."""
    return rf"(?i:dates?: (.*, )?{name}\b)"


def finding(*words: str) -> str:
    """Match a finding that has these words in this order."""
    return "^finding .*" + ".*".join(words)


def classes(*names: str) -> str:
    """Match the classes that were stored."""
    return f"^stored +classes: {', '.join(names)}$"


def any_of(*patterns: str) -> str:
    """Match any of the patterns."""
    return f"(?:{'|'.join(f'(?:{pattern})' for pattern in patterns)})"


READ = (numeric("a"), numeric("b"), categorical("c"))
"""How the columns of the base table are read."""


def read(name: str, file: str, expected: str, *has: str, options: str = TARGET, **more: object) -> Case:
    """Return a case of reading a table."""
    return Case(name, f"read {file} {options}".rstrip(), expected, has, **more)  # type: ignore[arg-type]


def predict(name: str, model: str, rows: str, expected: str, *has: str, **more: object) -> Case:
    """Return a case of predicting rows with the model trained on `model`, a path with options."""
    trained, command = training(model)
    return Case(name, f"predict {trained} {rows}", expected, has, after=(command,), **more)  # type: ignore[arg-type]


def training(model: str) -> tuple[str, str]:
    """Return name and command of a training on `model`, a path with options; by default those in `SHORT`."""
    file, _, options = model.partition(" ")
    name = file.replace("/", "-").removesuffix(".csv").removesuffix(".parquet")
    return name, f"train {file} --name {name} {options or SHORT}"
