"""Checks of this machine that find problems before a command fails, with a fix for each."""

import os
import platform
import shutil
import socket
import stat
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from importlib import metadata

from packaging.requirements import Requirement

from hallmark.flows.scheduling import schedules
from hallmark.tasks.common import web_requests
from hallmark.tasks.common.errors import HallmarkError, InputError, one_line, without_secrets
from hallmark.tasks.runtime import prefect_api, settings, station_file
from hallmark.tasks.runtime.settings import Settings

MIN_FREE_BYTES = 2 * 10**9
"""Minimum free disk space. MNIST, its dataset and a few runs need half of it."""
TIMEOUT_SECONDS = 5.0
"""Time limit for the mirror to answer."""
OTHERS = stat.S_IRWXG | stat.S_IRWXO
"""Permissions of a folder for others than its owner."""
NAMED = ("torch", "torchvision", "prefect", "mlflow", "scikit-learn", "onnx", "onnxruntime")


@dataclass(frozen=True)
class MachineCheck:
    """Result of one check."""

    name: str
    is_well: bool
    found: str
    """What was found, and how to fix it if it is a problem."""


def examine() -> list[MachineCheck]:
    """Check versions, device, disk, servers, ports, schedules and the download mirror.

    Raises:
        InputError: HALLMARK_HOME is invalid.
    """
    machine = settings.from_environment()
    return [
        _versions(),
        _device(),
        _disk(machine),
        _prefect(machine),
        _mlflow(machine),
        *_ports(machine),
        _settings(machine),
        _schedules(),
        _mirror(machine),
    ]


def _versions() -> MachineCheck:
    wrong = []
    for text in metadata.requires("hallmark") or []:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            installed = metadata.version(wanted.name)
            if not wanted.specifier.contains(installed, prereleases=True):
                wrong.append(f"{wanted.name} {installed} is installed, {wanted.specifier} is required")
    if wrong:
        return MachineCheck(
            "versions", is_well=False, found=f"{'; '.join(wrong)}: `make clean run` installs the right versions"
        )
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in NAMED)
    return MachineCheck("versions", is_well=True, found=f"Python {platform.python_version()}, {versions}")


def _device() -> MachineCheck:
    import torch

    from hallmark.tasks.ml.training import devices

    chosen = devices.choose("auto").type
    name = f" ({torch.cuda.get_device_name()})" if chosen == "cuda" else ""
    return MachineCheck("device", is_well=True, found=f"{chosen}{name}, {os.cpu_count()} cores")


def _disk(machine: Settings) -> MachineCheck:
    try:
        home = machine.writable_home()
    except InputError:
        remedy = "make it writable, or set HALLMARK_HOME to another folder"
        return MachineCheck("disk", is_well=False, found=f"{machine.home} cannot be written: {remedy}")
    free = shutil.disk_usage(home).free
    text = f"{free / 10**9:.1f} GB free for {home}"
    if home.stat().st_mode & OTHERS:
        text += f", which other users of this machine can enter (`chmod 700 {home}` prevents it)"
    if free < MIN_FREE_BYTES:
        return MachineCheck(
            "disk", is_well=False, found=f"{text}: free some space, or set HALLMARK_HOME to another folder"
        )
    return MachineCheck("disk", is_well=True, found=text)


def _prefect(machine: Settings) -> MachineCheck:
    try:
        url = prefect_api.use_running()
    except InputError as error:
        return MachineCheck("prefect", is_well=False, found=str(error))
    origin = "server of the station" if url and station_file.current(machine.home) else "server of PREFECT_API_URL"
    return MachineCheck("prefect", is_well=True, found=f"{origin}: {url}" if url else "each command embeds a server")


def _mlflow(machine: Settings) -> MachineCheck:
    from hallmark.tasks.tracking import client

    try:
        client.connect()
    except InputError as error:
        return MachineCheck("mlflow", is_well=False, found=str(error))
    prefix = "server of the station: " if settings.store_of_station() else ""
    return MachineCheck("mlflow", is_well=True, found=prefix + without_secrets(machine.tracking_uri))


def _ports(machine: Settings) -> list[MachineCheck]:
    """Check that the ports of `hallmark up` are free, unless a station is up."""
    if station_file.is_held(machine.home):
        return []
    return [
        _port("prefect port", machine, "prefect_port"),
        _port("mlflow port", machine, "ui_port"),
    ]


def _port(name: str, machine: Settings, setting: str) -> MachineCheck:
    variable = f"HALLMARK_{setting.upper()}"
    try:
        host, port = machine.host, getattr(machine, setting)
        socket.create_server((host, port)).close()
    except InputError as error:
        return MachineCheck(name, is_well=False, found=str(error))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        text = f"{variable}: {port} on {host}: {reason}: choose another port for `hallmark up`"
        return MachineCheck(name, is_well=False, found=text)
    return MachineCheck(name, is_well=True, found=f"{port} on {host} is free")


def _settings(machine: Settings) -> MachineCheck:
    """Check the settings that no other check reads."""
    try:
        machine.require("auth", "checkpoint_seconds", "npm_registry", "serve_limit", "server_seconds", "lock_seconds")
        machine.require(*settings.OF_REPAIRS)
    except InputError as error:
        return MachineCheck("settings", is_well=False, found=str(error))
    return MachineCheck("settings", is_well=True, found="have valid values")


def _schedules() -> MachineCheck:
    try:
        planned = schedules.load()
    except HallmarkError as error:
        return MachineCheck("schedules", is_well=False, found=str(error))
    return MachineCheck("schedules", is_well=True, found=f"{len(planned)} in {schedules.file()}")


def _mirror(machine: Settings) -> MachineCheck:
    from torchvision.datasets import MNIST

    from hallmark.tasks.ml.data import downloads

    archives = [name for name, _ in MNIST.resources]
    if all((machine.home / "downloads" / "MNIST" / "raw" / name).exists() for name in archives):
        return MachineCheck("mirror", is_well=True, found="not needed: MNIST is already downloaded")
    try:
        url = downloads.address(MNIST, machine.mirror) + archives[0]
    except InputError as error:
        return MachineCheck("mirror", is_well=False, found=str(error))
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the scheme was validated
    try:
        with (
            web_requests.opener(TIMEOUT_SECONDS) as limited,
            limited.open(request, timeout=TIMEOUT_SECONDS) as answer,
        ):
            is_page = answer.headers.get_content_type() == "text/html"
    except (OSError, ValueError, HTTPException) as error:
        remedy = (
            "only needed to download MNIST: connect to the network, or set HALLMARK_MIRROR to the URL of a folder with "
            "its archives"
        )
        return MachineCheck(
            "mirror", is_well=False, found=f"{without_secrets(url)} does not answer ({one_line(error)}): {remedy}"
        )
    if is_page:
        found = f"{without_secrets(url)} is a web page: set HALLMARK_MIRROR to the URL of a folder with its archives"
        return MachineCheck("mirror", is_well=False, found=found)
    return MachineCheck("mirror", is_well=True, found=without_secrets(url.rpartition("/")[0]))
