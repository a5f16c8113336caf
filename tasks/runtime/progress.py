"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from datetime import timedelta

from hallmark.tasks.common.errors import printable
from hallmark.tasks.common.records import Finding
from hallmark.tasks.common.terminal import Console

SECONDS_BETWEEN_LINES = 5.0

current_step: ContextVar[str] = ContextVar("current_step")
"""Name of the running step; see `hallmark.tasks.runtime.steps`."""


def report(text: str) -> None:
    """Print one line of the running step, labelled with its name."""
    line(current_step.get(), text)


def line(label: str, text: str) -> None:
    """Print one line with a label."""
    _console().print(f"{label:<9}{printable(text)}", markup=False, highlight=False)


def resumed(epoch: int, step: int) -> None:
    """Print from which checkpoint an interrupted training continues."""
    line("resumed", f"after epoch {epoch}" + f" and {step} steps of the next" * (step > 0) + ", from its checkpoint")


def findings(found: Sequence[Finding]) -> None:
    """Print a line for each finding."""
    for finding in found:
        line("finding", f"{finding.code}: {finding.sentence} (remedy: {finding.remedy})")


@contextmanager
def epochs(total: int, *, shown: bool = True) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Show the epochs of the running step: loss, accuracy and remaining time.

    Args:
        total: number of epochs.
        shown: False shows nothing.

    Yields:
        `show(epoch, metrics)`, to be called after each epoch.
    """
    if not shown:
        yield lambda epoch, metrics: None  # noqa: ARG005 - nothing is shown
    elif sys.stderr.isatty():
        with _bar(total) as show:
            yield show
    else:
        yield _lines(total)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (f"{current_step.get():<8}", BarColumn(16), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(compact=True), console=_console()) as progress:
        bar = progress.add_task("", total=total)
        yield lambda epoch, metrics: progress.update(bar, completed=epoch, description=_describe(metrics))


def _lines(total: int) -> Callable[[int, dict[str, float]], None]:
    started = time.monotonic()
    last = 0.0

    def show(epoch: int, metrics: dict[str, float]) -> None:
        nonlocal last
        elapsed = time.monotonic() - started
        if epoch == total or elapsed - last >= SECONDS_BETWEEN_LINES:
            last = elapsed
            left = timedelta(seconds=round(elapsed / epoch * (total - epoch)))
            report(f"epoch {epoch}/{total}  {_describe(metrics)}" + f"  {left} left" * (epoch < total))

    return show


def images(what: str) -> AbstractContextManager[Callable[[int, int | None], None]]:
    """Show how many of the user's images have been read, as `rows` does.

    Args:
        what: what is done to the images, such as `decoded`.
    """
    return rows("prepare", f"images {what}")


@contextmanager
def rows(label: str, what: str = "rows") -> Iterator[Callable[[int, int | None], None]]:
    """Show how many rows were processed: a bar that disappears at the end, or a line every few seconds.

    Args:
        label: label of the lines.
        what: name of the counted things.

    Yields:
        `show(done, total)`, to be called after each batch; the total is None if it is not known yet.
    """
    started = time.monotonic()

    def describe(done: int) -> str:
        return f"{done:,} {what}, {done / (time.monotonic() - started):,.0f} a second"

    if sys.stderr.isatty():
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (f"{label:<8}", BarColumn(16), TextColumn("{task.description}"))
        with Progress(*columns, console=_console(), transient=True) as progress:
            bar = progress.add_task("", total=None)
            yield lambda done, total: progress.update(bar, total=total, completed=done, description=describe(done))
    else:
        yield _row_lines(label, describe)


def _row_lines(label: str, describe: Callable[[int], str]) -> Callable[[int, int | None], None]:
    last = time.monotonic()

    def show(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            line(label, (f"{done / total:.0%}, " if total else "") + describe(done))

    return show


def _describe(metrics: dict[str, float]) -> str:
    """Return loss and accuracy of the validation split, or of the training split if there is none."""
    split = "val" if "val/loss" in metrics else "train"
    return f"{split} loss {metrics[f'{split}/loss']:.4f}  accuracy {metrics[f'{split}/accuracy']:.3f}"


def _console() -> Console:
    # Made at each use: a Console keeps the stderr of its creation, and tests and workers replace stderr.
    return Console(stderr=True, soft_wrap=True)
