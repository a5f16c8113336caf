"""Choose the best member by the validation split."""

from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.common.files import temporary_folder
from hallmark.tasks.common.records import Run
from hallmark.tasks.common.results import Member
from hallmark.tasks.ml.reports.plots import sweep
from hallmark.tasks.ml.training.history import timestamp_of
from hallmark.tasks.runtime import progress
from hallmark.tasks.runtime.steps import step
from hallmark.tasks.tracking import run_logger


@step("choose")
def choose(members: tuple[Member, ...], axes: tuple[str, ...], run: Run) -> int:
    """Return the index of the member with the lowest validation loss. Log table, picture and choice to the parent run.

    Raises:
        DivergedError: all members diverged.
    """
    losses = [member.loss for member in members]
    finite = [index for index, loss in enumerate(losses) if loss is not None]
    if not finite:
        raise DivergedError(f"all {len(members)} members diverged, the first one: {members[0].failed}")
    chosen = min(finite, key=lambda index: (losses[index], index))
    with temporary_folder() as folder:
        values = [member.values for member in members]
        picture = sweep.picture(axes, values, losses, chosen, folder / "sweep.png")
        clock = timestamp_of(run.attempt.folder, "choice", 0, {})
        run_logger.log_choice(run, members, chosen, picture, clock)
    best = members[chosen]
    progress.report(f"{best.label}: validation loss {best.loss:.4f}, the lowest of {len(finite)}")
    return chosen
