import asyncio
import os
import signal
import threading

import pytest

from hallmark.tasks.runtime import signals


@pytest.mark.parametrize("number", signals.ENDING)
def test_every_ending_signal_interrupts_like_ctrl_c(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def wait() -> None:
        with signals.as_interrupt():
            os.kill(os.getpid(), number)
            threading.Event().wait(10)

    with pytest.raises(KeyboardInterrupt, match=number.name):
        wait()
    assert signal.getsignal(number) is before


def test_an_error_caused_by_an_interrupt_is_recognised() -> None:
    def fail() -> None:
        try:
            raise KeyboardInterrupt  # noqa: TRY301 - as a handler does
        except KeyboardInterrupt:
            raise ValueError("task run is not set") from None

    with pytest.raises(ValueError, match="not set") as caught:
        fail()
    assert signals.interrupted(caught.value)
    assert signals.interrupted(KeyboardInterrupt())
    assert not signals.interrupted(ValueError())


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.as_interrupt():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_cancelled_coroutine_is_not_an_interrupt() -> None:
    async def slow() -> None:
        await asyncio.wait_for(asyncio.Event().wait(), timeout=0.01)

    with pytest.raises(TimeoutError) as late:
        asyncio.run(slow())
    assert not signals.interrupted(late.value)


def test_a_held_signal_acts_after_the_block() -> None:
    done: list[str] = []

    def block() -> None:
        with signals.held():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("whole")

    with signals.as_interrupt(), pytest.raises(KeyboardInterrupt):
        block()
    assert done == ["whole"]


def test_holding_signals_has_no_effect_outside_the_main_thread() -> None:
    done: list[str] = []

    def block() -> None:
        with signals.held():
            done.append("ran")

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert done == ["ran"]
