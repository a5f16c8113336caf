"""Another process in another folder computes the same bits, and resumes trainings interrupted here."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hallmark.tasks.common.records import Dataset, Fit
from hallmark.tasks.ml.artifact import exporter
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training import loop
from tests.conftest import load, prepare
from tests.support import owned
from tests.support.interrupted_training import CASES, Trial

INTERRUPTED = ("adam", "lbfgs of a perceptron", "cnn")

CODE = """
import json, sys
from pathlib import Path
from hallmark.flows.experiments import presets
from hallmark.tasks.ml.artifact import exporter
from hallmark.tasks.ml.training import loop, trainer
from tests.conftest import load, prepare
from tests.support import owned
from tests.support.interrupted_training import CASES, Trial
folder = Path(sys.argv[1])
home, e = folder / "elsewhere", presets.iris()
d = prepare(e.data, home)
fit = trainer.fit(d, e.data, e.model, e.training, home, lambda *_: None)
onnx = exporter.export(load(fit, d, e), d, e.export, home / "x.onnx").sha256
loop._SEGMENT_BATCHES = 5
resumed = []
for name in sys.argv[2:]:
    case = CASES[name]
    trial = Trial(case, prepare(case.data, folder / name), folder / name).run()
    resumed.append([*trial.resumed[0], trial.fit.weights_sha256])
print(json.dumps({"weights": fit.weights_sha256, "onnx": onnx, "resumed": resumed}))
"""


@pytest.fixture(scope="module", autouse=True)
def _short_segments() -> Iterator[None]:
    """Check for interrupts every few batches, so that a training stops within an epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_SEGMENT_BATCHES", 5)
        yield


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stop trainings after four epochs, and return their folder."""
    folder = tmp_path_factory.mktemp("interrupted")
    for name in INTERRUPTED:
        assert Trial(CASES[name], prepare(CASES[name].data, folder), folder / name).stop_after(4)
    return folder


@pytest.fixture(scope="module")
def elsewhere(interrupted: Path, python: Callable[..., str]) -> dict[str, Any]:
    """Return the results of another process."""
    found: dict[str, Any] = json.loads(python(CODE, interrupted, *INTERRUPTED, cwd=interrupted).splitlines()[-1])
    return found


def test_the_same_experiment_gives_the_same_weights(fitted: Fit, elsewhere: dict[str, Any]) -> None:
    assert elsewhere["weights"] == fitted.weights_sha256


def test_the_same_experiment_gives_the_same_onnx_bytes(
    iris: tuple[Experiment, Dataset], fitted: Fit, elsewhere: dict[str, Any], tmp_path: Path
) -> None:
    experiment, dataset = iris
    classifier = load(fitted, dataset, experiment)
    artifact = exporter.export(classifier, dataset, experiment.export, tmp_path / "iris.onnx")
    assert elsewhere["onnx"] == artifact.sha256


def test_an_interrupted_training_is_resumed(elsewhere: dict[str, Any], tmp_path: Path) -> None:
    expected = [
        Trial(CASES[name], prepare(CASES[name].data, tmp_path), tmp_path / name).run().fit.weights_sha256
        for name in INTERRUPTED
    ]
    assert [digest for _, _, digest in elsewhere["resumed"]] == expected
    assert (0, 0) not in [(epoch, step) for epoch, step, _ in elsewhere["resumed"]]


TABLE_CODE = """
import sys
from pathlib import Path
from hallmark.tasks.ml.data import dataset_store, sources
from tests.support import owned
folder = Path(sys.argv[1])
source = owned.source(folder / "people.csv")
print(dataset_store.prepare(sources.read(source, folder), source, folder / sys.argv[2]).digest)
"""


@pytest.mark.parametrize("ignored", [(), ("c0",)], ids=["text", "numbers only"])
def test_the_digest_of_a_table_does_not_depend_on_the_order_of_sets(
    ignored: tuple[str, ...], tmp_path: Path, python: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = owned.mixed()
    owned.write(table.drop_columns(list(ignored)), tmp_path / "people.csv")
    digests = set()
    for seed in ("0", "20"):  # with 20, skl2onnx lists the domains of its operators in another order
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        digests.add(python(TABLE_CODE, tmp_path, seed))
    assert len(digests) == 1
