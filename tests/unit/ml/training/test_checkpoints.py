import hashlib
import logging
import math
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.training import checkpoints
from hallmark.tasks.ml.training.checkpoints import Checkpoint, Checkpoints

IDENTITY = {"experiment": "e" * 64, "dataset": "d" * 64, "version": "3", "torch": "2.15.0"}

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "its first byte flipped": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "a byte in its middle flipped": lambda content: content[:200] + bytes([content[200] ^ 128]) + content[201:],
    "its last byte flipped": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "its last byte cut off": lambda content: content[:-1],
    "half of it cut off": lambda content: content[: len(content) // 2],
    "nothing in it": lambda _: b"",
    "zeros in it, as after a power cut": lambda content: bytes(len(content)),
}


def checkpoint_at(step: int) -> Checkpoint:
    return Checkpoint({"weights.0": torch.full((1, 50), float(step))}, {"epoch": 1, "step": step})


def step_of(folder: Path) -> int | None:
    found = Checkpoints(folder, IDENTITY).load()
    return found.facts["step"] if found else None


def newest_first(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), reverse=True)


def damage(path: Path, how: str) -> None:
    path.write_bytes(DAMAGE[how](path.read_bytes()))


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder that holds checkpoints 1 and 2."""
    kept = Checkpoints(tmp_path, IDENTITY)
    kept.save(checkpoint_at(1))
    kept.save(checkpoint_at(2))
    return tmp_path


def test_a_checkpoint_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    tensors = {
        "a matrix that lies askew in memory": torch.arange(6.0).view(2, 3).t(),
        "one number": torch.tensor(math.pi),
        "none": torch.zeros((3, 0), dtype=torch.int64),
        "counts": torch.tensor([2**40, -1]),
        "what is not finite": torch.tensor([math.inf, -math.inf, -0.0]),
    }
    facts = {"epoch": 3, "lr": 0.1, "best": math.inf, "points": [[1, 1700000000000, {"train/loss": 1 / 3}]]}
    Checkpoints(tmp_path, IDENTITY).save(Checkpoint(tensors, facts))
    found = Checkpoints(tmp_path, IDENTITY).load()
    assert found is not None
    assert found.facts == facts
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


@pytest.mark.parametrize("folder", ["", "that/does/not/exist"])
def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path: Path, folder: str) -> None:
    assert Checkpoints(tmp_path / folder, IDENTITY).load() is None


def test_a_file_name_ends_in_the_sha256_of_the_file(two: Path) -> None:
    for path in two.iterdir():
        assert path.stem.partition("-")[2] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, IDENTITY)
    for step in range(1, 6):
        kept.save(checkpoint_at(step))
        assert len(newest_first(tmp_path)) == min(step, 2)
        assert step_of(tmp_path) == step
    newest_first(tmp_path)[0].unlink()
    assert step_of(tmp_path) == 4


def test_the_numbering_continues_from_the_files_in_the_folder(two: Path) -> None:
    Checkpoints(two, IDENTITY).save(checkpoint_at(3))
    assert [path.name.partition("-")[0] for path in newest_first(two)] == ["00000003", "00000002"]


def test_files_with_other_names_are_left_alone(two: Path) -> None:
    stray = [two / "notes-old.safetensors", two / "copy of 00000002-x.safetensors", two / f"99-{'0' * 64}.safetensors"]
    stray[0].write_text("a copy")
    stray[1].write_bytes(newest_first(two)[0].read_bytes())
    stray[2].mkdir()
    assert step_of(two) == 2
    Checkpoints(two, IDENTITY).save(checkpoint_at(3))
    assert step_of(two) == 3
    assert all(path.exists() for path in stray)


def test_numbers_of_more_than_eight_digits_are_sorted(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, IDENTITY)
    kept.save(checkpoint_at(1))
    (only,) = tmp_path.iterdir()
    only.rename(only.with_name(only.name.replace("00000001", "99999999")))
    kept.save(checkpoint_at(2))
    assert step_of(tmp_path) == 2


@pytest.mark.parametrize("how", DAMAGE)
def test_the_previous_checkpoint_is_used_if_the_newest_is_damaged_with_a_warning(
    two: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = newest_first(two)[0]
    damage(damaged, how)
    assert step_of(two) == 1
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("hallmark.tasks.ml.training.checkpoints", logging.WARNING)
    assert damaged.name[:21] in record.message
    assert "damaged: using the previous one" in record.message


def test_an_undamaged_checkpoint_is_used_without_a_warning(two: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage(newest_first(two)[1], "nothing in it")
    assert step_of(two) == 2
    assert caplog.records == []


def test_training_starts_over_with_a_warning_if_all_checkpoints_are_damaged(
    two: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in newest_first(two):
        damage(path, "half of it cut off")
    assert step_of(two) is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * len(caplog.records)
    assert "starting over" in caplog.records[-1].message


def test_damaged_checkpoints_do_not_count_as_kept(two: Path) -> None:
    damage(newest_first(two)[0], "half of it cut off")
    kept = Checkpoints(two, IDENTITY)
    assert kept.load() is not None
    kept.save(checkpoint_at(3))
    damage(newest_first(two)[0], "half of it cut off")
    assert step_of(two) == 1


@pytest.mark.parametrize("what", IDENTITY)
def test_a_checkpoint_of_another_training_is_refused_in_one_line(two: Path, what: str) -> None:
    other = IDENTITY | {what: "another"}
    with pytest.raises(InputError, match=f"the checkpoint has another {what}: expected another, found") as refused:
        Checkpoints(two, other).load()
    assert "\n" not in str(refused.value)
    assert "--fresh" in str(refused.value)


def test_a_checkpoint_without_a_required_property_is_refused(two: Path) -> None:
    with pytest.raises(InputError, match="another processor: expected AVX512, found None"):
        Checkpoints(two, IDENTITY | {"processor": "AVX512"}).load()


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Limit the size of files, so that a longer write fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failed_write_leaves_earlier_checkpoints(two: Path) -> None:
    before = newest_first(two)
    with no_file_longer_than(100), pytest.raises(OSError, match="File too large"):
        Checkpoints(two, IDENTITY).save(checkpoint_at(3))
    assert newest_first(two) == before
    assert step_of(two) == 2


def clock(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    """Set the readings of the clock, one for each call."""
    shown = iter(seconds)
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: next(shown)))


def test_the_first_checkpoint_is_due_after_the_minimum_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, 100, 100, 109.9, 110)
    kept = Checkpoints(tmp_path, IDENTITY, seconds=10)
    assert [kept.is_due() for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(("cost", "pause"), [(0.05, 10), (0.1, 10), (0.2, 20), (30, 3000)])
def test_the_pause_grows_with_the_time_that_writing_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost: float, pause: float
) -> None:
    monkeypatch.setattr(checkpoints, "_SHARE", 0.01)
    written = 500 + cost
    clock(monkeypatch, 0, 500, written, written + 0.99 * pause, written + 1.01 * pause)
    kept = Checkpoints(tmp_path, IDENTITY, seconds=10)
    kept.save(checkpoint_at(1))
    assert [kept.is_due(), kept.is_due()] == [False, True]
