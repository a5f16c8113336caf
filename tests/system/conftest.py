import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from hallmark.flows.experiments import presets
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.ml.reports.live_page import browser_runtime, live_folder
from hallmark.tasks.runtime import settings
from tests.support import browsers, certified, registered, registries


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


@pytest.fixture(scope="session")
def digits(prefect_server: str) -> Outcome:  # noqa: ARG001 - the server comes first
    """Train the preset digits once for all tests of live pages."""
    return registered.train_on_cpu(presets.get("digits"))


@pytest.fixture(scope="session")
def runtime(machine: None) -> Path:  # noqa: ARG001 - sets the home
    """Download onnxruntime-web from a registry on this machine; return its folder."""
    browsers.executable()
    with registries.serving(registries.archive()) as registry:
        return browser_runtime.fetch(settings.read().home, registry.address)


@pytest.fixture
def write_live(tmp_path: Path, runtime: Path) -> Callable[..., Path]:
    """Return a function that writes the live page of a model for images of a shape."""

    def write(shape: tuple[int, ...], classes: tuple[str, ...] = ("dark", "light"), *, resized: bool = False) -> Path:
        onnx = certified.images(tmp_path / "hand.onnx", shape, classes, resized=resized)
        return live_folder.write(onnx, b"<h1>card</h1>", "Made by hand.", runtime, tmp_path / "live")

    return write
