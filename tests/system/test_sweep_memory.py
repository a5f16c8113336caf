"""What a sweep says fits into memory does, in a process that may take no more than the limit."""

from collections.abc import Callable
from pathlib import Path

import pytest

FITTING = """
import re, resource, sys
from pathlib import Path
from hallmark.tasks.ml.training import sweep_plan
from hallmark.tasks.common.errors import InputError
from tests.bench import rows
from tests.unit.ml.training.test_sweep_plan import Folder, experiment

own, classes, features, batch = map(int, sys.argv[2:])
folder = Path(sys.argv[1])
dataset = rows.generate(folder, rows=3000, features=features, classes=classes)
members = [experiment(epochs=1, batch_size=batch, optimizer="sgd", shuffle_seed=seed * own) for seed in range(1000)]
resource.setrlimit(resource.RLIMIT_DATA, (3 * 2**29, resource.RLIM_INFINITY))
try:
    sweep_plan.refuse_too_many(members, dataset)
except InputError as error:
    fitting = int(re.search(r" ([0-9]+) fit: ", str(error))[1])
Folder(dataset, folder).together(members[:fitting])
print(fitting)
"""


@pytest.mark.parametrize(
    "case",
    [
        pytest.param((0, 100, 500, 2000), id="one order"),
        pytest.param((1, 10, 4000, 3000), id="orders of their own"),
    ],
)
def test_as_many_as_are_said_to_fit_do(case: tuple[int, ...], python: Callable[..., str], tmp_path: Path) -> None:
    assert int(python(FITTING, tmp_path, *case)) > 1
