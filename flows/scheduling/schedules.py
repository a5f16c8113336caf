"""The schedules of retraining, from `schedules.toml`: what is retrained, when, and who is told."""

import asyncio
import re
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from hallmark.flows.experiments import options
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config import toml
from hallmark.tasks.ml.config.experiment import NAME, Experiment
from hallmark.tasks.ml.config.fields import Part
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Rule
from hallmark.tasks.runtime import notification, settings

if TYPE_CHECKING:
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

ANCHOR = datetime(2020, 1, 1, tzinfo=UTC)
"""Intervals count from here, so that a restart moves no date. Prefect would count from the restart."""

DEFAULT = settings.ROOT / "schedules.toml"
"""Beside pyproject.toml."""


def _interval(value: object) -> object:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+)\s*([smhd])", value.strip())):
        return timedelta(**{UNITS[match[2]]: int(match[1])})
    raise ValueError("expected a number and s, m, h or d, such as '6h'")


class Schedule(Part):
    """One entry of `schedules.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    name: str = Field(pattern=f"^{NAME}$", description="its name in Prefect; used once")
    experiment: str = Field(min_length=1, description="a preset, or a file that ends in .toml, beside this one")
    options: dict[str, Any] = Field(default={}, description="laid over it, as `--training.epochs` on the command line")
    cron: str | None = Field(default=None, description="minute, hour, day, month, weekday")
    interval: Annotated[timedelta, BeforeValidator(_interval), Field(gt=timedelta(0))] | None = Field(
        default=None, description="instead of cron, elapsed time: a number and s, m, h or d, from midnight UTC"
    )
    timezone: str | None = Field(default=None, description="of cron: an IANA name, such as Europe/Berlin; else UTC")
    missed: Literal["skip", "latest", "all"] = Field(
        default="latest", description="of the runs whose time passed while nothing served, run none, the last, or all"
    )
    notify: str | None = Field(default=None, description="address that hears of failures, HOLD and REJECT")
    rule: Rule = Field(default=Rule(), description="when a challenger becomes champion")

    @field_validator("timezone")
    @classmethod
    def _exists(cls, timezone: str | None) -> str | None:
        if timezone is not None and timezone not in zoneinfo.available_timezones():
            raise ValueError("there is no such timezone: expected an IANA name such as Europe/Berlin")
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
            notification.refuse(address)
        return address

    @model_validator(mode="after")
    def _happens(self) -> "Schedule":
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
        """The dates, as Prefect keeps them.

        Cron means local times, each once a day: one that the clock leaves out in spring comes an hour off, one that
        it shows twice in autumn comes the first time. Intervals are kept in UTC: in a timezone Prefect's would jump by
        an hour with the clock, where the dates already planned do not, and a run would come twice.
        """
        from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

        if self.interval is not None:
            return IntervalSchedule(interval=self.interval, anchor_date=ANCHOR, timezone="UTC")
        return CronSchedule(cron=self.cron or "", timezone=self.timezone or "UTC")  # one of both is given

    def upcoming(self, count: int, start: datetime) -> list[datetime]:
        """The next dates from `start` on, as Prefect's server computes them."""
        from prefect.server.schemas import schedules

        kind = schedules.CronSchedule if self.cron is not None else schedules.IntervalSchedule
        return asyncio.run(kind(**self.dates.model_dump()).get_dates(count, start))

    def describe(self) -> str:
        """When it runs, for people."""
        when = f"cron {self.cron} ({self.timezone or 'UTC'})" if self.cron else f"every {self.interval}"
        return f"Retrains {self.experiment}: {when}; missed runs: {self.missed}"


class Planned(NamedTuple):
    """A schedule with what it retrains."""

    schedule: Schedule
    experiment: Experiment


def file() -> Path:
    """Where the schedules stand: HALLMARK_SCHEDULES, or `schedules.toml` in the project's root."""
    return settings.read().schedules or DEFAULT


def load() -> list[Planned]:
    """Read every schedule with the experiment that it retrains.

    Returns:
        nothing where there is no file and none was named.

    Raises:
        InputError: anything that does not fit, in one line: the file, the schedule, the field.
    """
    path = file()
    if path == DEFAULT and not path.exists():
        return []
    tree = toml.load(path)
    if unknown := set(tree) - {"name", "schedule"}:
        raise InputError(f"{path}: there is no such table: '{sorted(unknown)[0]}': each schedule is a [[schedule]]")
    entries = tree.get("schedule", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path}: schedule: expected [[schedule]], with two brackets")
    found = [_read(path, position, entry) for position, entry in enumerate(entries, 1)]
    names = [planned.schedule.name for planned in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{path}: schedule '{twice}': the name is used twice: give one of them another")
    return found


def _read(path: Path, position: int, entry: dict[str, Any]) -> Planned:
    where = f"{path}: schedule '{entry['name']}'" if entry.get("name") else f"{path}: schedule {position}"
    try:
        schedule = Schedule.model_validate(entry)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise InputError(f"{where}: {_explain(problem)}") from error
    source = schedule.experiment
    if source.endswith(".toml"):
        source = str(path.parent / source)  # an absolute path stays
    try:
        return Planned(schedule, _experiment(source, schedule.options))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _experiment(source: str, overrides: dict[str, Any]) -> Experiment:
    given = dict(_flat(overrides))
    if unknown := next((name for name in given if name not in options.fields()), None):
        raise InputError(f"options: there is no option '{unknown}': `hallmark train --help` lists them")
    return options.build(options.read(source), given, source)


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Options as dotted paths, whether they were written as `training.lr = 1`, "training.lr" = 1 or as a table."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _refuse_impossible(schedule: Schedule) -> None:
    try:
        dates = schedule.upcoming(1, datetime.now(UTC))
    except ValueError as error:  # pydantic's and croniter's
        raise ValueError(f"there is no such cron, or it never comes: '{schedule.cron}'") from error
    if not dates:
        raise ValueError(f"cron: '{schedule.cron}' never comes")


def _explain(problem: Any) -> str:  # noqa: ANN401 - pydantic's own type is not public
    """What is wrong with a field, in words. An address may hold a secret, and is not shown."""
    field = ".".join(str(step) for step in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        known = ", ".join(Schedule.model_fields)
        return f"{field}: there is no such field: there are {known}"
    sentence = f"{field}: " * bool(field) + message[0].lower() + message[1:]
    found = problem["input"]
    shown = isinstance(found, str | int | float | bool) and field != "notify"
    return sentence + f", found {found!r}" * shown
