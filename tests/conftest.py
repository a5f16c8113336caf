import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import settings as hypothesis_settings

from hallmark.flows.experiments import presets
from hallmark.tasks.common.records import Artifact, Dataset, Fit
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.artifact import exporter
from hallmark.tasks.ml.config.data import Data
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.data import dataset_store, sources
from hallmark.tasks.ml.models import networks
from hallmark.tasks.ml.training import loop, trainer
from tests.support import consoles, databases, limits, onnx_registry, processes, scheduled, stations

ROOT = Path(__file__).resolve().parents[1]

hypothesis_settings.register_profile("fast", max_examples=50, deadline=None)
hypothesis_settings.register_profile("thorough", max_examples=80, deadline=None)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", type=Path, help="folder for the screenshots of browser tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest files first, so that no worker starts one when the others have finished."""
    tiers, slow = ("system", "pipelines", "unit"), ("deaths", "silence", "restarts", "station", "kills", "story")

    def order(item: pytest.Item) -> tuple[int, bool]:
        tier = item.path.relative_to(ROOT / "tests").parts[0]
        return tiers.index(tier), not any(name in item.path.name for name in slow)

    items.sort(key=order)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that takes longer than its tier allows."""
    started, modules = limits.now(), len(sys.modules)
    result = yield
    if len(sys.modules) > modules + 20:  # the first use of a library pays for its import
        return result
    seconds, limit = limits.seconds_since(started), limits.limit(item.path, ROOT / "tests")
    if limit is not None and seconds > limit:
        pytest.fail(
            f"took {seconds:.1f} s, and a test in tests/{item.path.relative_to(ROOT / 'tests').parts[0]} may take "
            f"{limit:.0f} s: make it faster or move it to a slower tier ({limits.VARIABLE}=off on a busy machine)",
            pytrace=False,
        )
    return result


