import uuid
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _databases(migrated: None) -> None:
    """Let every test here find the stores that it needs."""


@pytest.fixture
def model(tmp_path: Path, home: Path) -> str:  # noqa: ARG001 - no other test has left a checkpoint there
    """Name of an experiment that no other test has, in a file beside the schedules."""
    name = f"d{uuid.uuid4().hex[:12]}"
    (tmp_path / f"{name}.toml").write_text(
        '[data]\nkind = "iris"\nsplit = { method = "content" }\n[model]\nkind = "mlp"\n[training]\ndevice = "cpu"\n'
    )
    return name
