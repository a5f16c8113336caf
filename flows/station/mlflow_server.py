"""An MLflow server: API and UI on the store that the environment names.

Run as a module, `python -m hallmark.flows.station.mlflow_server DESCRIPTOR`, it is the MLflow server of a station.
"""

import socket
import sys

import uvicorn

from hallmark.flows.station import child_process
from hallmark.flows.station.request_guard import RequestGuard
from hallmark.tasks.common.errors import HallmarkError
from hallmark.tasks.runtime import settings


def serve(listener: socket.socket) -> None:
    """Serve MLflow's API and UI until a signal, with the password of the settings if there is one.

    Args:
        listener: socket to serve on.
    """
    from hallmark.tasks.tracking import client

    machine = settings.from_environment()
    served = client.application(machine.tracking_uri)
    application = RequestGuard(served, machine.host, machine.credentials, health="/health")
    config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=child_process.FINISH_SECONDS)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    child_process.follow_owner()
    try:
        serve(socket.socket(fileno=int(sys.argv[1])))
    except HallmarkError as error:
        sys.exit(f"{error}")
