"""Find the run that a reference names, and the file that it shipped."""

import difflib
import re
from pathlib import Path

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.experiment import NAME
from hallmark.tasks.tracking import run_queries, tags
from hallmark.tasks.tracking.registry import model_registry
from hallmark.tasks.tracking.stored import StoredRun


def find(reference: str) -> StoredRun:
    """Return the run that a reference means. A sweep means its chosen member.

    Args:
        reference: the first digits of a run's id, the name of an experiment, which means its newest finished run,
            `MODEL@ALIAS` or `models:/MODEL/VERSION`.

    Raises:
        InputError: there is no such run, or there are several.
    """
    run = _of_version(reference) if "@" in reference or reference.startswith("models:") else _of_name(reference)
    if tags.SWEEP in run.tags:
        if tags.CHOSEN_RUN not in run.tags:
            raise InputError(f"{reference}: is a sweep in which no member was chosen: name one of them by its id")
        return run_queries.find(run.tags[tags.CHOSEN_RUN])
    if tags.EXPERIMENT_DIGEST not in run.tags:
        raise InputError(f"{reference}: was not made by Hallmark: the run has no experiment")
    return run


def shipped(run: StoredRun) -> Path:
    """Return the file that a run has shipped, on this machine.

    Raises:
        InputError: it shipped none, or its file is not available.
        DamagedError: the stored file is not the one that was registered.
    """
    name, version = run.experiment, run.model_version
    if not version:
        raise InputError("it shipped no file")
    file = model_registry.fetch(f"models:/{name}/{version}")
    # The versions of a model that was deleted and created again are counted from 1.
    if model_registry.version(name, int(version)).sha256 != run.tags.get(tags.ONNX_SHA256):
        raise InputError(f"its file is no longer registered: {name} version {version} is a different file")
    return file


def _of_version(reference: str) -> StoredRun:
    uri = reference if reference.startswith("models:") else f"models:/{reference}"
    if match := re.fullmatch(r"models:/([^/@]+)[/@].+", uri):
        model_registry.aliases(match[1])
    name, number = model_registry.resolve(uri)
    run_id = model_registry.version(name, number).run_id
    if not run_id:
        raise InputError(f"{reference}: {name} version {number} has no run")
    return run_queries.find(run_id)


def _of_name(reference: str) -> StoredRun:
    """Find a run by the name of its experiment, or by the first digits of its id."""
    named = f"tags.`{tags.NAME}` = '{reference}' AND tags.`{tags.PARENT_RUN}` IS NULL"
    newest = run_queries.search(named, 1) if re.fullmatch(NAME, reference) else []
    if re.fullmatch("[0-9a-f]{4,32}", reference):
        if not newest:
            return run_queries.find(reference)
        if run_queries.search(f"attributes.run_id LIKE '{reference}%'", 1):
            raise InputError(f"{reference}: is an experiment's name and the beginning of a run id: give more digits")
    if not newest:
        raise InputError(f"there is no run '{reference}': {_hint(reference)}")
    finished = run_queries.search(f"{named} AND attributes.status = 'FINISHED'", 1)
    if not finished:
        raise InputError(f"no run of '{reference}' has finished: `hallmark runs {reference}` lists them")
    return finished[0]


def _hint(reference: str) -> str:
    names = sorted({run.experiment for run in run_queries.recent_runs(None, 1000)})
    if near := difflib.get_close_matches(reference, names, n=3, cutoff=0.5):
        return f"did you mean {' or '.join(repr(name) for name in near)}?"
    existing = f"experiments are {', '.join(names)}" if names else "there are none yet"
    return f"expected the name of an experiment, at least 4 digits of an id, or MODEL@ALIAS: {existing}"
