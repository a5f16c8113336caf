"""The program: flows, commands, schedules and the station.

Importing torch, MLflow and Prefect creates a million objects that stay. At Python's threshold of 700 the garbage
collector visits them again and again: a sixth of the CPU time of `hallmark train iris`, measured. Every process of
Hallmark imports this package first.
"""

import gc

gc.set_threshold(100_000)
