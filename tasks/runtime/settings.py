"""Settings of this machine, from the environment: paths and addresses, nothing that changes a result."""

import os
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from hallmark.tasks.common.errors import InputError, one_line, without_secrets
from hallmark.tasks.common.files import is_writable, private_folder
from hallmark.tasks.common.periods import period
from hallmark.tasks.runtime import home_layout, station_file

ROOT = Path(__file__).resolve().parents[2]
"""The project's root. Defaults are resolved from here, not from the current folder."""

SQLITE = "sqlite:///"
"""Beginning of the address of a SQLite database, before its path."""

OF_A_RUN = ("tracking_uri", "checkpoint_seconds", "ui_port", "server_seconds", "lock_seconds")
"""Settings that the steps of a run read, except for those of a download."""
OF_REPAIRS = ("gone_seconds", "repair_seconds", "prune")
"""Settings of what a station repairs and prunes."""


class Settings(BaseSettings):
    """Values of the environment variables, or defaults.

    Reading an attribute whose variable has an invalid value raises InputError, so that only a command that uses the
    setting is refused.
    """

    model_config = SettingsConfigDict(env_prefix="HALLMARK_", env_ignore_empty=True)

    home: Path = Field(default=ROOT / ".hallmark", description="datasets, fits, logs and locks")
    tracking_uri: str = Field(
        default=f"{SQLITE}{ROOT / 'mlruns' / 'mlflow.db'}",
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
    server_seconds: float = Field(default=240, gt=0, description="maximum seconds to wait for an MLflow server")
    lock_seconds: float = Field(default=60, gt=0, description="maximum seconds to wait for a locked MLflow database")
    gone_seconds: float = Field(
        default=600, ge=90, description="age of its last heartbeat at which a run in MLflow counts as gone"
    )
    prune: Annotated[timedelta, BeforeValidator(period), Field(gt=timedelta(0))] | None = Field(
        default=None, description="age, such as 90d, of what a station prunes with each repair; default: nothing"
    )
    repair_seconds: float = Field(
        default=3600, ge=1, description="interval at which a station closes what killed processes have left running"
    )
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
        home_layout.check(path)
        return path

    @field_validator("tracking_uri")
    @classmethod
    def _absolute_store(cls, uri: str) -> str:
        path, mark, query = uri.removeprefix(SQLITE).partition("?")
        is_file = uri.startswith(SQLITE) and path and not path.startswith((":memory:", "file:"))
        return f"{SQLITE}{Path(path).absolute()}{mark}{query}" if is_file else uri

    @field_validator("auth")
    @classmethod
    def _is_pair(cls, auth: SecretStr | None) -> SecretStr | None:
        user, colon, password = auth.get_secret_value().partition(":") if auth else ("", "", "")
        if auth and not (user and colon and password and auth.get_secret_value().isascii()):
            raise ValueError("expected user:password, in ASCII")
        return auth

    # Last, so that it encloses the other validators.
    @field_validator("*", mode="wrap")
    @classmethod
    def _or_refusal(cls, value: object, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
        """Replace an invalid value by the error that `__getattribute__` raises."""
        try:
            return validate(value)
        except InputError as error:
            return error
        except ValidationError as error:
            name = str(info.field_name).upper()
            variable = "MLFLOW_TRACKING_URI" if name == "TRACKING_URI" else f"HALLMARK_{name}"
            found = "something else" if name == "AUTH" else one_line(repr(value)[:100])  # never show a password
            problem = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            return InputError(f"{variable}: {problem[:1].lower()}{problem[1:]}, found {found}")

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401 - the value of any setting
        """Return an attribute.

        Raises:
            InputError: it is a setting whose variable has an invalid value; the message names it.
        """
        value = super().__getattribute__(name)
        if isinstance(value, InputError):
            raise InputError(*value.args)
        return value

    def require(self, *names: str) -> None:
        """Read settings that are used later, so that an invalid one is refused before work begins.

        Raises:
            InputError: the variable of one of them has an invalid value; the message names it.
        """
        for name in names:
            getattr(self, name)

    @property
    def credentials(self) -> str | None:
        """`user:password` as plain text."""
        return self.auth.get_secret_value() if self.auth else None

    def writable_home(self) -> Path:
        """Return `home`, created if needed, for its owner alone.

        Raises:
            InputError: it cannot be written.
        """
        with suppress(OSError):  # reported below
            private_folder(self.home)
        if not is_writable(self.home):
            raise InputError(f"HALLMARK_HOME: {self.home} cannot be written: make it writable or choose another folder")
        return self.home


def database(uri: str) -> Path | None:
    """Return the file of a SQLite address, or None for other addresses."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def local_database() -> Path | None:
    """Return the SQLite file of the tracking store, also if this home's station serves it; None for other stores."""
    station = store_of_station()
    return database(station.store if station else from_environment().tracking_uri)


def read() -> Settings:
    """Read the environment, at each call. With a running station the tracking store is the station's.

    Raises:
        InputError: HALLMARK_HOME is invalid.
    """
    machine = from_environment()
    station = _station(machine.home)
    return machine.model_copy(update={"tracking_uri": station.url(station_file.MLFLOW)}) if station else machine


def from_environment() -> Settings:
    """Read the environment without regard to a running station."""
    return Settings()


def store_of_station(machine: Settings | None = None) -> station_file.Station | None:
    """Return the station whose MLflow server this process uses: the one that was running at the first call.

    Args:
        machine: the settings, if they have been read.
    """
    return _station((machine or from_environment()).home)


@cache
def _station(home: Path) -> station_file.Station | None:
    """Return the running station. Cached: a run must not be split between two stores when a station starts or stops."""
    station, is_given = station_file.current(home), bool(os.environ.get("MLFLOW_TRACKING_URI"))
    is_same = not is_given or (station and without_secrets(from_environment().tracking_uri) == station.store)
    return station if station and is_same else None
