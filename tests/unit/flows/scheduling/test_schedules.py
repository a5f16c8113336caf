"""The schedules file: what it contains, what is refused, and dates across clock changes."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from hallmark.flows.scheduling import schedules
from hallmark.flows.scheduling.schedules import Schedule
from hallmark.tasks.common.errors import InputError
from tests.conftest import ROOT

WHOLE = """
[[schedule]]
name = "nightly"
experiment = "iris"
cron = "30 2 * * *"
timezone = "Europe/Berlin"
missed = "skip"
notify = "json://127.0.0.1:9/told"
options = { "training.epochs" = 7, data.split.seed = 3 }

[schedule.rule]
mode = "non_inferior"

[[schedule]]
name = "own"
experiment = "own.toml"
interval = "90m"
"""

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
CHANGES = {
    (BERLIN, "spring"): datetime(2026, 3, 29, 1, tzinfo=UTC),
    (BERLIN, "autumn"): datetime(2026, 10, 25, 1, tzinfo=UTC),
    (NEW_YORK, "spring"): datetime(2027, 3, 14, 7, tzinfo=UTC),
    (NEW_YORK, "autumn"): datetime(2026, 11, 1, 6, tzinfo=UTC),
}
"""Moments at which clocks change."""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that writes the schedules file and points the settings at it."""

    def write(text: str) -> Path:
        path = tmp_path / "schedules.toml"
        path.write_text(text)
        monkeypatch.setenv("HALLMARK_SCHEDULES", str(path))
        return path

    return write


def make_schedule(**changes: object) -> Schedule:
    return Schedule.model_validate({"name": "nightly", "experiment": "iris"} | changes)


def test_file_gives_schedules_with_their_experiments(file: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('[data]\nkind = "iris"\n[model]\nkind = "linear"\n')
    file(WHOLE)
    nightly, own = schedules.load()
    assert nightly.schedule.missed == "skip"
    assert nightly.schedule.rule.mode == "non_inferior"
    assert nightly.experiment.name == "iris"
    assert (nightly.experiment.training.epochs, nightly.experiment.data.split.seed) == (7, 3)
    assert own.schedule.missed == "latest"
    assert own.schedule.interval == timedelta(minutes=90)
    assert (own.experiment.name, own.experiment.model.kind) == ("own", "linear")


def test_missing_default_file_means_no_schedules_but_a_missing_named_file_is_refused(
    file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(schedules, "DEFAULT", tmp_path / "none.toml")
    assert schedules.load() == []
    file("").unlink()
    with pytest.raises(InputError, match=r"schedules\.toml: cannot be read"):
        schedules.load()


def test_example_file_schedules_nothing_until_uncommented(
    file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALLMARK_TELL", "json://127.0.0.1:9")
    text = (ROOT / "schedules.toml").read_text()
    file(text)
    assert schedules.load() == []
    file(re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE))
    assert [planned.schedule.name for planned in schedules.load()] == ["iris-nightly", "digits-hourly"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[schedule]]\nname = \n", r"is not valid TOML: .*line 2"),
        ("[schedule]\nname = 'a'\n", r"schedule: expected \[\[schedule\]\] with two brackets"),
        ("[[schedules]]\nname = 'a'\n", "unknown table 'schedules'"),
        ("[[schedule]]\nexperiment = 'iris'\n", "schedule 1: name: field required"),
        ("cron = '61 * * * *'", "schedule 'a': .*not a valid cron expression, or one without dates: '61"),
        ("cron = '* * *'", r"schedule 'a': cron: expected five fields.*found '\* \* \*'"),
        ("cron = '0 0 30 2 *'", "not a valid cron expression, or one without dates: '0 0 30 2"),
        ("cron = '0 0 * * *'\ntimezone = 'Europe/Berlim'", "timezone: unknown timezone.*found 'Europe/Berlim'"),
        ("cron = '0 0 * * *'\ntimezone = '../etc/passwd'", "timezone: unknown timezone"),
        ("interval = 'often'", "interval: expected a number and s, m, h or d.*found 'often'"),
        ("interval = '0s'", "interval: "),
        ("interval = '1h'\ntimezone = 'UTC'", "interval and timezone contradict each other"),
        ("interval = '1h'\ncron = '0 0 * * *'", "expected one of cron and interval"),
        ("", "expected one of cron and interval"),
        ("interval = '1h'\nmissed = 'none'", "missed: .*found 'none'"),
        ("interval = '1h'\nwhen = 'now'", "when: there is no such field: choose from name, experiment"),
        ("interval = '1h'\nexperiment = 'irsi'", "schedule 'a': .*irsi.*iris"),
        ("interval = '1h'\nexperiment = 'none.toml'", r"schedule 'a': .*none\.toml: cannot be read"),
        ("interval = '1h'\noptions = { training.epoch = 1 }", "options: there is no option 'training.epoch'"),
        ("interval = '1h'\noptions = { training.epochs = -1 }", "schedule 'a': .*training.epochs"),
        ("interval = '1h'\nrule = { alpha = 2 }", "schedule 'a': rule.alpha"),
    ],
)
def test_invalid_schedule_is_refused_in_one_line(file: Callable[[str], Path], text: str, message: str) -> None:
    if not text.startswith("["):
        experiment_line = "" if "experiment" in text else "experiment = 'iris'\n"
        text = f"[[schedule]]\nname = 'a'\n{experiment_line}{text}\n"
    path = file(text)
    with pytest.raises(InputError, match=message) as caught:
        schedules.load()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_duplicate_name_is_refused(file: Callable[[str], Path]) -> None:
    entry = "[[schedule]]\nname = 'a'\nexperiment = 'iris'\ninterval = '1h'\n"
    file(entry + entry)
    with pytest.raises(InputError, match="schedule 'a': the name is used twice"):
        schedules.load()


