"""An MLflow server: API and UI on the store that the environment names, with a password if one is set.

Run as a module, `python -m hallmark.flows.station.mlflow_server DESCRIPTOR`, it is the MLflow server of a station.
"""

import base64
import hmac
import socket
import sys

import uvicorn
from starlette.authentication import AuthenticationBackend, AuthenticationError
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse

from hallmark.flows.station import child_process
from hallmark.tasks.common.errors import HallmarkError
from hallmark.tasks.runtime import settings


class PasswordRequired(AuthenticationBackend):
    """Reject requests without the right user and password, except for `/health`."""

    def __init__(self, auth: str) -> None:
        """Store the credentials, `user:password`, as clients send them."""
        self.token = base64.b64encode(auth.encode())

    async def authenticate(self, conn: HTTPConnection) -> None:
        """Check the `Authorization` header of a request.

        Raises:
            AuthenticationError: user and password are missing or wrong.
        """
        scheme, _, token = conn.headers.get("authorization", "").partition(" ")
        is_known = scheme.lower() == "basic" and hmac.compare_digest(token.strip().encode(), self.token)
        if not is_known and conn.scope["path"] != "/health":
            raise AuthenticationError("user and password are required")


def serve(listener: socket.socket, auth: str | None = None) -> None:
    """Serve MLflow's API and UI until a signal.

    Args:
        listener: socket to serve on.
        auth: `user:password` that clients must send; None for no password.
    """
    from hallmark.tasks.tracking import client

    application = client.application(settings.from_environment().tracking_uri)
    if auth:
        application = AuthenticationMiddleware(
            application,
            backend=PasswordRequired(auth),
            on_error=lambda _, error: PlainTextResponse(
                str(error), status_code=401, headers={"WWW-Authenticate": 'Basic realm="Hallmark"'}
            ),
        )
    config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=child_process.FINISH_SECONDS)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    child_process.follow_owner()
    try:
        serve(socket.socket(fileno=int(sys.argv[1])), settings.from_environment().credentials)
    except HallmarkError as error:
        sys.exit(f"{error}")
