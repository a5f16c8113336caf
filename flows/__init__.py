"""The program: flows, commands, schedules and the station.

Importing torch, MLflow and Prefect creates a million objects that stay. At Python's threshold of 700 the garbage
collector visits them again and again: a sixth of the CPU time of `hallmark train iris`, measured. Every process of
Hallmark imports this package first.

No library sends telemetry, also if a flow is called from Python. A variable that is set already is left alone.
"""

import gc
import os

gc.set_threshold(100_000)
os.environ.setdefault("DO_NOT_TRACK", "true")  # Prefect's client and MLflow
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")  # also of a server that Prefect itself starts
