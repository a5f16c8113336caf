"""`hallmark retrain`: check the input, run the flow, print the decision."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from cyclopts import App
from pydantic import ValidationError

from hallmark.flows.cli.shared import execution
from hallmark.flows.cli.shared.errors import report_errors
from hallmark.flows.cli.shared.experiment_source import ExperimentSource
from hallmark.flows.cli.shared.printing import Flag, Token, print_json, print_rows
from hallmark.flows.experiments import options, retraining_split, taken_names
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.fields import describe_problem
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Rule

if TYPE_CHECKING:
    from hallmark.tasks.common.results import Retrained

PREFIX = "--rule."


def describe() -> str:
    """Describe each field of the promotion rule on one line, for `--help`."""
    fields = (f"{PREFIX}{name}: {field.description}" for name, field in Rule.model_fields.items())
    return "\n".join(["", "Options of the promotion rule, each followed by its value:", *fields])


command = App(name="retrain", help_epilogue=options.describe() + "\n" + describe())


@command.default
def retrain(
    source: ExperimentSource,
    /,
    *tokens: Token,
    notify: str | None = None,
    json: Flag = False,
) -> None:
    """Train a challenger, compare it with the champion on test rows that neither was trained on, and decide.

    Your own data is split by content, so that no row changes its split as the data grows; a preset keeps the split of
    its champion. If data, experiment and code are those of the champion, or of a version that was held or rejected,
    nothing is trained. The decision is recorded before it is carried out.

    Example: hallmark retrain iris --rule.mode non_inferior

    Parameters
    ----------
    notify
        Address to notify of failures, HOLD and REJECT: json://host/path, mailto://..., or env:NAME to read it from an
        environment variable.
    json
        Print the result as one line of JSON instead of a table.
    """

    def load() -> "Callable[[], Retrained]":
        from hallmark.flows.retrain import retrain as flow

        execution.refuse_impossible(retraining_split.choose(experiment, champion=None))
        taken_names.refuse(source, rest, experiment)
        return lambda: flow(experiment, rule, notify)

    with report_errors(as_json=json):
        rule, rest = parse_rule(tokens)
        experiment = options.experiment(source, rest)
        _refuse_address(notify)
        result = execution.execute("retrain", experiment.name, load)
    if json:
        print_json({"status": "finished"} | asdict(result))
    else:
        _print(result)


def parse_rule(tokens: Sequence[str]) -> tuple[Rule, list[str]]:
    """Parse the options of the promotion rule, such as `--rule.alpha 0.01` or `--rule.alpha=0.01`.

    Args:
        tokens: the command line.

    Returns:
        the rule, and the tokens that are not part of it.

    Raises:
        InputError: an option does not exist, or its value is missing or invalid.
    """
    given: dict[str, str] = {}
    rest: list[str] = []
    following = iter(tokens)
    for token in following:
        if not token.startswith(PREFIX):
            rest.append(token)
            continue
        name, equals, value = token.removeprefix(PREFIX).partition("=")
        given[name] = value if equals else next(following, "--")
        if given[name].startswith("--"):
            raise InputError(f"{PREFIX}{name}: expected a value after it")
    try:
        return Rule.model_validate(given), rest
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            known = ", ".join(Rule.model_fields)
            raise InputError(f"{PREFIX}{field}: there is no such option: choose from {known}") from error
        message = describe_problem(problem["msg"])
        raise InputError(f"{PREFIX}{field}: {message}, found {problem['input']!r}") from error


def _refuse_address(address: str | None) -> None:
    from hallmark.tasks.runtime import notification

    try:
        if address is not None:
            notification.refuse_address(address)
    except ValueError as error:
        raise InputError(f"--notify: {error}") from error


def _print(result: "Retrained") -> None:
    rows = {"verdict": result.verdict, "why": result.reason, "champion": f"{result.name} version {result.champion}"}
    if result.decision:
        rows |= {"decision": f"number {result.decision.number}, about version {result.decision.version}"}
    print_rows(rows)
