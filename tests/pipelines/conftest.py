import pytest


@pytest.fixture(scope="session", autouse=True)
def _databases(migrated: None) -> None:
    """Let every test here find the stores that it needs."""
