"""Processes forked from one that has imported everything, the standard library's forkserver. All tests share it.

It keeps the environment that it was started with, and what Prefect has read there: started without the address of the
tests' server, every process that is forked from it would start a server of its own, and leave it behind when killed.
"""

import multiprocessing
import os
from multiprocessing.context import ForkServerContext

from hallmark.flows.cli.shared.execution import USED_LATER

_IMPORTED = [
    "hallmark.flows.train",
    "hallmark.flows.sweep",
    "hallmark.flows.cli.train",
    "hallmark.flows.cli.sweep",
    "hallmark.tasks.promotion.champions",
]


def context() -> ForkServerContext:
    """Where such processes are made."""
    assert "PREFECT_API_URL" in os.environ
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([*_IMPORTED, "hallmark.tasks.ml.reports.plots.evaluation_plots", *USED_LATER])
    return found
