import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hallmark.flows.station import prefect_server


@pytest.mark.parametrize("content", [b"", None])
def test_a_sound_database_is_not_damaged(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "prefect.db"
    if content is None:
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE flow_run (id)")
    else:
        file.write_bytes(content)
    assert prefect_server.damage(file) == ""


@pytest.mark.parametrize("content", [b"x" * 5000, "folder", "cut"])
def test_a_damaged_database_is_named_with_a_remedy(content: bytes | str, tmp_path: Path) -> None:
    file = tmp_path / "prefect.db"
    match content:
        case bytes():
            file.write_bytes(content)
        case "folder":
            file.mkdir()
        case _:
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("CREATE TABLE flow_run (id)")
                connection.executemany("INSERT INTO flow_run VALUES (?)", [("x" * 999,)] * 99)
                connection.commit()
            file.write_bytes(file.read_bytes()[:20_000])
    found = prefect_server.damage(file)
    assert found.startswith(f"{file} is damaged (")
    assert found.endswith("move it away, which loses only the history of flow runs, or restore a backup")
