"""Run programs in a pseudo-terminal."""

import os
import pty
from collections.abc import Mapping


def run(command: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a program in a new terminal; return its exit code and output."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, environment)
    output = b""
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # raised on Linux when the other side is closed
            break
        if not chunk:
            break
        output += chunk
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output.decode()
