"""A store that does not answer, and one that is locked by another process."""

import signal
import socket
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from hallmark.flows.__main__ import run as command
from hallmark.flows.train import train
from hallmark.tasks.common.errors import InputError, UnavailableError
from hallmark.tasks.ml.training.history import History
from hallmark.tasks.runtime import progress, settings, signals
from hallmark.tasks.tracking import client, store_calls
from hallmark.tasks.tracking.registry import registration
from hallmark.tasks.tracking.store_calls import StoreClient
from tests.support import databases
from tests.support.interrupted import assert_whole, iris_experiment, runs, statuses, tokens, unfinished_folders


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    """Return a connection to the store that can lock it, and that unlocks it when a wait is reported."""
    database = settings.database(settings.read().tracking_uri)
    assert database is not None
    real = progress.line
    with closing(sqlite3.connect(database, isolation_level=None, check_same_thread=False)) as connection:

        def report(label: str, text: str) -> None:
            real(label, text)
            if label == "waiting":
                connection.rollback()

        monkeypatch.setattr(progress, "line", report)
        monkeypatch.setattr(store_calls, "_SILENT_SECONDS", 0.0)
        yield connection


def lock_after(connection: sqlite3.Connection, epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lock the store when an epoch has ended."""
    original = History.record_epoch

    def record(self: History, number: int, metrics: dict[str, float]) -> None:
        original(self, number, metrics)
        if number == epoch:
            connection.execute("BEGIN IMMEDIATE")

    monkeypatch.setattr(History, "record_epoch", record)


@pytest.mark.usefixtures("prefect_server")
def test_a_training_whose_store_stays_locked_ends_in_one_line_and_is_continued_when_it_is_free(
    home: Path, lock: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = iris_experiment()
    with monkeypatch.context() as patch:
        patch.setattr(store_calls, "_SILENT_SECONDS", 60.0)  # nothing unlocks the store
        patch.setenv("HALLMARK_LOCK_SECONDS", "0.3")
        lock_after(lock, 3, patch)
        assert command(["train", *tokens(experiment)]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hallmark:")]
    assert "fit failed: " in line
    assert "mlflow.db has been locked by another process for 0.3 seconds: end that process" in line
    assert statuses(experiment.name) == ["RUNNING"]
    assert len(unfinished_folders(home)) == 1
    assert lock.in_transaction
    assert command(["train", *tokens(experiment)]) == 0
    assert "mlflow.db is locked by another process: waiting up to 60 seconds" in capsys.readouterr().err
    (run,) = runs(experiment.name)
    assert run.info.status == "FINISHED"
    assert_whole(run)


def test_a_store_that_stays_locked_when_a_command_starts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = databases.mlflow(tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("HALLMARK_LOCK_SECONDS", "0.3")
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as own:
        own.execute("PRAGMA journal_mode=DELETE")  # as MLflow itself leaves it, so that a writer blocks readers
        own.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match=r"mlflow.db has been locked by another process for 0.3 sec"):
            client.connect()
    client.connect()


@contextmanager
def silent_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """Yield a client of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        former = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(uri)
        try:
            yield StoreClient(MlflowClient(uri))  # type: ignore[misc]
        finally:
            mlflow.set_tracking_uri(former)
            monkeypatch.setattr(store_calls, "_is_away", False)


def test_ctrl_c_ends_the_wait_for_a_server_also_where_signals_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    def close(client: MlflowClient) -> None:
        with signals.held():
            threading.Timer(0.2, signal.pthread_kill, (threading.get_ident(), signal.SIGTERM)).start()
            client.get_run("0" * 32)

    def again(client: MlflowClient, error: BaseException) -> None:
        with store_calls.after_error(error), signals.held():
            client.get_run("0" * 32)

    with silent_server(monkeypatch) as silent, signals.as_interrupt():
        with pytest.raises(KeyboardInterrupt) as interrupt:
            close(silent)
        with pytest.raises(UnavailableError, match=r"MLflow at http://127.0.0.1:\d+ does not answer"):
            again(silent, interrupt.value)  # it is not even asked, which would take seconds


def test_a_server_is_given_up_after_the_time_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HALLMARK_SERVER_SECONDS", "1")
    monkeypatch.setattr(store_calls, "_SILENT_SECONDS", 0.0)
    with silent_server(monkeypatch) as silent, pytest.raises(UnavailableError) as given_up:
        silent.get_run("0" * 32)
    assert "has not answered for 1 seconds" in str(given_up.value)
    assert str(given_up.value).endswith(": start it, then run the same command again")
    assert "\n" not in str(given_up.value)
    assert "waiting" not in capsys.readouterr().err  # the only request took the whole time


@pytest.mark.usefixtures("prefect_server", "home")
def test_a_run_registers_one_version_though_an_answer_is_lost_a_later_step_fails_and_the_command_is_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: Counter[str] = Counter()
    real = mlflow.register_model

    def unanswered(*given: object, **options: object) -> object:
        calls["register"] += 1
        result = real(*given, **options)  # type: ignore[arg-type]
        raise ConnectionResetError(f"after version {result.version}")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(registration.mlflow, "register_model", unanswered)
    experiment = iris_experiment()
    with monkeypatch.context() as patch:
        patch.setattr("hallmark.tasks.ml.reports.model_card.build", full)
        with pytest.raises(OSError, match="no space left"):
            train(experiment)
    assert statuses(experiment.name) == ["KILLED"]  # to be completed: the run of a champion is never called FAILED
    outcome = train(experiment)
    assert statuses(experiment.name) == ["FINISHED"]
    assert calls["register"] == 1
    versions = client.connect().search_model_versions(f"name = '{experiment.name}'")
    assert [int(one.version) for one in versions] == [outcome.model_version.version]
