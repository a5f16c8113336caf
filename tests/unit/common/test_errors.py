import pickle

import pytest

from hallmark.tasks.common.errors import HallmarkError, InputError, one_line, printable, without_secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://me:secret@host:1/a and https://token@host", "http://host:1/a and https://host"),
        ("postgresql://me:sec@ret@host/db", "postgresql://host/db"),
        ("postgresql+psycopg2://me:sec/r@et?@host/db", "postgresql+psycopg2://host/db"),
        ("http://host/a and me@host, models:/iris@champion", "http://host/a and me@host, models:/iris@champion"),
        ("sqlite:////folder@home/mlflow.db", "sqlite:////folder@home/mlflow.db"),
        ("s3://b/x?X-Amz-Signature=abc&password=x&part=1", "s3://b/x?X-Amz-Signature=***&password=***&part=1"),
        ("'slack://token-a/token-b' and json://host/token", "'slack://...' and json://..."),
        ("mailto://me:secret@host", "mailto://..."),
    ],
)
def test_an_address_shows_scheme_host_port_and_path_alone(text: str, expected: str) -> None:
    assert without_secrets(text) == expected
    assert str(InputError(f"where: {text}")) == f"where: {expected}"


def test_parts_of_a_password_that_a_library_quotes_are_removed() -> None:
    text = without_secrets("nonnumeric port: 'hunter2', unknown host 'tail@host'", "http://me:hunter2/tail@host/x")
    assert text == "nonnumeric port: '***', unknown host '***@host'"


def test_an_error_survives_pickling_between_processes() -> None:
    error = pickle.loads(pickle.dumps(HallmarkError("fit failed")))  # noqa: S301 - our own
    assert (type(error), str(error)) == (HallmarkError, "fit failed")


def test_nothing_that_a_terminal_interprets_is_printed() -> None:
    hostile = "\x1b]0;title\x07 \x9b2J \u202egod \udcff \r\n tab\t"
    assert printable(hostile) == r"\x1b]0;title\x07 \u009b2J \u202egod \udcff \x0d\x0a tab\x09"
    assert printable("Größe 日本 \n", keep="\n") == "Größe 日本 \n"
    assert one_line(ValueError("a\nb\x00")) == r"a b\x00"
    assert one_line(ValueError()) == "ValueError"
