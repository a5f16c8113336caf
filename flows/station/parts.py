"""Two of the parts of a station, each in a process of its own that ends with it; the third is `station.prefect_server`.

Run as a module: `python -m hallmark.flows.station.parts mlflow DESCRIPTOR`, or with `schedules` alone.
"""

import base64
import hmac
import socket
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING

from hallmark.flows.station import prefect_server
from hallmark.tasks.common.errors import HallmarkError
from hallmark.tasks.runtime import settings, station_file

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class Guarded:
    """Lets those through to an application who give user and password, and everybody to its health."""

    def __init__(self, application: "ASGIApp", auth: str) -> None:
        """Guard an application.

        Args:
            application: which is guarded.
            auth: `user:password`.
        """
        self.application = application
        self.token = base64.b64encode(auth.encode())

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request, as ASGI wants it."""
        if scope["type"] == "lifespan" or scope.get("path") == "/health" or self._knows(scope):
            await self.application(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"www-authenticate", b'Basic realm="Hallmark"'), (b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": HTTPStatus.UNAUTHORIZED, "headers": headers})
            await send({"type": "http.response.body", "body": b"user and password are needed"})
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _knows(self, scope: "Scope") -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, token = given.partition(b" ")
        return scheme.lower() == b"basic" and hmac.compare_digest(token.strip(), self.token)


def serve_mlflow(listener: socket.socket, auth: str | None = None) -> None:
    """Serve MLflow's API and UI, on the store of the environment, until a signal.

    Args:
        listener: where.
        auth: `user:password` that is asked for, if one is.
    """
    import uvicorn

    from hallmark.tasks.tracking import client

    application = client.application(settings.from_environment().tracking_uri)
    config = uvicorn.Config(
        Guarded(application, auth) if auth else application,
        log_level="warning",
        timeout_graceful_shutdown=prefect_server.FINISH_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    """Be the part that the arguments name, until SIGTERM or the end of the station."""
    prefect_server.follow_owner()
    try:
        if sys.argv[1] == station_file.MLFLOW:
            serve_mlflow(socket.socket(fileno=int(sys.argv[2])), settings.from_environment().credentials)
        else:
            from hallmark.flows.scheduling import serve

            serve.main()
    except HallmarkError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
