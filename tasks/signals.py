"""Signals that end a process, made to wait while something must not be cut in two."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What a person, a supervisor or a closing terminal sends and a process can catch."""


def raise_interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's shape
    """Handle any of the ending signals as Ctrl-C is handled."""
    raise KeyboardInterrupt(signal.Signals(number).name)


@contextmanager
def held() -> Iterator[None]:
    """Let ending signals that arrive inside the block act after it.

    Outside the main thread nothing is held: Python runs signal handlers in the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handlers = {number: signal.signal(number, lambda n, _: arrived.append(n)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)
