"""Termination signals: raised as interrupts, or held back while something must not be interrupted."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that a person, a supervisor or a closing terminal sends and that a process can catch."""


INTERRUPTED = 130
"""Exit code of an interrupted command."""


@contextmanager
def as_interrupt(*, starting: bool = False) -> Iterator[None]:
    """Raise KeyboardInterrupt inside the block for every termination signal, as for Ctrl-C.

    Args:
        starting: end the process at once if the signal arrives during an import. Libraries turn an exception in the
            midst of their import into another, or lose it, and nothing has begun yet that would have to be cleaned up.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if starting and _is_importing(frame):
            _leave(INTERRUPTED)
        raise KeyboardInterrupt(signal.Signals(number).name)

    with _handlers(interrupt):
        yield


def interrupted(error: BaseException) -> bool:
    """Return whether an error is an interrupt, or was caused by one.

    If a signal arrives while Prefect's engine sets up a task, the engine raises another error.
    """
    # These are no Exceptions either, but are raised whenever a coroutine is cancelled or closed.
    others: list[type[BaseException]] = [GeneratorExit]
    if "asyncio" in sys.modules:
        others.append(sys.modules["asyncio"].CancelledError)
    chain: BaseException | None = error
    while chain:
        if not isinstance(chain, (Exception, *others)):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


_held: list[list[int]] = []
"""For each `held` block of the main thread that is being run, the signals that have arrived; the innermost is last."""


@contextmanager
def held() -> Iterator[list[int]]:
    """Hold back termination signals that arrive inside the block until its end, except where it calls `released`.

    Outside the main thread nothing is held back, since Python runs signal handlers in the main thread only.

    Yields:
        The signals that have arrived so far.
    """
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return
    _held.append(arrived)
    try:
        with _handlers(lambda number, _: arrived.append(number)):
            yield arrived
    finally:
        _held.pop()
        for number in arrived:
            signal.raise_signal(number)


def are_held() -> bool:
    """Return whether this is called inside a `held` block of the main thread."""
    return bool(_held) and threading.current_thread() is threading.main_thread()


@contextmanager
def released(grace: float = 0.0) -> Iterator[None]:
    """Interrupt this block, which lies inside a `held` block, if a signal arrives or has arrived. It may be a wait.

    Args:
        grace: number of seconds that the block may still take after the signal.

    Raises:
        KeyboardInterrupt: a signal has arrived. It still counts as held, and is raised again after the `held` block.
    """
    if not are_held():
        yield
        return
    arrived = _held[-1]

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
        raise KeyboardInterrupt(signal.Signals(number).name)

    def hold(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as above
        arrived.append(number)
        signal.setitimer(signal.ITIMER_REAL, max(grace, 1e-6))

    former = signal.signal(signal.SIGALRM, interrupt)
    try:
        with _handlers(hold):
            if any(_held):
                signal.setitimer(signal.ITIMER_REAL, max(grace, 1e-6))
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def leave_at_once(code: int = INTERRUPTED) -> None:
    """End this process at any further termination signal, with an exit code: it is starting, or it is leaving."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: _leave(code))


def _leave(code: int) -> None:
    if code == INTERRUPTED:
        os.write(2, b"hallmark: interrupted\n")
    os._exit(code)


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether the code that was interrupted is part of an import."""
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


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
