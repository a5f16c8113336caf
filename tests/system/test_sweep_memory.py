"""The number of members that a sweep reports to fit into memory can be trained under that memory limit."""

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

differ, classes, features, batch = map(int, sys.argv[2:])
folder = Path(sys.argv[1])
dataset = rows.generate(folder, rows=3000, features=features, classes=classes)
members = [experiment(epochs=1, batch_size=batch, optimizer="sgd", shuffle_seed=seed * differ) for seed in range(1000)]
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
        pytest.param((0, 100, 500, 2000), id="same row order"),
        pytest.param((1, 10, 4000, 3000), id="different row orders"),
    ],
)
def test_reported_number_of_members_fits_into_memory(
    case: tuple[int, ...], python: Callable[..., str], tmp_path: Path
) -> None:
    assert int(python(FITTING, tmp_path, *case)) > 1
