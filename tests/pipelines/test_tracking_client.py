import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.tracking import client, known_models
from tests.support import databases
from tests.support.consoles import Call


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
        "databricks",
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


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("loss", ["emptied", "removed", "replaced", "tables dropped"])
def test_a_store_that_lost_its_content_is_told_apart_from_a_new_one(
    loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, console: Call
) -> None:
    path = tmp_path / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", databases.mlflow(path))
    known_models.refuse_emptied(path)
    known_models.remember("iris", 3)  # as the registration does
    match loss:
        case "emptied":
            path.write_bytes(b"")
        case "removed":
            path.unlink()
        case "tables dropped":
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("DROP TABLE registered_models")
    before = path.read_bytes() if path.exists() else None
    code, out, error = console("champion", "iris")
    assert (code, out, error.count("\n")) == (2, "", 1)
    expected = "has lost its tables (registered_models)" if loss == "tables dropped" else "has registered iris in it"
    assert expected in error
    assert (path.read_bytes() if path.exists() else None) == before


def test_a_model_that_this_home_registered_and_the_store_lost_is_named(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, console: Call
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", databases.mlflow(tmp_path / "mlflow.db"))
    client.connect().create_registered_model("other")
    known_models.remember("iris", 3)
    code, _, error = console("champion", "iris")
    assert code == 2
    assert "this home has registered version 3 of it in this store: it was deleted or replaced since" in error
    (file,) = (home / "stores").iterdir()
    file.write_text("cut")
    assert known_models.registered() == {}
