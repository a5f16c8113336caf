"""The `hallmark` command: a table of subcommands, each imported only when it is called."""

import atexit
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from hallmark.tasks.runtime import signals

if TYPE_CHECKING:
    from cyclopts import App

COMMANDS = {
    "train": (
        "hallmark.flows.cli.train:command",
        "Train a model on a preset, a TOML file or your own data, and register it.",
    ),
    "sweep": (
        "hallmark.flows.cli.sweep:command",
        "Train many configurations and register the one with the lowest validation loss.",
    ),
    "retrain": (
        "hallmark.flows.cli.retrain:command",
        "Train a challenger, compare it with the champion, and promote it if it is better.",
    ),
    "champion": (
        "hallmark.flows.cli.champions:champion",
        "Show which version of a model is champion, since when, and why.",
    ),
    "history": ("hallmark.flows.cli.champions:history", "List every promotion decision about a model."),
    "judge": (
        "hallmark.flows.cli.champions:judge",
        "Show what would be decided about a version, without recording it.",
    ),
    "promote": ("hallmark.flows.cli.champions:promote", "Make a version the champion by hand."),
    "rollback": ("hallmark.flows.cli.champions:rollback", "Make the previous champion the champion again."),
    "verify": (
        "hallmark.flows.cli.verify:verify",
        "Check that an exported file is undamaged and gives the predictions stored in it.",
    ),
    "reproduce": (
        "hallmark.flows.cli.reproduce:reproduce",
        "Repeat a recorded run and compare weights and file bit by bit.",
    ),
    "predict": (
        "hallmark.flows.cli.predict:predict",
        "Predict the rows of a file with an exported or registered model.",
    ),
    "serve": ("hallmark.flows.cli.serve:serve", "Run the schedules in schedules.toml."),
    "deploy": ("hallmark.flows.cli.serve:deploy", "Assign the schedules to a Prefect work pool."),
    "presets": ("hallmark.flows.cli.presets:presets", "List the presets."),
    "show": ("hallmark.flows.cli.presets:show", "Print an experiment as a TOML file."),
    "runs": ("hallmark.flows.cli.runs:runs", "List recent runs."),
    "compare": ("hallmark.flows.cli.compare:compare", "Compare the options, metrics and curves of several runs."),
    "card": ("hallmark.flows.cli.card:card", "Save a model's card, or build a page that runs the model in a browser."),
    "up": ("hallmark.flows.cli.station:up", "Start the Prefect server, the MLflow server and the schedules."),
    "status": ("hallmark.flows.cli.station:status", "Show what is running, what is scheduled next, and what ran last."),
    "down": ("hallmark.flows.cli.station:down", "Stop what `hallmark up` started."),
    "ui": ("hallmark.flows.cli.runs:ui", "Serve the MLflow UI for the project's runs."),
    "backup": (
        "hallmark.flows.cli.maintenance:backup",
        "Write home, runs, registered models and decisions into one file.",
    ),
    "restore": ("hallmark.flows.cli.maintenance:restore", "Restore a backup, after checking it."),
    "prune": (
        "hallmark.flows.cli.maintenance:prune",
        "Remove old runs, files and logs that no champion, decision or open attempt needs.",
    ),
    "doctor": ("hallmark.flows.cli.doctor:doctor", "Check this machine for problems that would make a command fail."),
}


def main() -> None:
    """Run the command on the command line and exit with its exit code."""
    signals.leave_at_once()
    _open_closed_streams()
    code = 1
    # Python processes that libraries start, such as the workers of a sweep, import nothing from the current folder.
    os.environ["PYTHONSAFEPATH"] = "1"

    def leave() -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)

    # Registered first, so called last. It skips the interpreter's teardown of torch, MLflow and Prefect, which takes
    # two seconds and has no effect.
    atexit.register(leave)
    code = _flush(run(sys.argv[1:], catch_background=True))
    if "prefect" in sys.modules:
        from hallmark.tasks.runtime import prefect_api

        if prefect_api.is_given_up():
            leave()
    signals.leave_at_once(code)
    sys.exit(code)


