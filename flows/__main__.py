"""The `hallmark` command: a table of subcommands, each imported only when it is called."""

import atexit
import inspect
import os
import sys
from importlib import import_module
from importlib.metadata import version

from cyclopts import App, CycloptsError, Parameter

from hallmark.tasks.common.errors import InputError

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
    code = 1
    # Python processes that libraries start, such as the workers of a sweep, import nothing from the current folder.
    os.environ["PYTHONSAFEPATH"] = "1"

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    # Registered first, so called last. It skips the interpreter's teardown of torch, MLflow and Prefect, which takes
    # two seconds and has no effect.
    atexit.register(leave)
    code = run(sys.argv[1:])
    if "prefect" in sys.modules:
        from hallmark.tasks.runtime import prefect_api

        if prefect_api.is_given_up():
            leave()
    sys.exit(code)


def run(tokens: list[str]) -> int:
    """Run a command.

    Args:
        tokens: the command line, without `hallmark` itself.

    Returns:
        exit code: 0 for success, 2 if the input was refused before work began, 1 for a failure, 130 if interrupted.
    """
    try:
        _application(tokens)(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _report(error, 2)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - `expected` logs the traceback of an unexpected one
        from hallmark.flows.cli.shared import errors  # not needed by a command that succeeds

        match errors.expected(error):
            case InputError() as refused:
                return _report(refused, 2)
            case KeyboardInterrupt():
                return _report("interrupted", 130)
            case failed:
                return _report(failed, 1)
    return 0


def _application(tokens: list[str]) -> App:
    app = App(
        name="hallmark",
        help="Train classifiers, track the runs, and export ONNX files that are checked against the trained model.",
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
        version=lambda: version("hallmark"),
        default_parameter=Parameter(show_default=lambda value: None if value is None or value is False else str(value)),
    )
    for position, (name, (target, summary)) in enumerate(COMMANDS.items()):
        # The command to run is imported anyway, and its docstring is the full help.
        is_typed = tokens[:1] == [name]
        app.command(target, name=name, help=None if is_typed else summary, sort_key=position)
        if is_typed:
            _unwrap_docstring(target)
    return app


def _unwrap_docstring(target: str) -> None:
    """Join the lines of each paragraph in a command's docstring, so that its help fills the terminal."""
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


def _report(error: object, code: int) -> int:
    """Write an error as one line on stderr and return the exit code."""
    from hallmark.flows.cli.shared import errors

    sys.stderr.write(f"hallmark: {errors.one_line(error)}\n")
    return code


if __name__ == "__main__":
    main()
