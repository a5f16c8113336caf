"""Signals that end a process, made to wait while something must not be cut in two."""

import signal
import threading
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What a person, a supervisor or a closing terminal sends and a process can catch."""


@contextmanager
def as_interrupt() -> Iterator[None]:
    """Let every ending signal raise KeyboardInterrupt inside the block, as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's shape
        raise KeyboardInterrupt(signal.Signals(number).name)

    with _handlers(interrupt):
        yield


def interrupted(error: BaseException) -> bool:
    """Whether an error is an interrupt, or came of handling one.

    Prefect's engine trips over a signal that arrives while it sets up a task, and raises something else.
    """
    chain: BaseException | None = error
    while chain:
        # A coroutine that is cancelled or closed is an everyday matter, and no Exception either.
        if not isinstance(chain, (Exception, CancelledError, GeneratorExit)):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


@contextmanager
def held() -> Iterator[list[int]]:
    """Let ending signals that arrive inside the block act after it.

    Yields:
        The signals that have arrived so far.

    Outside the main thread nothing is held: Python runs signal handlers in the main thread alone.
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


@contextmanager
def _handlers(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    # What is ignored stays ignored: `nohup` means it.
    heeded = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
