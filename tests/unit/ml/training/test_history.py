import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hallmark.tasks.common.errors import DamagedError
from hallmark.tasks.ml.training.history import MAX_STEP_POINTS, History, TimestampLog, timestamp_of

Point = tuple[int, dict[str, float], int]

LONG_AGO = 1234567890123
"""A timestamp in milliseconds that no current clock shows."""


def lines(path: Path) -> list[list[object]]:
    """Return the content of each line, without its checksum."""
    return [json.JSONDecoder().raw_decode(line[line.index("[") :])[0] for line in path.read_text().splitlines()]


def losses(first: int, last: int) -> np.ndarray:
    """Return the losses of updates `first` to `last`."""
    return (1 / np.arange(first, last + 1)).astype(np.float32)


def epoch(number: int, seconds: float = 0.5) -> dict[str, float]:
    return {"train/loss": 1 / number, "val/loss": 2 / number, "time/epoch_seconds": seconds}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "journal"


@pytest.fixture
def old(path: Path) -> Path:
    """Write the journal of an earlier process, which stamped two points long ago."""
    timestamps = TimestampLog(path)
    timestamps.add("0 epoch", 1, LONG_AGO, {"time/epoch_seconds": 0.25})
    timestamps.add("0 update", 7, LONG_AGO + 1, {})
    timestamps.flush()
    return path


def test_a_point_that_an_earlier_process_logged_keeps_its_timestamp(tmp_path: Path) -> None:
    first = timestamp_of(tmp_path, "choice", 0, {})
    assert timestamp_of(tmp_path, "choice", 0, {}) == first
    assert TimestampLog(tmp_path / "journal").stamp("choice", 0, {}) == (first, {})


def test_a_new_point_gets_the_current_time_in_milliseconds(path: Path) -> None:
    before = time.time_ns() // 1_000_000
    clock, metrics = TimestampLog(path).stamp("0 epoch", 1, {"train/loss": 0.5})
    assert before <= clock <= time.time_ns() // 1_000_000
    assert metrics == {"train/loss": 0.5}


def test_timestamps_outlive_the_process(old: Path) -> None:
    timestamps = TimestampLog(old)
    assert timestamps.stamp("0 epoch", 1, {})[0] == LONG_AGO
    assert timestamps.stamp("0 update", 7, {})[0] == LONG_AGO + 1


@pytest.mark.parametrize(("kind", "step"), [("1 epoch", 1), ("0 epoch", 2), ("0 epoch", 7), ("evaluation", 1)])
def test_every_other_point_gets_its_own_timestamp(old: Path, kind: str, step: int) -> None:
    assert TimestampLog(old).stamp(kind, step, {})[0] > LONG_AGO + 1


def test_durations_are_those_of_the_first_recording(old: Path) -> None:
    measured = {"train/loss": 0.5, "time/epoch_seconds": 99.0}
    assert TimestampLog(old).stamp("0 epoch", 1, measured)[1] == {"train/loss": 0.5, "time/epoch_seconds": 0.25}


def test_a_point_is_stamped_once_and_written_once(path: Path) -> None:
    timestamps = TimestampLog(path)
    stamped = {timestamps.stamp("0 epoch", 1, epoch(1, seconds))[0] for seconds in (0.1, 0.2, 0.3)}
    timestamps.flush()
    assert lines(path) == [["0 epoch", 1, *stamped, {"time/epoch_seconds": 0.1}]]


def test_a_known_timestamp_is_not_replaced(old: Path) -> None:
    timestamps = TimestampLog(old)
    timestamps.add("0 epoch", 1, 5, {"time/epoch_seconds": 5.0})
    timestamps.flush()
    assert timestamps.stamp("0 epoch", 1, {}) == (LONG_AGO, {"time/epoch_seconds": 0.25})
    assert len(lines(old)) == 2


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    timestamps = TimestampLog(None)
    clock, _ = timestamps.stamp("0 epoch", 1, {})
    timestamps.flush()
    assert timestamps.stamp("0 epoch", 1, {})[0] == clock
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_last_line_is_dropped_and_written_again(old: Path) -> None:
    whole = old.read_bytes()
    start = whole.index(b"\n") + 1
    for cut in range(start, len(whole)):
        old.write_bytes(whole[:cut])
        timestamps = TimestampLog(old)
        assert timestamps.stamp("0 epoch", 1, {})[0] == LONG_AGO
        clock, _ = timestamps.stamp("0 update", 7, {})
        assert clock > LONG_AGO + 1
        timestamps.flush()
        assert TimestampLog(old).stamp("0 update", 7, {})[0] == clock


