"""The reproduction: does a recorded run come out the same, bit for bit, here and now?"""

from prefect import flow

from hallmark.tasks.common.records import Reproduction
from hallmark.tasks.prepare import prepare
from hallmark.tasks.reproduce import reproduce as again
from hallmark.tasks.tracking import run_queries


@flow(name="reproduce", flow_run_name="reproduce {run_id}")
def reproduce(run_id: str) -> Reproduction:
    """Train what an MLflow run has recorded once more, export, prove and stamp it, and compare weights and file.

    Nothing is logged or registered, and what is made is removed.

    Args:
        run_id: of a run that shipped a file.
    """
    recorded, experiment = run_queries.recorded(run_id)
    return again(recorded, experiment, prepare(experiment))
