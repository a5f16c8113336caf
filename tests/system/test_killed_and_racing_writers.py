"""Files left by a killed process, and files written by several processes at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hallmark.tasks.ml.training.checkpoints import Checkpoints
from tests.conftest import ROOT
from tests.support import photographed
from tests.unit.ml.data.images.test_cache import read
from tests.unit.ml.training.test_checkpoints import IDENTITY

ENDLESS = """
import itertools, sys, torch
from pathlib import Path
from hallmark.tasks.ml.training.checkpoints import Checkpoint, Checkpoints
from tests.unit.ml.training.test_checkpoints import IDENTITY
kept = Checkpoints(Path(sys.argv[1]), IDENTITY)
for step in itertools.count(1):
    kept.save(Checkpoint({"weights.0": torch.full((1_000_000,), float(step))}, {"step": step}))
    print(step, flush=True)
"""


def test_a_checkpoint_is_written_whole_or_not_at_all_when_its_process_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = [sys.executable, "-c", ENDLESS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        steps = [int(next(process.stdout)) for _ in range(5)]
        process.kill()
        steps += [int(line) for line in process.stdout]
    assert process.returncode == -signal.SIGKILL
    found = Checkpoints(tmp_path, IDENTITY).load()
    assert found is not None
    assert found.facts["step"] in (steps[-1], steps[-1] + 1)
    assert torch.all(found.tensors["weights.0"] == found.facts["step"])
    assert caplog.records == []
    Checkpoints(tmp_path, IDENTITY).save(found)
    numbers = [int(path.name.partition("-")[0]) for path in tmp_path.glob("[!.]*")]
    assert max(numbers) == found.facts["step"] + 1  # each step had one checkpoint


def test_concurrent_processes_write_one_dataset(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hallmark.tasks.ml.data import dataset_store, sources\n"
        "from hallmark.tasks.ml.config.data import Digits\n"
        "digest_of, write = dataset_store.digest_of, dataset_store._write\n"
        "def arrive(*given):\n"
        "    print('arrived', flush=True); return digest_of(*given)  # the last step before the lock\n"
        "def wait_and_write(*given):\n"
        "    sys.stdin.readline(); write(*given); print('wrote', end=' ')\n"
        "dataset_store.digest_of, dataset_store._write = arrive, wait_and_write\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "home, source = Path(sys.argv[1]), Digits(kind='digits')\n"
        "dataset_store.prepare(sources.read(source, home), source, home); print('done')"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, env=os.environ, **pipes) for _ in range(4)]
    for expected in ("ready\n", "arrived\n"):
        assert [process.stdout.readline() for process in processes if process.stdout] == [expected] * 4
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
    outputs = sorted(process.communicate()[0].strip() for process in processes)
    assert outputs == ["done", "done", "done", "wrote done"]
    assert len(list((tmp_path / "datasets").iterdir())) == 1


def test_a_process_that_dies_leaves_no_partial_image_cache(tmp_path: Path) -> None:
    folder = photographed.folder(tmp_path / "photos")
    code = (
        "import os, sys; from pathlib import Path; from hallmark.tasks.ml.data.images import cache, image_file\n"
        "from hallmark.tasks.ml.config.data import Images\n"
        "decode = image_file.decode\n"
        "image_file.decode = lambda file, *a, **b: os._exit(9) if file.name == '013.png' else decode(file, *a, **b)\n"
        "cache.read(Images(kind='images', path=sys.argv[1]), Path(sys.argv[2]))"
    )
    home = folder.parent / "home"
    done = subprocess.run([sys.executable, "-c", code, str(folder), str(home)], check=False, env=os.environ)
    assert done.returncode == 9
    assert not list((home / "images").glob("[!.]*"))
    assert len(read(folder).y) == 40