def test_schedules_that_train_one_model_on_two_sources_are_refused(file: Callable[[str], Path], tmp_path: Path) -> None:
    entry = """
    [[schedule]]
    name = "{folder}"
    experiment = "{folder}/{file}"
    interval = "1h"
    options = {{ "data.target" = "y"{more} }}
    """
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.csv").write_text("x,y\n" + "1,a\n2,b\n" * 20)
        (tmp_path / folder / "data.toml").write_text("[data]\nkind = 'table'\npath = 'data.csv'\n")
    for one in (f"{tmp_path}/a/data.csv", "a/data.toml"):
        start = entry.replace("{folder}/{file}", one).format(folder="a", more="")
        file(start + entry.format(folder="b", file="data.toml", more=""))
        with pytest.raises(InputError, match="'b': the model 'data' is trained on another source by schedule 'a': add"):
            schedules.load()
        file(start + entry.format(folder="b", file="data.toml", more=', "name" = "other"'))
        assert [one.has_derived_name for one in schedules.load()] == [True, False]
    (tmp_path / "b" / "data.toml").write_text("name = 'b'\n[data]\nkind = 'table'\npath = 'data.csv'\n")
    file(start + entry.format(folder="b", file="data.toml", more=""))
    assert [one.has_derived_name for one in schedules.load()] == [True, False]


def test_invalid_address_is_refused_without_showing_its_secret(file: Callable[[str], Path]) -> None:
    file("[[schedule]]\nname = 'a'\nexperiment = 'iris'\ninterval = '1h'\nnotify = 'nosuch://user:secret@host'\n")
    with pytest.raises(InputError, match=r"notify: 'nosuch://\.\.\.' is not an address") as caught:
        schedules.load()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("zone", "season"), CHANGES)
@pytest.mark.parametrize("hour", [1, 2, 3])
def test_local_time_occurs_once_a_day_across_clock_changes(zone: str, season: str, hour: int) -> None:
    change, schedule = CHANGES[zone, season], make_schedule(cron=f"30 {hour} * * *", timezone=zone)
    dates = schedule.upcoming(10, change - timedelta(days=3))
    local = [date.astimezone(ZoneInfo(zone)) for date in dates]
    assert [after.date() - before.date() for before, after in pairwise(local)] == [timedelta(days=1)] * 9
    is_skipped = season == "spring" and hour == 2
    other_hours = [date.hour for date in local if (date.hour, date.minute) != (hour, 30)]
    assert other_hours in ([[hour - 1], [hour + 1]] if is_skipped else [[]])  # depends on the Python version
    assert not any(date.fold for date in local)
    for minutes in range(-5 * 60, 5 * 60, 20):
        start = change + timedelta(minutes=minutes)
        found = schedule.upcoming(3, start)
        # In a repeated hour, or before a skipped one, Prefect may return the last date again.
        assert set(found) <= set(dates), start
        assert [date for date in dates if date >= start][:2] == [date for date in found if date >= start][:2], start


@pytest.mark.parametrize(("zone", "season"), CHANGES)
def test_hourly_cron_runs_once_in_each_hour_across_clock_changes(zone: str, season: str) -> None:
    change = CHANGES[zone, season]
    dates = make_schedule(cron="0 * * * *", timezone=zone).upcoming(72, change - timedelta(hours=36))
    local = [date.astimezone(ZoneInfo(zone)) for date in dates]
    on_the_day = [date.hour for date in local if date.date() == change.astimezone(ZoneInfo(zone)).date()]
    skipped = {"spring": {2}, "autumn": set()}[season]
    assert on_the_day == sorted(set(range(24)) - skipped)
    assert len(set(dates)) == len(dates)


@pytest.mark.parametrize(("zone", "season"), CHANGES)
@pytest.mark.parametrize("interval", ["15m", "6h", "1d"])
def test_interval_is_elapsed_time_across_clock_changes(zone: str, season: str, interval: str) -> None:
    change = CHANGES[zone, season]
    schedule = make_schedule(interval=interval)
    assert schedule.interval is not None
    for minutes in range(-3 * 60, 3 * 60, 50):
        dates = [date.astimezone(UTC) for date in schedule.upcoming(4, change + timedelta(minutes=minutes))]
        seconds = [(date - schedules.ANCHOR).total_seconds() for date in dates]
        assert {after - before for before, after in pairwise(seconds)} == {schedule.interval.total_seconds()}
        assert not any(second % schedule.interval.total_seconds() for second in seconds)


@pytest.mark.parametrize("when", [{"cron": "*/20 * * * *", "timezone": BERLIN}, {"interval": "20m"}])
def test_setting_the_clock_back_gives_the_same_dates(when: dict[str, str]) -> None:
    """Check that dates repeat exactly: Prefect identifies a scheduled run by its date, so none runs twice."""
    schedule, now = make_schedule(**when), datetime(2026, 6, 1, 12, 7, tzinfo=UTC)
    before, again = (schedule.upcoming(12, start) for start in (now, now - timedelta(hours=1)))
    assert again[3:] == before[:9]
    assert [str(date) for date in again[3:]] == [str(date) for date in before[:9]]