@pytest.fixture
def pictures(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the folder for screenshots."""
    folder: Path = request.config.getoption("--pictures") or tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give this worker its own home and tracking store, so that no test uses those of the project."""
    folder = tmp_path_factory.mktemp("machine")
    onnx_registry.reuse()
    # The tests send these signals. A shell or nohup starts background jobs with the signals ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HALLMARK_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
        patch.setenv("PREFECT_HOME", str(folder / "prefect"))
        patch.setenv("DO_NOT_TRACK", "true")
        patch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        patch.delenv("PREFECT_API_URL", raising=False)
        yield folder


@pytest.fixture(scope="session")
def migrated(machine: Path) -> None:
    """Create empty, migrated MLflow and Prefect databases at the paths in the settings."""
    databases.mlflow(machine / "mlruns" / "mlflow.db")
    databases.prefect(machine / "prefect" / "prefect.db")


@pytest.fixture(scope="session")
def prefect_server(migrated: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:  # noqa: ARG001 - the databases come first
    """Start a Prefect server without a scheduler, shared by all tests of this worker; return its address."""
    import prefect.testing.utilities as prefect_testing
    from prefect.settings import PREFECT_API_URL

    folder = tmp_path_factory.mktemp("harness")
    databases.prefect(folder / "prefect-test.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefect_testing, "mkdtemp", lambda: str(folder))  # the folder of the harness's database
        with prefect_testing.prefect_test_harness(server_startup_timeout=120):
            yield str(PREFECT_API_URL.value())


@pytest.fixture(scope="session")
def three_seeds(prefect_server: str) -> list[Outcome]:  # noqa: ARG001 - the server comes first
    """Train iris with three seeds, once for all tests of this worker that do not modify the outcomes."""
    from tests.support import registered

    return registered.train_three_seeds()


@pytest.fixture
def server_for_children(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let processes started by a test use this worker's Prefect server instead of starting their own."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    return prefect_server


@pytest.fixture(scope="session")
def full_server(machine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:  # noqa: ARG001 - as above
    """Start a Prefect server with all services, shared by tests of this worker with schedules; return its address."""
    port = processes.free_port()
    with processes.prefect_server(tmp_path_factory.mktemp("scheduler"), port):
        yield f"http://127.0.0.1:{port}/api"


@pytest.fixture
def scheduler(full_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a Prefect server with all services, and put it into the settings."""
    monkeypatch.setenv("PREFECT_API_URL", full_server)
    return full_server


@pytest.fixture
def write_schedules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Return a function that writes schedules to the file in the settings. Their deployments are removed at the end."""
    path = tmp_path / "schedules.toml"

    def write(*entries: str) -> Path:
        path.write_text("".join(f"[[schedule]]\n{entry}\n" for entry in entries))
        monkeypatch.setenv("HALLMARK_SCHEDULES", str(path))
        return path

    yield write
    scheduled.remove_deployments(path)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[stations.Workspace]:
    """Return an empty workspace for a station. The station is stopped at the end of the test."""
    with stations.open_workspace(tmp_path) as workspace:
        yield workspace


@pytest.fixture
def console(capsys: pytest.CaptureFixture[str]) -> consoles.Call:
    """Return a function that runs a command in this process and returns exit code, stdout and stderr."""
    return consoles.console(capsys)


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings check every five batches whether to stop."""
    monkeypatch.setattr(loop, "_SEGMENT_BATCHES", 5)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Set the number of torch's threads, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set `HALLMARK_HOME` to a folder that does not exist yet."""
    monkeypatch.setenv("HALLMARK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def iris_outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Dataset, Fit]:
    """Prepare and train the iris preset on the CPU, once for all tests that do not modify the files."""
    folder, preset = tmp_path_factory.mktemp("iris"), presets.iris()
    experiment = preset.model_copy(update={"training": preset.training.model_copy(update={"device": "cpu"})})
    dataset = prepare(experiment.data, folder)
    return experiment, dataset, fit(experiment, dataset, folder / "fit")


@pytest.fixture
def iris(iris_outcome: tuple[Experiment, Dataset, Fit], tmp_path: Path) -> tuple[Experiment, Dataset]:
    """Return the iris preset on the CPU and a copy of its dataset."""
    experiment, dataset, _ = iris_outcome
    folder = tmp_path / "datasets" / dataset.folder.name
    shutil.copytree(dataset.folder, folder)
    return experiment, replace(dataset, folder=folder)


@pytest.fixture
def fitted(iris_outcome: tuple[Experiment, Dataset, Fit], iris: object, tmp_path: Path) -> Fit:  # noqa: ARG001 - the dataset is copied too
    """Return a copy of the trained iris preset."""
    original = iris_outcome[2]
    shutil.copytree(original.weights.parent, tmp_path, dirs_exist_ok=True)
    return replace(original, weights=tmp_path / original.weights.name, history=tmp_path / original.history.name)


@pytest.fixture(scope="session")
def iris_artifact(iris_outcome: tuple[Experiment, Dataset, Fit]) -> Artifact:
    """Export the trained iris preset, once for all tests that do not modify the file."""
    experiment, dataset, fitted = iris_outcome
    classifier = load(fitted, dataset, experiment)
    folder = fitted.weights.parent.with_name("artifact")
    folder.mkdir()
    return exporter.export(classifier, dataset, experiment.export, folder / "iris.onnx")


@pytest.fixture
def artifact(iris_artifact: Artifact, tmp_path: Path) -> Artifact:
    """Return a copy of the exported iris preset."""
    return replace(iris_artifact, path=Path(shutil.copy(iris_artifact.path, tmp_path)))


def prepare(source: Data, home: Path) -> Dataset:
    return dataset_store.prepare(sources.read(source, home), source, home)


def load(fit: Fit, dataset: Dataset, experiment: Experiment) -> networks.Classifier:
    return networks.load(fit, dataset, experiment.model, experiment.training.loss)


def fit(experiment: Experiment, dataset: Dataset, folder: Path) -> Fit:
    return trainer.fit(dataset, experiment.data, experiment.model, experiment.training, folder, log=lambda *_: None)


@pytest.fixture(scope="session")
def python() -> Callable[..., str]:
    """Return a function that runs Python code in a new process and returns its output."""

    def run(code: str, *arguments: object, cwd: Path = ROOT) -> str:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        completed = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, env=os.environ)
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    return run
