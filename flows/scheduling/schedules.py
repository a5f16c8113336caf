"""The schedules in `schedules.toml`: what is retrained, when, and who is notified."""

import asyncio
import zoneinfo
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from hallmark.flows.experiments import options, taken_names
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.common.periods import period
from hallmark.tasks.ml.config import toml
from hallmark.tasks.ml.config.experiment import NAME, Experiment
from hallmark.tasks.ml.config.fields import Part, describe_problem
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Rule
from hallmark.tasks.runtime import notification, settings

if TYPE_CHECKING:
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule


ANCHOR = datetime(2020, 1, 1, tzinfo=UTC)
"""Start of all intervals. Without it Prefect would count from the last restart, and dates would move."""

DEFAULT = settings.ROOT / "schedules.toml"
"""Beside pyproject.toml."""


class Schedule(Part):
    """One entry of `schedules.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    name: str = Field(pattern=f"^{NAME}$", description="name of the deployment in Prefect; must be unique")
    experiment: str = Field(min_length=1, description="a preset, or a .toml file relative to this file")
    options: dict[str, Any] = Field(
        default={}, description="options of the experiment, as `--training.epochs` on the command line"
    )
    cron: str | None = Field(default=None, description="minute, hour, day, month, weekday")
    interval: Annotated[timedelta, BeforeValidator(period), Field(gt=timedelta(0))] | None = Field(
        default=None, description="instead of cron, elapsed time: a number and s, m, h or d, counted from midnight UTC"
    )
    timezone: str | None = Field(
        default=None, description="timezone of cron, an IANA name such as Europe/Berlin; UTC if not given"
    )
    missed: Literal["skip", "latest", "all"] = Field(
        default="latest",
        description="which runs to make up for if their time passed while no process served them: skip, latest or all",
    )
    notify: str | None = Field(default=None, description="address to notify of failures, HOLD and REJECT")
    rule: Rule = Field(default=Rule(), description="when a challenger is promoted")

    @field_validator("timezone")
    @classmethod
    def _exists(cls, timezone: str | None) -> str | None:
        if timezone is not None and timezone not in zoneinfo.available_timezones():
            raise ValueError("unknown timezone: expected an IANA name such as Europe/Berlin")
        return timezone

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, cron: str | None) -> str | None:
        if cron is not None and len(cron.split()) != 5:
            raise ValueError("expected five fields: minute, hour, day, month, weekday")
        return cron

    @field_validator("notify")
    @classmethod
    def _is_address(cls, address: str | None) -> str | None:
        if address is not None:
            notification.refuse_address(address)
        return address

    @model_validator(mode="after")
    def _has_dates(self) -> "Schedule":
        if (self.cron is None) == (self.interval is None):
            raise ValueError("expected one of cron and interval")
        if self.interval is not None and self.timezone is not None:
            raise ValueError(
                "interval and timezone contradict each other: an interval counts elapsed time, "
                "which is the same everywhere: use cron for a local time"
            )
        if self.cron is not None:
            _refuse_impossible(self)
        return self

    @property
    def dates(self) -> "CronSchedule | IntervalSchedule":
        """Prefect's schedule.

        Cron fields are local times. When clocks change, a time that does not exist in spring runs an hour off, and a
        time that exists twice in autumn runs the first time. Intervals are in UTC: in a timezone, Prefect's intervals
        shift by an hour when the clock changes, but dates that are already planned do not, so a run would come twice.
        """
        from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

        if self.interval is not None:
            return IntervalSchedule(interval=self.interval, anchor_date=ANCHOR, timezone="UTC")
        return CronSchedule(cron=self.cron or "", timezone=self.timezone or "UTC")  # one of the two is set

    def upcoming(self, count: int, start: datetime) -> list[datetime]:
        """Return the next dates from `start`, as computed by Prefect's server."""
        from prefect.server.schemas import schedules

        kind = schedules.CronSchedule if self.cron is not None else schedules.IntervalSchedule
        return asyncio.run(kind(**self.dates.model_dump()).get_dates(count, start))

    def describe(self) -> str:
        """Describe the schedule in one line."""
        when = f"cron {self.cron} ({self.timezone or 'UTC'})" if self.cron else f"every {self.interval}"
        return f"Retrains {self.experiment}: {when}; missed runs: {self.missed}"