def test_a_truncated_only_line_is_dropped(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'["0 epoch", 1, 12')
    TimestampLog(path)
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "line",
    [
        b"what is this",
        b'["0 epoch", 1, 12',
        b"\0\0\0\0\0\0\0\0",
        b"\xff\xfe",
        b'["0 epoch", 1]',
        b"17",
        b'["0 epoch", 1, 1234, null]',
    ],
)
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_damaged_line_is_refused(old: Path, line: bytes, place: str) -> None:
    whole = old.read_bytes()
    old.write_bytes(line + b"\n" + whole if place == "first" else whole + line + b"\n")
    with pytest.raises(DamagedError, match="journal: a line is damaged"):
        TimestampLog(old)


def test_a_flipped_bit_in_a_timestamp_is_detected(old: Path) -> None:
    old.write_bytes(old.read_bytes().replace(str(LONG_AGO).encode(), str(LONG_AGO ^ 1).encode()))
    with pytest.raises(DamagedError):
        TimestampLog(old)


def test_a_point_is_in_the_file_before_it_is_logged(path: Path) -> None:
    seen: list[tuple[int, bool]] = []

    def log(step: int, metrics: dict[str, float], clock: int) -> None:
        kind = "0 update" if "train/step_loss" in metrics else "0 epoch"
        times = {name: value for name, value in metrics.items() if name.startswith("time/")}
        seen.append((step, [kind, step, clock, times] in lines(path)))

    history = History(4, log, TimestampLog(path), "0 ")
    history.record_updates(losses(1, 2))
    history.record_epoch(1, epoch(1))
    history.record_updates(losses(3, 4))
    history.record_epoch(2, epoch(2))
    assert seen == [(1, True), (2, True), (1, True), (3, True), (4, True), (2, True)]


def record(history: History, *, of: Sequence[int]) -> None:
    """Record three updates per epoch, in two parts."""
    for number in of:
        last = 3 * number
        history.record_updates(losses(last - 2, last - 1))
        history.record_updates(losses(last, last))
        history.record_epoch(number, epoch(number, time.perf_counter()))


def new_history(path: Path) -> tuple[History, list[Point]]:
    """Return a history of three epochs, and the list of points that it logs."""
    points: list[Point] = []
    return History(9, lambda *point: points.append(point), TimestampLog(path), "0 "), points


def test_points_recorded_again_keep_their_first_timestamps_and_durations(path: Path) -> None:
    history, first = new_history(path)
    record(history, of=[1, 2])
    history, again = new_history(path)
    record(history, of=[1, 2, 3])
    assert again[: len(first)] == first


def test_restored_points_are_logged_again_with_their_timestamps(path: Path) -> None:
    history, first = new_history(path)
    record(history, of=[1, 2])
    kept, rest = history.state()
    rest = json.loads(json.dumps(rest))
    history, again = new_history(path)
    history.restore(kept, rest)
    assert sorted(again, key=str) == sorted(first, key=str)
    assert (history.updates, history.epochs, history.last) == (6, 2, first[-1][1])


def test_a_checkpoint_has_the_timestamps_if_the_journal_is_lost(path: Path) -> None:
    history, first = new_history(path)
    record(history, of=[1, 2])
    kept, rest = history.state()
    path.unlink()
    history, again = new_history(path)
    history.restore(kept, json.loads(json.dumps(rest)))
    assert sorted(again, key=str) == sorted(first, key=str)
    history, once_more = new_history(path)
    record(history, of=[1, 2])
    assert sorted(once_more, key=str) == sorted(first, key=str)


def test_an_interrupted_history_gives_the_same_file(path: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    history, _ = new_history(path)
    record(history, of=[1, 2])
    history.record_updates(losses(7, 8))
    kept, rest = history.state()
    history, _ = new_history(path)
    history.restore(kept, json.loads(json.dumps(rest)))
    history.record_updates(losses(9, 9))
    history.record_epoch(3, epoch(3))
    whole, _ = new_history(tmp_path / "another")
    record(whole, of=[1, 2, 3])
    tables = [parquet.read_table(one.save(tmp_path / f"{id(one)}.parquet")).to_pylist() for one in (history, whole)]
    first, second = ([row for row in table if not row["metric"].startswith("time/")] for table in tables)
    assert len(first) == 9 + 2 * 3
    assert sorted(first, key=str) == sorted(second, key=str)


@pytest.mark.parametrize("updates", [1, 999, 1000, 1001, 2500])
def test_the_logged_updates_do_not_depend_on_how_they_are_split(path: Path, updates: int) -> None:
    whole: list[int] = []
    history = History(updates, lambda step, *_: whole.append(step))
    history.record_updates(losses(1, updates))
    parts: list[int] = []
    history = History(updates, lambda step, *_: parts.append(step), TimestampLog(path), "0 ")
    for first in range(1, updates + 1, 77):
        history.record_updates(losses(first, min(first + 76, updates)))
    assert parts == whole
    assert len(whole) <= MAX_STEP_POINTS
