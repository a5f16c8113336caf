"""Checkpoints of a training.

A checkpoint is one safetensors file, written whole or not at all, whose name ends in its own SHA-256. The last two are
kept: if the newest one is damaged, the previous one is used.
"""

import hashlib
import json
import logging
import re
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

_SHARE = 0.01
"""Maximum share of the training's time that writing checkpoints may take."""
_NAME = re.compile(r"[0-9]+-[0-9a-f]{64}\.safetensors")
"""Names of checkpoints: number and SHA-256."""
_KEPT = 2
"""Number of checkpoints that are kept."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a training at one point."""

    tensors: dict[str, Tensor]
    """Weights, optimizer state, losses so far."""
    facts: dict[str, Any]
    """Position, history and other values that JSON can hold."""


class Checkpoints:
    """The checkpoints of one training, in their own folder."""

    def __init__(self, folder: Path, identity: dict[str, str], seconds: float = 0.0) -> None:
        """Use `folder`.

        Args:
            folder: where the checkpoints are.
            identity: digests and machine that determine the result of the training.
            seconds: minimum time between two checkpoints.
        """
        self._folder = folder
        self._identity = identity
        self._last = time.monotonic()
        self._seconds = self._pause = seconds

    def is_due(self) -> bool:
        """Return whether the next checkpoint is due: at most every `seconds`, less often if writing one takes long."""
        return time.monotonic() - self._last >= self._pause

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, and delete all but the previous one."""
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
        self._pause = max(self._seconds, (self._last - started) / _SHARE)

    def load(self) -> Checkpoint | None:
        """Return the newest checkpoint that is not damaged, if there is one.

        Raises:
            InputError: it belongs to another experiment, or to a machine on which the result would differ.
        """
        files = self._files()
        for index, path in enumerate(files, start=1):
            try:
                check(path, path.stem.partition("-")[2])
            except DamagedError:
                instead = "using the previous one" if index < len(files) else "starting over"
                logger.warning("checkpoint %s is damaged: %s", path.name[: 8 + 1 + SHOWN], instead)
                path.unlink()  # otherwise it would be one of the two that are kept
                continue
            with safe_open(path, framework="pt") as file:
                self._refuse_foreign(path, json.loads(file.metadata()["identity"]))
                facts = json.loads(file.metadata()["facts"])
                return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, facts)  # noqa: SIM118
        return None

    def _files(self) -> list[Path]:
        """Return all checkpoint files, newest first. Files with other names are left alone."""
        files = [path for path in self._folder.glob("*.safetensors") if _NAME.fullmatch(path.name) and path.is_file()]
        return sorted(files, key=_number, reverse=True)

    def _refuse_foreign(self, path: Path, found: dict[str, str]) -> None:
        for what, expected in self._identity.items():
            if found.get(what) != expected:
                raise InputError(
                    f"{path}: the checkpoint has another {what}: expected {expected}, found {found.get(what)}: "
                    "add --fresh to start over"
                )


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])
