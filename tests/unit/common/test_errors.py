import pytest

from hallmark.tasks.common.errors import without_secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://me:secret@host:1/a and https://token@host", "http://host:1/a and https://host"),
        ("postgresql://me:sec@ret@host/db", "postgresql://host/db"),
        ("http://host/a@b or me@host", "http://host/a@b or me@host"),
        ("sqlite:///folder/mlflow.db", "sqlite:///folder/mlflow.db"),
    ],
)
def test_user_and_password_are_removed_from_urls(text: str, expected: str) -> None:
    assert without_secrets(text) == expected
