"""Training that is under way, kept in files that outlive the process.

A checkpoint is one safetensors file, written whole or not at all, whose name ends in its own SHA-256. The last two are
kept: where the newest is damaged, the one before it serves.
"""

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from hallmark.tasks.common.digests import SHOWN, check
from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.common.files import whole_file

logger = logging.getLogger(__name__)

SECONDS = 10.0
"""So long between two, at least."""
_SHARE = 0.01
"""What writing them may take of the training's time."""
_KEPT = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a training stood."""

    tensors: dict[str, Tensor]
    """Weights, what the optimizer remembers, losses so far."""
    facts: dict[str, Any]
    """Position, history and whatever else JSON can hold."""


class Checkpoints:
    """The checkpoints of one training, in a folder of their own."""

    def __init__(self, folder: Path, identity: dict[str, str]) -> None:
        """Keep them in `folder`; `identity` says of what they are, and on what the result depends."""
        self._folder = folder
        self._identity = identity
        self._last = time.monotonic()
        self._pause = SECONDS

    def is_due(self) -> bool:
        """Whether it is time for another: by the clock, and rarely enough to cost little."""
        return time.monotonic() - self._last >= self._pause

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, and drop all but the one before it."""
        started = time.monotonic()
        facts = {"identity": json.dumps(self._identity), "facts": json.dumps(checkpoint.facts)}
        content = save({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}, facts)
        number = max((_number(path) for path in self._files()), default=0) + 1
        path = self._folder / f"{number:08d}-{hashlib.sha256(content).hexdigest()}.safetensors"
        with whole_file(path) as temporary:
            temporary.write_bytes(content)
        for old in self._files()[_KEPT:]:
            old.unlink()
        self._last = time.monotonic()
        self._pause = max(SECONDS, (self._last - started) / _SHARE)

    def load(self) -> Checkpoint | None:
        """The newest that is whole, if there is any.

        Raises:
            InputError: it is of another experiment, or was made where another result would come out.
        """
        files = self._files()
        for index, path in enumerate(files, start=1):
            try:
                check(path, path.stem.partition("-")[2])
            except DamagedError:
                instead = "the one before it is used" if index < len(files) else "training begins anew"
                logger.warning("checkpoint %s is damaged: %s", path.name[: 8 + 1 + SHOWN], instead)
                path.unlink()  # or it would count among those that are kept
                continue
            with safe_open(path, framework="pt") as file:
                self._refuse_stranger(path, json.loads(file.metadata()["identity"]))
                facts = json.loads(file.metadata()["facts"])
                return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, facts)  # noqa: SIM118
        return None

    def _files(self) -> list[Path]:
        """Newest first."""
        return sorted(self._folder.glob("*-*.safetensors"), key=_number, reverse=True)

    def _refuse_stranger(self, path: Path, found: dict[str, str]) -> None:
        for what, expected in self._identity.items():
            if found.get(what) != expected:
                raise InputError(
                    f"{path}: is a checkpoint with another {what}: expected {expected}, found {found.get(what)}: "
                    "add --fresh to begin anew"
                )


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])