class ScheduledExperiment(NamedTuple):
    """A schedule and the experiment that it retrains."""

    schedule: Schedule
    experiment: Experiment
    has_derived_name: bool
    """Whether the name of the experiment was derived from its source; see `taken_names.is_derived`."""


def file() -> Path:
    """Return the path of the schedules: HALLMARK_SCHEDULES, or `schedules.toml` in the project's root."""
    return settings.read().schedules or DEFAULT


def load() -> list[ScheduledExperiment]:
    """Read the schedules and their experiments.

    Returns:
        the schedules in the order of the file; empty if HALLMARK_SCHEDULES is not set and the default does not exist.

    Raises:
        InputError: the file is invalid; one line names the file, the schedule and the field.
    """
    path = file()
    if path == DEFAULT and not path.exists():
        return []
    tree = toml.load(path)
    if unknown := set(tree) - {"name", "schedule"}:
        raise InputError(f"{path}: unknown table '{sorted(unknown)[0]}': write each schedule as [[schedule]]")
    entries = tree.get("schedule", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path}: schedule: expected [[schedule]] with two brackets")
    planned = [_read(path, position, entry) for position, entry in enumerate(entries, 1)]
    names = [one.schedule.name for one in planned]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{path}: schedule '{repeated}': the name is used twice: rename one of the schedules")
    _refuse_shared_name(path, planned)
    return planned


def _read(path: Path, position: int, entry: dict[str, Any]) -> ScheduledExperiment:
    where = f"{path}: schedule '{entry['name']}'" if entry.get("name") else f"{path}: schedule {position}"
    try:
        schedule = Schedule.model_validate(entry)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise InputError(f"{where}: {_explain(problem)}") from error
    source = schedule.experiment
    if source.endswith(".toml"):
        source = str(path.parent / source)  # an absolute path is not changed
    try:
        return _planned(schedule, source)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _planned(schedule: Schedule, source: str) -> ScheduledExperiment:
    given = dict(_flat(schedule.options))
    if unknown := next((name for name in given if name not in options.fields()), None):
        raise InputError(f"options: there is no option '{unknown}': see `hallmark train --help`")
    experiment = options.build(options.read(source), given, source)
    return ScheduledExperiment(schedule, experiment, taken_names.is_derived(experiment, source, given))


def _refuse_shared_name(path: Path, planned: Sequence[ScheduledExperiment]) -> None:
    """Refuse two schedules that would retrain one model on different sources, whose champions replace each other."""
    first: dict[str, ScheduledExperiment] = {}
    for one in planned:
        name, data, other = one.experiment.name, one.experiment.data, first.setdefault(one.experiment.name, one)
        if taken_names.are_of_one_source(data, other.experiment.data):
            continue
        raise InputError(
            f"{path}: schedule '{one.schedule.name}': the model '{name}' is trained on another source by schedule "
            f"'{other.schedule.name}': add options.name and another name"
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield options as dotted paths, written as `training.lr = 1`, as `"training.lr" = 1` or as a table."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _refuse_impossible(schedule: Schedule) -> None:
    try:
        dates = schedule.upcoming(1, datetime.now(UTC))
    except ValueError as error:  # pydantic's and croniter's
        raise ValueError(f"not a valid cron expression, or one without dates: '{schedule.cron}'") from error
    if not dates:
        raise ValueError(f"cron: '{schedule.cron}' has no dates")


def _explain(problem: Any) -> str:  # noqa: ANN401 - pydantic's own type is not public
    """Describe what is wrong with a field. The value of `notify` is not shown, because it may contain a secret."""
    field = ".".join(str(step) for step in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = ", ".join(Schedule.model_fields)
        return f"{field}: there is no such field: choose from {known}"
    sentence = f"{field}: " * bool(field) + describe_problem(problem["msg"])
    given = problem["input"]
    shown = isinstance(given, str | int | float | bool) and field != "notify"
    return sentence + f", found {given!r}" * shown
