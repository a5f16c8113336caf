"""Programs that run in a terminal."""

import os
import pty
from collections.abc import Mapping


def run(command: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a program in a terminal of its own; return its exit code and all that it wrote there."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, environment)
    output = b""
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # Linux says so when the other side has closed
            break
        if not chunk:
            break
        output += chunk
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output.decode()
