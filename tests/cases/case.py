"""A case: a command, what is expected of it, and the judgement of what was found."""

import re
from dataclasses import dataclass

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal would interpret. Lines end in `\\n`."""
UNEXPECTED = re.compile(r"Traceback|unexpected \w+(Error|Exception|Warning|Exit)")
"""What a command prints about an error that Hallmark did not expect."""

Predictions = list[dict[str, str]]
"""Rows of a file of predictions, by column."""


@dataclass(frozen=True, slots=True)
class Case:
    """A command and what is expected of it."""

    name: str
    command: str
    """Typed in the folder of the inputs. `read` in place of `hallmark train` reads, splits, stores and examines a table
    without training; every other word is a command of Hallmark."""
    expected: str
    """For a person to read."""
    has: tuple[str, ...] = ()
    """Patterns that must be found in what the command prints. `.` does not match the end of a line."""
    lacks: tuple[str, ...] = ()
    """Patterns that must not be found."""
    code: tuple[int, ...] = (0,)
    """Accepted exit codes."""
    after: tuple[str, ...] = ()
    """Commands that are run before, once for all cases that name them. Their result is not judged."""
    equals: str = ""
    """Another file with the same rows, which must get the same predictions."""
    isolated: bool = False
    """Whether each of the commands, separated by `;`, runs in a child process with limits of time and memory."""
    known: str = ""
    """Why the case does not hold yet; empty if it must hold."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a command did."""

    code: int | None
    """Exit code; None if it was stopped at its time limit."""
    text: str
    """Stdout and stderr."""
    failed: int = 0
    """Number of commands that failed or were refused."""
    predictions: Predictions | None = None
    compared: Predictions | None = None
    """Predictions of the rows in `Case.equals`."""

    @property
    def summary(self) -> str:
        """Return exit code and the lines that say most, shortened."""
        lines = [
            line for line in self.text.splitlines() if line.startswith(("hallmark:", "finding", "predict", "columns"))
        ]
        shown = " | ".join(lines or self.text.splitlines()[-2:])
        return f"exit {self.code}" + f": {printable(shown)[:400]}" * bool(shown)


def printable(text: str) -> str:
    """Escape control characters."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def differences(case: Case, found: Found) -> list[str]:
    """Return how a result differs from what is expected; empty if the case holds."""
    if found.code is None:
        return ["did not end within its time limit"]
    accepted = " or ".join(map(str, case.code))
    wrong = [f"exit code {found.code}, expected {accepted}"] if found.code not in case.code else []
    wrong += [f"lacks /{pattern}/" for pattern in case.has if not re.search(pattern, found.text, re.MULTILINE)]
    wrong += [f"has /{pattern}/" for pattern in case.lacks if re.search(pattern, found.text, re.MULTILINE)]
    if unexpected := UNEXPECTED.search(found.text):
        wrong.append(f"an unexpected error: {unexpected[0]}")
    if control := CONTROL.search(found.text):
        wrong.append(f"prints control character {control[0]!r}")
    if (lines := sum(line.startswith("hallmark: ") for line in found.text.splitlines())) != found.failed:
        wrong.append(f"{found.failed} commands failed, with {lines} lines that say why")
    return wrong + _apart(found)


def _apart(found: Found) -> list[str]:
    """Compare the predictions of two files with the same rows."""
    if found.compared is None or found.code:
        return []
    if found.predictions is None or len(found.predictions) != len(found.compared):
        return [f"{len(found.predictions or ())} rows predicted, expected {len(found.compared)}"]
    pairs = zip(found.predictions, found.compared, strict=True)
    apart = [number for number, (one, other) in enumerate(pairs, 1) if not _alike(one, other)]
    return (
        [f"{len(apart)} rows predicted differently from the same rows elsewhere, first row {apart[0]}"] if apart else []
    )


def _alike(one: dict[str, str], other: dict[str, str]) -> bool:
    """Return whether class and probabilities are the same, but for rounding."""
    names = [name for name in one if name.startswith("p_")]
    return one["class"] == other["class"] and all(abs(float(one[name]) - float(other[name])) < 1e-5 for name in names)
