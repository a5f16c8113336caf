"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

from rich.console import Console

from hallmark.tasks.common.records import Finding

SECONDS_BETWEEN_LINES = 5.0


def say(step: str, text: str) -> None:
    """Say in one line what a step did."""
    _console().print(f"{step:<9}{text}", markup=False, highlight=False)


def resumed(epoch: int, step: int) -> None:
    """Say where an interrupted training goes on."""
    say("resumed", f"after epoch {epoch}" + f" and {step} steps of the next" * (step > 0) + ", from its checkpoint")


def warn(findings: Sequence[Finding]) -> None:
    """Say what is wrong with an experiment, and what to do about it."""
    for finding in findings:
        say("finding", f"{finding.code}: {finding.sentence} (remedy: {finding.remedy})")


@contextmanager
def epochs(total: int, *, shown: bool = True) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Show the epochs of a training, unless it is not to be `shown`: loss, accuracy and time left.

    Yields:
        `show(epoch, metrics)`, to be called after each epoch.
    """
    if not shown:
        yield lambda epoch, metrics: None  # noqa: ARG005 - nobody looks
    elif sys.stderr.isatty():
        with _bar(total) as show:
            yield show
    else:
        yield _lines(total)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = ("fit     ", BarColumn(16), MofNCompleteColumn(), TextColumn("{task.description}"))
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
            say("fit", f"epoch {epoch}/{total}  {_describe(metrics)}" + f"  {left} left" * (epoch < total))

    return show


def images(what: str) -> AbstractContextManager[Callable[[int, int | None], None]]:
    """Show how many images of one's own were looked at or decoded, as `rows` does."""
    return rows("prepare", f"images {what}")


@contextmanager
def rows(step: str, what: str = "rows") -> Iterator[Callable[[int, int | None], None]]:
    """Show how many rows have passed: a bar that goes when all have, or lines where it takes long.

    Args:
        step: whose rows.
        what: rows, or something else that passes.

    Yields:
        `show(passed, total)`, to be called after each batch; the total is None where only the end will tell.
    """
    started = time.monotonic()

    def pace(passed: int) -> str:
        return f"{passed:,} {what}, {passed / (time.monotonic() - started):,.0f} a second"

    if sys.stderr.isatty():
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (f"{step:<8}", BarColumn(16), TextColumn("{task.description}"))
        with Progress(*columns, console=_console(), transient=True) as progress:
            bar = progress.add_task("", total=None)
            yield lambda passed, total: progress.update(bar, total=total, completed=passed, description=pace(passed))
    else:
        yield _row_lines(step, pace)


def _row_lines(step: str, pace: Callable[[int], str]) -> Callable[[int, int | None], None]:
    last = time.monotonic()

    def show(passed: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(step, (f"{passed / total:.0%}, " if total else "") + pace(passed))

    return show


def _describe(metrics: dict[str, float]) -> str:
    """Loss and accuracy of the validation split, or of training where there is none."""
    split = "val" if "val/loss" in metrics else "train"
    return f"{split} loss {metrics[f'{split}/loss']:.4f}  accuracy {metrics[f'{split}/accuracy']:.3f}"


def _console() -> Console:
    # Made at each use: a Console keeps the stream it was born with, and tests and workers swap stderr.
    return Console(stderr=True, soft_wrap=True)
