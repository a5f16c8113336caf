"""The program: flows, commands, schedules and the station.

Importing torch, MLflow and Prefect creates a million objects that stay. At Python's threshold of 700 the garbage
collector visits them again and again: a sixth of the CPU time of `hallmark train iris`, measured. Every process of
Hallmark imports this package first.

If a flow is called from Python, not by the command, and the settings name no server, Prefect itself starts one. The
variables below hold for that server too; one that is set already is left alone. No library sends telemetry. The server
refuses changes without a CSRF token, and lets no page of another origin read its answers.
"""

import gc
import os

gc.set_threshold(100_000)
os.environ.setdefault("DO_NOT_TRACK", "true")  # Prefect's client and MLflow
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", "https://hallmark.invalid")  # no page has this origin
os.environ.setdefault("PREFECT_SERVER_CSRF_PROTECTION_ENABLED", "true")
