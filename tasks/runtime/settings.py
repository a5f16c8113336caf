"""Settings of this machine, from the environment: paths and addresses, nothing that changes a result."""

import os
from functools import cache
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from hallmark.tasks.common.errors import InputError, one_line, without_secrets
from hallmark.tasks.common.files import is_writable
from hallmark.tasks.runtime import station_file

ROOT = Path(__file__).resolve().parents[2]
"""The project's root. Defaults are resolved from here, not from the current folder."""


class Settings(BaseSettings):
    """Values of the environment variables, or defaults."""

    model_config = SettingsConfigDict(env_prefix="HALLMARK_", env_ignore_empty=True)

    home: Path = Field(default=ROOT / ".hallmark", description="datasets, fits, logs and locks")
    tracking_uri: str = Field(
        default=f"sqlite:///{ROOT / 'mlruns' / 'mlflow.db'}",
        validation_alias="MLFLOW_TRACKING_URI",
        description="the MLflow server or store",
    )
    mirror: str | None = Field(
        default=None,
        description="URL of a folder to download MNIST's archives from, with subfolders for FashionMNIST and KMNIST",
    )
    npm_registry: str | None = Field(
        default_factory=lambda: os.environ.get("npm_config_registry"),  # noqa: SIM112 - npm's own spelling
        pattern="^https?://",
        description="npm registry for `hallmark card --live`; default: the value of npm_config_registry",
    )
    ui_port: int = Field(default=5000, ge=1, le=65535, description="port of `hallmark ui` and of a station's MLflow")
    prefect_port: int = Field(default=4200, ge=1, le=65535, description="port of a station's Prefect")
    host: str = Field(default="127.0.0.1", description="address of a station; needs auth if others can reach it")
    auth: SecretStr | None = Field(default=None, description="user:password that both servers of a station require")
    schedules: Path | None = Field(default=None, description="file of schedules; default: schedules.toml in the root")
    checkpoint_seconds: float = Field(default=10, gt=0, description="minimum number of seconds between two checkpoints")
    serve_limit: int = Field(default=1, ge=1, le=100, description="number of scheduled runs that train at once")

    @field_validator("home", "schedules")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        """Resolve `~`, and refuse what can never be a folder or a file."""
        try:
            found = path and path.expanduser().absolute()
            if found:
                found.stat()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            pass  # created when needed, or refused by what needs it
        except (OSError, RuntimeError) as error:  # a loop of links, too long a name, `~nobody`
            raise ValueError(getattr(error, "strerror", None) or str(error)) from error
        return found

    @field_validator("home")
    @classmethod
    def _is_folder(cls, path: Path) -> Path:
        if path.is_file():
            raise ValueError("expected a folder, found a file")
        return path

    @field_validator("auth")
    @classmethod
    def _is_pair(cls, auth: SecretStr | None) -> SecretStr | None:
        user, colon, password = auth.get_secret_value().partition(":") if auth else ("", "", "")
        if auth and not (user and colon and password and auth.get_secret_value().isascii()):
            raise ValueError("expected user:password, in ASCII")
        return auth

    @property
    def credentials(self) -> str | None:
        """`user:password` as plain text."""
        return self.auth.get_secret_value() if self.auth else None

    def writable_home(self) -> Path:
        """Return `home`, created if needed.

        Raises:
            InputError: it cannot be written.
        """
        if not is_writable(self.home):
            raise InputError(f"HALLMARK_HOME: {self.home} cannot be written: make it writable or choose another folder")
        return self.home


def database(uri: str) -> Path | None:
    """Return the file of a SQLite address, or None for other addresses."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def read() -> Settings:
    """Read the environment, at each call. With a running station the tracking store is the station's.

    Raises:
        InputError: a variable has an invalid value; the message names it.
    """
    machine = from_environment()
    station = _station(machine.home)
    return machine.model_copy(update={"tracking_uri": station.url(station_file.MLFLOW)}) if station else machine


def from_environment() -> Settings:
    """Read the environment without regard to a running station.

    Raises:
        InputError: a variable has an invalid value; the message names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = "_".join(map(str, problem["loc"])).upper()
        variable = name if name == "MLFLOW_TRACKING_URI" else f"HALLMARK_{name}"
        found = "something else" if name == "AUTH" else one_line(repr(problem["input"])[:100])  # never a password
        expected = problem["msg"].removeprefix("Value error, ").lower()
        raise InputError(f"{variable}: {expected}, found {found}") from error


def store_of_station() -> station_file.Station | None:
    """Return the station whose MLflow server this process uses: the one that was running at the first call."""
    return _station(from_environment().home)


@cache
def _station(home: Path) -> station_file.Station | None:
    """Return the running station. Cached: a run must not be split between two stores when a station starts or stops."""
    station, uri = station_file.current(home), os.environ.get("MLFLOW_TRACKING_URI")
    return station if station and (not uri or without_secrets(uri) == station.store) else None
