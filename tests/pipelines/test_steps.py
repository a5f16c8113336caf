"""Every module at the top of `tasks` is a step, and every step names its failures."""

import inspect
import pickle
import re
import tomllib
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path

import pytest
from prefect import Task

from hallmark.tasks.common.errors import DivergedError
from hallmark.tasks.runtime import progress, steps
from tests.conftest import ROOT
from tests.support.contracts import LayersOfModules

MODULES = sorted(path.stem for path in (ROOT / "tasks").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", MODULES)
def test_a_failure_in_a_step_carries_its_name(name: str) -> None:
    module = import_module(f"hallmark.tasks.{name}")
    step = getattr(module, name)
    assert isinstance(step, Task)
    no_arguments = dict.fromkeys(inspect.signature(step.fn).parameters)
    positional = no_arguments.pop("others", None)
    assert positional is None
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever the step trips over first
        step.fn(**no_arguments)
    label = steps.failed_step(caught.value)
    assert label
    assert re.fullmatch("[a-z]{3,8}", label)
    assert f'@step("{label}"' in inspect.getsource(module) or f'@step(\n    "{label}"' in inspect.getsource(module)


def test_the_step_that_failed_first_is_named() -> None:
    with pytest.raises(DivergedError) as caught, steps.running("outer"), steps.running("inner"):
        raise DivergedError("loss is infinite")
    assert steps.failed_step(caught.value) == "inner"
    assert steps.failed_step(pickle.loads(pickle.dumps(caught.value))) == "inner"  # noqa: S301 - our own bytes
    assert steps.failed_step(DivergedError("outside of any step")) is None


def fail_in_a_step() -> None:
    with steps.running("fit"):
        raise DivergedError("loss is infinite")


def test_the_name_survives_a_process_pool() -> None:
    with ProcessPoolExecutor(1) as pool, pytest.raises(DivergedError) as caught:
        pool.submit(fail_in_a_step).result()
    assert steps.failed_step(caught.value) == "fit"


def test_a_step_labels_its_progress_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with steps.running("export"):
        progress.report("1,234 bytes")
    assert capsys.readouterr().err == "export   1,234 bytes\n"


def test_name_and_subject_name_the_runs_of_a_step() -> None:
    assert steps.step("fit", "{path.name} again")(Path.exists).task_run_name == "fit {path.name} again"
    assert steps.step("fit")(Path.exists).task_run_name is None
    assert steps.step("fit", task_run_name="train {path}")(Path.exists).task_run_name == "train {path}"


def test_the_import_contract_covers_every_flow_and_step() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [one["layers"] for one in contracts if one["name"] == "layers of the project"]
    listed = {name for layer in layers for name in layer.split(" | ")}
    flows = {f"hallmark.flows.{path.stem}" for path in (ROOT / "flows").glob("*.py") if path.stem != "__init__"}
    rooms = {f"hallmark.flows.{path.name}" for path in (ROOT / "flows").iterdir() if path.is_dir()}
    assert flows <= {name for name in listed if name.startswith("hallmark.flows.")} <= flows | rooms
    assert "hallmark.tasks.*" in listed
    steps = LayersOfModules.layers.subfield.parse("hallmark.tasks.*").module_tails
    assert {step.name for step in steps} == {f"hallmark.tasks.{name}" for name in MODULES}
