"""Termination signals: raised as interrupts, or held back while something must not be interrupted."""

import os
import signal
import threading
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that a person, a supervisor or a closing terminal sends and that a process can catch."""


@contextmanager
def as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt inside the block for every termination signal, as for Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
        raise KeyboardInterrupt(signal.Signals(number).name)

    with _handlers(interrupt):
        yield


def interrupted(error: BaseException) -> bool:
    """Return whether an error is an interrupt, or was caused by one.

    If a signal arrives while Prefect's engine sets up a task, the engine raises another error.
    """
    chain: BaseException | None = error
    while chain:
        # These are no Exceptions either, but are raised whenever a coroutine is cancelled or closed.
        if not isinstance(chain, (Exception, CancelledError, GeneratorExit)):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


@contextmanager
def held() -> Iterator[list[int]]:
    """Hold back termination signals that arrive inside the block until its end.

    Outside the main thread nothing is held back, since Python runs signal handlers in the main thread only.

    Yields:
        The signals that have arrived so far.
    """
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return
    try:
        with _handlers(lambda number, _: arrived.append(number)):
            yield arrived
    finally:
        for number in arrived:
            signal.raise_signal(number)


def terminate_when_closed(descriptor: int) -> None:
    """Wait until the other end of a pipe or socket closes, which kill -9 does too, and send SIGTERM to this process.

    Args:
        descriptor: this process's end, to which nobody writes. Reading a file object instead would hold a lock that
            Python needs at exit.
    """
    os.read(descriptor, 1)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _handlers(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    # Ignored signals stay ignored, as `nohup` requires.
    handled = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in handled}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
