"""Steps: Prefect tasks that put their own name on their progress lines and on the errors that they raise."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task

from hallmark.tasks.runtime import progress

P = ParamSpec("P")
R = TypeVar("R")

_ATTRIBUTE = "hallmark_step"


def step(name: str, subject: str = "", **options: Any) -> Callable[[Callable[P, R]], Task[P, R]]:  # noqa: ANN401 - Prefect's options
    """Make a Prefect task of a function.

    Args:
        name: label of the step's progress lines, and of its failure on the command line.
        subject: what the step works on, as a template of its arguments such as `{experiment.name}`. Name and subject
            name its runs in Prefect; without a subject Prefect makes a name up.
        options: those of `prefect.task`.
    """
    if subject:
        options = {"task_run_name": f"{name} {subject}"} | options

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        @wraps(function)
        def labelled(*args: P.args, **kwargs: P.kwargs) -> R:
            with running(name):
                return function(*args, **kwargs)

        return task(labelled, **options)

    return decorate


# Public and without a closure: Prefect pickles a task's function for its process pool, and cannot pickle a ContextVar.
@contextmanager
def running(name: str) -> Iterator[None]:
    """Label the block's progress lines, and the exception that leaves it, with the step's name."""
    token = progress.current_step.set(name)
    try:
        yield
    except BaseException as error:
        # An attribute survives pickling, on the way out of a process pool.
        error.__dict__.setdefault(_ATTRIBUTE, name)
        raise
    finally:
        progress.current_step.reset(token)


def failed_step(error: BaseException) -> str | None:
    """Return the name of the step that raised an error, or None if no step did."""
    name: str | None = getattr(error, _ATTRIBUTE, None)
    return name
