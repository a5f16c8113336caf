"""Settings of this machine, from the environment: where things are, never what is computed."""

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parents[1]
"""The project's root: defaults are resolved from here, not from the current folder."""


class Settings(BaseSettings):
    """Read anew at each use, so that a changed environment is seen."""

    model_config = SettingsConfigDict(env_prefix="HALLMARK_", env_ignore_empty=True)

    home: Path = Field(default=ROOT / ".hallmark", description="datasets, fits, logs and locks")
    tracking_uri: str = Field(
        default=f"sqlite:///{ROOT / 'mlruns' / 'mlflow.db'}",
        validation_alias="MLFLOW_TRACKING_URI",
        description="the MLflow server or store",
    )
    ui_port: int = Field(default=5000, ge=1, le=65535, description="where `hallmark ui` serves")

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()
