from pathlib import Path

import pytest

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.tracking import client


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9",
        "http://127.0.0.1:abc",
        "file:///tmp/mlruns",
        "sqlite:////proc/nowhere/mlflow.db",
        "sqlite:////proc/mlflow.db",
        "sqlite:////proc",
        "postgresql://127.0.0.1:9/mlflow",
        "gopher://...",
    ],
)
def test_a_store_that_cannot_be_reached_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(InputError, match=f"^MLFLOW_TRACKING_URI: {address} cannot be reached") as refused:
        client.connect()
    assert "\n" not in str(refused.value)


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9 cannot be reached") as refused:
        client.connect()
    assert "secret" not in str(refused.value)


def test_a_file_that_is_not_a_database_is_refused_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"not a database at all" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    with pytest.raises(InputError, match="cannot be reached"):
        client.connect()
    assert path.read_bytes() == b"not a database at all" * 100
