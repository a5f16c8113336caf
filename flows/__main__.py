"""The `hallmark` command: a table of commands, each imported when it is called."""

import atexit
import inspect
import os
import sys
from importlib import import_module
from importlib.metadata import version

from cyclopts import App, CycloptsError, Parameter

from hallmark.tasks.common.errors import HallmarkError, InputError

COMMANDS = {
    "train": (
        "hallmark.flows.cli.train:command",
        "Train a preset, a TOML file or data of your own, and register the result.",
    ),
    "sweep": ("hallmark.flows.cli.sweep:command", "Train many at once, and register the best."),
    "retrain": (
        "hallmark.flows.cli.retrain:command",
        "Train a challenger, judge it, and let a better one be champion.",
    ),
    "champion": ("hallmark.flows.cli.champions:champion", "Say which version is champion, since when, and why."),
    "history": ("hallmark.flows.cli.champions:history", "List every decision on a model."),
    "judge": ("hallmark.flows.cli.champions:judge", "Say what would be decided of a version; nothing is recorded."),
    "promote": ("hallmark.flows.cli.champions:promote", "Make a version champion by hand."),
    "rollback": ("hallmark.flows.cli.champions:rollback", "Make the previous version champion again."),
    "verify": (
        "hallmark.flows.cli.verify:verify",
        "Check a shipped file: sealed, well-formed, and right on its golden vectors.",
    ),
    "reproduce": ("hallmark.flows.cli.reproduce:reproduce", "Run a recorded experiment again, and compare."),
    "predict": ("hallmark.flows.cli.predict:predict", "Predict the rows of a file, with a file or a registered model."),
    "serve": ("hallmark.flows.cli.serve:serve", "Run the schedules of schedules.toml."),
    "deploy": ("hallmark.flows.cli.serve:deploy", "Give the schedules to a Prefect work pool."),
    "presets": ("hallmark.flows.cli.presets:presets", "List the presets."),
    "show": ("hallmark.flows.cli.presets:show", "Print an experiment as a TOML file."),
    "runs": ("hallmark.flows.cli.runs:runs", "List recent runs."),
    "compare": ("hallmark.flows.cli.compare:compare", "Put runs beside each other: options, metrics, curves."),
    "card": ("hallmark.flows.cli.card:card", "Fetch a model's card, or make a page that runs it in a browser."),
    "up": ("hallmark.flows.cli.station:up", "Start both servers and the schedules, for every other command to use."),
    "status": ("hallmark.flows.cli.station:status", "Say what is up, what is scheduled next, and what ran last."),
    "down": ("hallmark.flows.cli.station:down", "End what `hallmark up` started."),
    "ui": ("hallmark.flows.cli.runs:ui", "Serve the MLflow UI on the project's runs."),
    "doctor": ("hallmark.flows.cli.doctor:doctor", "Look at this machine: what a command would trip over."),
}


def main() -> None:
    """Run the command that was typed and exit with its code."""
    code = 1

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    # Registered first, so called last. Python would now take torch, MLflow and Prefect apart module by module,
    # which takes two seconds and does nothing for anybody.
    atexit.register(leave)
    code = run(sys.argv[1:])
    sys.exit(code)


def run(tokens: list[str]) -> int:
    """Run a command. Returns 0; 2 refused before work began; 1 failed; 130 interrupted."""
    # Nothing phones home. Prefect and MLflow both read this.
    os.environ.setdefault("DO_NOT_TRACK", "true")
    try:
        _application(tokens)(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except (InputError, CycloptsError) as error:
        return _complain(error, 2)
    except HallmarkError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    return 0


def _application(tokens: list[str]) -> App:
    app = App(
        name="hallmark",
        help="Train classifiers, track them, and ship ONNX files that are proven to predict what was trained.",
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
        version=lambda: version("hallmark"),
        default_parameter=Parameter(show_default=lambda value: None if value is None or value is False else str(value)),
    )
    for position, (name, (target, sentence)) in enumerate(COMMANDS.items()):
        # What was typed is imported anyway, and says all that it has to say.
        is_typed = tokens[:1] == [name]
        app.command(target, name=name, help=None if is_typed else sentence, sort_key=position)
        if is_typed:
            _reflow(target)
    return app


def _reflow(target: str) -> None:
    """Let the help of a command fill the terminal."""
    module, _, name = target.partition(":")
    command = getattr(import_module(module), name)
    function = command.default_command if isinstance(command, App) else command
    function.__doc__ = _flowing(str(function.__doc__))


def _flowing(docstring: str) -> str:
    """The same without the ends of lines within a paragraph, which are the editor's."""
    lines: list[str] = []
    for line in inspect.cleandoc(docstring).splitlines():
        before = lines[-1] if lines else ""
        if line and before and _margin(line) == _margin(before) and "---" not in before + line:
            lines[-1] += f" {line.lstrip()}"
        else:
            lines.append(line)
    return "\n".join(lines)


def _margin(line: str) -> int:
    return len(line) - len(line.lstrip())


def _complain(what: object, code: int) -> int:
    sys.stderr.write(f"hallmark: {' '.join(str(what).split())}\n")
    return code


if __name__ == "__main__":
    main()
