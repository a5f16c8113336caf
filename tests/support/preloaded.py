"""Everything that `hallmark train` and `hallmark sweep` import, for the forkserver of `forks`."""

import importlib

import hallmark.flows.cli.sweep
import hallmark.flows.cli.train
import hallmark.flows.sweep
import hallmark.flows.train
import hallmark.tasks.ml.reports.plots.evaluation_plots
import hallmark.tasks.promotion.champions  # noqa: F401
from hallmark.flows.cli.shared.execution import USED_LATER
from tests.support import onnx_registry

for module in USED_LATER:
    importlib.import_module(module)
onnx_registry.reuse()
onnx_registry.read()
