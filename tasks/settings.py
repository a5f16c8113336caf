"""Settings of this machine, from the environment: where things are, never what is computed."""

from pathlib import Path

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.ml.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
"""The project's root: defaults are resolved from here, not from the current folder."""


class Settings(BaseSettings):
    """What the environment says, or the defaults."""

    model_config = SettingsConfigDict(env_prefix="HALLMARK_", env_ignore_empty=True)

    home: Path = Field(default=ROOT / ".hallmark", description="datasets, fits, logs and locks")
    tracking_uri: str = Field(
        default=f"sqlite:///{ROOT / 'mlruns' / 'mlflow.db'}",
        validation_alias="MLFLOW_TRACKING_URI",
        description="the MLflow server or store",
    )
    mirror: str | None = Field(
        default=None,
        pattern="^(https?|file)://",
        description="address of a folder to download MNIST's archives from; FashionMNIST and KMNIST in folders of it",
    )
    ui_port: int = Field(default=5000, ge=1, le=65535, description="where `hallmark ui` serves")

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()


def database(uri: str) -> Path | None:
    """The file behind a SQLite address, if it is one."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def read() -> Settings:
    """Read the environment, anew at each call.

    Raises:
        InputError: a variable does not fit; the message names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = "_".join(map(str, problem["loc"])).upper()
        variable = name if name == "MLFLOW_TRACKING_URI" else f"HALLMARK_{name}"
        raise InputError(f"{variable}: {problem['msg'].lower()}, found {problem['input']!r}") from error
