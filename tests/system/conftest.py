import uuid
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _databases(migrated: None) -> None:
    """Create the databases for all tests in this folder."""


@pytest.fixture
def model(tmp_path: Path, home: Path) -> str:  # noqa: ARG001 - a new home, without checkpoints of other tests
    """Write an experiment file next to the schedules; return its unique name."""
    name = f"d{uuid.uuid4().hex[:12]}"
    (tmp_path / f"{name}.toml").write_text(
        '[data]\nkind = "iris"\nsplit = { method = "content" }\n[model]\nkind = "mlp"\n[training]\ndevice = "cpu"\n'
    )
    return name
