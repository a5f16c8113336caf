"""The model registry: its models, versions, aliases and files. `registration` adds to it."""

import difflib
import logging
import re
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from hallmark.tasks.common.digests import check
from hallmark.tasks.common.errors import DamagedError, InputError, without_secrets
from hallmark.tasks.common.files import whole_file
from hallmark.tasks.runtime import settings
from hallmark.tasks.runtime.signals import held
from hallmark.tasks.tracking import known_models, stored, tags
from hallmark.tasks.tracking.client import connect
from hallmark.tasks.tracking.store_calls import until_answered
from hallmark.tasks.tracking.stored import StoredVersion

logger = logging.getLogger(__name__)

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
"""Aliases of a registered model."""

_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""Error codes of MLflow for a name that is not registered, or that cannot be registered."""


def exists(name: str) -> bool:
    """Return whether there is a registered model of this name."""
    return bool(connect().search_registered_models(f"name = '{name}'"))


def aliases(name: str, missing: str = "no registered model") -> dict[str, int]:
    """Return the version of each alias of a registered model.

    Args:
        name: the registered model.
        missing: what the error message says is missing.

    Raises:
        InputError: there is no registered model of this name.
    """
    return {alias: int(number) for alias, number in _registered(name, missing).aliases.items()}


def model_tags(name: str) -> dict[str, str]:
    """Return the tags of a registered model.

    Raises:
        InputError: there is no registered model of this name.
    """
    values: dict[str, str] = _registered(name, "no registered model").tags
    return values


def _registered(name: str, missing: str) -> RegisteredModel:
    client = connect()
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        names = [model.name for model in client.search_registered_models(max_results=1000)]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(sorted(names)) or 'none yet'}"
        if last := known_models.registered().get(name):
            hint += f" (this home has registered version {last} of it in this store: it was deleted or replaced since)"
        raise InputError(f"there is {missing} '{name}': {hint}") from error


def version_with_alias(name: str, alias: str) -> int | None:
    """Return the version that has an alias, or None.

    Raises:
        InputError: there is no registered model of this name.
    """
    return aliases(name).get(alias)


@held()
def set_alias(name: str, alias: str, number: int | None) -> None:
    """Give an alias to a version, or remove it if `number` is None."""
    try:
        _set_alias(name, alias, number)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        # Two transactions that insert the same alias violate the uniqueness of its key. The second time one replaces.
        _set_alias(name, alias, number)


def _set_alias(name: str, alias: str, number: int | None) -> None:
    if number is None:
        connect().delete_registered_model_alias(name, alias)
    else:
        connect().set_registered_model_alias(name, alias, str(number))


def version(name: str, number: int) -> StoredVersion:
    """Return what the registry stores of a version that exists."""
    return stored.version(connect().get_model_version(name, str(number)))


def versions(name: str) -> list[StoredVersion]:
    """Return all versions of a registered model, the oldest first."""
    known = map(stored.version, connect().search_model_versions(f"name = '{name}'"))
    return sorted(known, key=lambda one: one.number)


def mark_demoted(name: str, number: int) -> None:
    """Record on a version that it was rolled back, so that no retraining promotes its file again."""
    connect().set_model_version_tag(name, str(number), tags.DEMOTED, version(name, number).sha256)


def describe_versions(sha256: str) -> list[str]:
    """Return the registered versions of a file in words: `iris version 3 (champion), run 07309d70...`."""
    client = connect()
    lines = []
    for one in client.search_model_versions(f"tags.`{tags.ONNX_SHA256}` = '{sha256}'"):
        names = client.get_model_version(one.name, one.version).aliases
        known_as = f" ({', '.join(names)})" if names else ""
        lines.append(f"{one.name} version {one.version}{known_as}, run {one.run_id}")
    return sorted(lines)


def resolve(reference: str) -> tuple[str, int]:
    """Return name and version of a reference.

    Args:
        reference: a registered name, which means its champion; `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        InputError: there is no such name, alias or version.
    """
    pattern = r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>[1-9]\d*))"
    match = re.fullmatch(pattern, reference)
    if reference.startswith("models:") and not match:
        raise InputError(f"{reference}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, number = match.group("name", "alias", "version") if match else (reference, CHAMPION, None)
    known = aliases(name, "no file and no registered model")
    numbers = [one.number for one in versions(name)]
    listed = ", ".join(map(str, numbers))
    if not numbers:
        raise InputError(f"{name}: has no version: train it first")
    if number and int(number) not in numbers:
        raise InputError(f"{name}: has no version {number}: its versions are {listed}")
    if alias and alias not in known:
        raise InputError(
            f"{name}: has no {alias}: its aliases are {', '.join(known) or 'none'}, and models:/{name}/VERSION takes "
            f"{listed}"
        )
    return name, int(number) if number else known[alias]


def fetch(reference: str, *, refresh: bool = False) -> Path:
    """Return the path of a registered model's file on this machine, downloaded once.

    It is kept in Hallmark's home under its SHA-256, and compared with the SHA-256 at its registration.

    Args:
        reference: see `resolve`.
        refresh: download even if the file was fetched before, to check what the store has now.

    Raises:
        InputError: the store cannot be reached, there is no such name, alias or version, or Hallmark did not
            register it.
        DamagedError: the stored file is not the one that was registered.
    """
    home = settings.read().writable_home()
    try:
        name, number = resolve(reference)
        sha256 = version(name, number).sha256
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise InputError(f"{name} version {number}: was not registered by Hallmark: it has no tag with a sha256")
        return _download(name, number, sha256, home, refresh=refresh)
    except (MlflowException, OSError) as error:
        cause = " ".join(without_secrets(str(error)).split())[:200]
        raise InputError(f"{reference}: cannot be fetched from the model registry: {cause}") from error


def _download(name: str, number: int, sha256: str, home: Path, *, refresh: bool) -> Path:
    path = home / "models" / sha256 / f"{name}.onnx"
    if path.exists() and not refresh:
        try:
            return check(path, sha256)
        except DamagedError as error:
            logger.warning("a model file is downloaded again: %s", error)
    with whole_file(path) as temporary, redirect_stderr(StringIO()):  # MLflow shows a progress bar for one small file
        folder = temporary.with_name("stored")
        folder.mkdir()
        source = f"models:/{name}/{number}/model.onnx"
        downloaded = until_answered(mlflow.artifacts.download_artifacts, source, dst_path=str(folder))
        check(Path(downloaded), sha256).replace(temporary)
    return path