def run(tokens: list[str], *, catch_background: bool = False) -> int:
    """Run a command. Whatever it raises becomes one line on stderr.

    Args:
        tokens: the command line, without `hallmark` itself.
        catch_background: also report on one line what threads and destructors raise, for the rest of the process.

    Returns:
        exit code: 0 for success, 2 if the input was refused before work began, 1 for a failure, 130 if interrupted.
    """
    try:
        with signals.as_interrupt(starting=True):
            if catch_background:
                from hallmark.flows.cli.shared import background_errors

                background_errors.catch()
            _application(tokens)(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except BaseException as error:  # noqa: BLE001 - `expected` logs the traceback of an unexpected one
        try:
            return _exit_code(error)
        except BaseException as second:  # noqa: BLE001 - out of memory or disk space: what is left is one line
            return _write(f"unexpected {type(error).__name__}, and then {type(second).__name__} while reporting it", 1)
    return 0


def _exit_code(error: BaseException) -> int:
    """Report an error that ended a command, and return the exit code."""
    from cyclopts import CycloptsError

    from hallmark.flows.cli.shared import errors  # not needed by a command that succeeds
    from hallmark.tasks.common.errors import InputError

    if isinstance(error, BrokenPipeError) and errors.is_stdout_closed():
        return 0
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return error.code or 0
    if isinstance(error, CycloptsError):
        return _write(errors.one_line(error), 2)
    match errors.expected(error):
        case InputError() as refused:
            return _write(errors.one_line(refused), 2)
        case KeyboardInterrupt():
            return _write("interrupted", signals.INTERRUPTED)
        case failed:
            return _write(errors.one_line(failed), 1)


def _write(line: str, code: int) -> int:
    """Write a line to stderr, if that can still be written, and return the exit code."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"hallmark: {line}\n")
        sys.stderr.flush()
    return code


def _open_closed_streams() -> None:
    """Open streams that the caller has closed (`>&-`), so that no file takes their place and is written to."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", encoding="utf-8"))  # noqa: SIM115, PTH123


def _flush(code: int) -> int:
    """Write out stdout, and return the exit code. It may be closed by its reader, or on a full disk."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Otherwise Python would try again when it exits, and fail with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not code and not isinstance(error, BrokenPipeError):
            return _write(f"stdout cannot be written: {error.strerror or error}", 1)
    return code


def _application(tokens: list[str]) -> "App":
    from cyclopts import App, Parameter

    app = App(
        name="hallmark",
        help="Train classifiers, track the runs, and export ONNX files that are checked against the trained model.",
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
        version=_version,
        default_parameter=Parameter(show_default=lambda value: None if value is None or value is False else str(value)),
    )
    for position, (name, (target, summary)) in enumerate(COMMANDS.items()):
        # The command to run is imported anyway, and its docstring is the full help.
        is_typed = tokens[:1] == [name]
        app.command(target, name=name, help=None if is_typed else summary, sort_key=position)
        if is_typed:
            _unwrap_docstring(target)
    return app


def _version() -> str:
    from importlib.metadata import version

    return version("hallmark")


def _unwrap_docstring(target: str) -> None:
    """Join the lines of each paragraph in a command's docstring, so that its help fills the terminal."""
    import inspect

    from cyclopts import App

    module, _, name = target.partition(":")
    command = getattr(import_module(module), name)
    function = command.default_command if isinstance(command, App) else command
    lines: list[str] = []
    for line in inspect.cleandoc(str(function.__doc__)).splitlines():
        previous = lines[-1] if lines else ""
        if line and previous and _indent(line) == _indent(previous) and "---" not in previous + line:
            lines[-1] += f" {line.lstrip()}"
        else:
            lines.append(line)
    function.__doc__ = "\n".join(lines)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


if __name__ == "__main__":
    main()
