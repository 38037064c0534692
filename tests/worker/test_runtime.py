"""A job's coroutine runs on the process's loop and never outlives its job."""

import asyncio
import contextvars
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from worker.runtime import LoopThread

place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="nowhere")


class InterruptionError(BaseException):
    """Stands for a soft time limit."""


def must_not_be_stuck() -> None:
    pytest.fail("the coroutine did not end")


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.stop()


@pytest.fixture
def interrupt_after() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise InterruptionError

    previous = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


def test_a_result_and_an_error_come_back_as_from_a_plain_call(loop: LoopThread) -> None:
    async def divide(by: int) -> float:
        await asyncio.sleep(0)
        return 1 / by

    assert loop.run(divide(2), on_stuck=must_not_be_stuck) == 0.5
    with pytest.raises(ZeroDivisionError):
        loop.run(divide(0), on_stuck=must_not_be_stuck)


def test_the_coroutine_runs_in_the_callers_context_and_on_another_thread(loop: LoopThread) -> None:
    async def look() -> tuple[str, int]:
        return place.get(), threading.get_ident()

    token = place.set("here")
    seen, thread = loop.run(look(), on_stuck=must_not_be_stuck)
    place.reset(token)

    assert seen == "here"
    assert thread != threading.get_ident()


@pytest.mark.usefixtures("interrupt_after")
def test_an_interruption_is_raised_only_after_the_coroutine_has_cleaned_up(
    loop: LoopThread,
) -> None:
    events: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.2)
            events.append("cleaned up")

    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with pytest.raises(InterruptionError):
        loop.run(work(), on_stuck=must_not_be_stuck)

    assert events == ["cleaned up"]

    async def others() -> int:
        return len(asyncio.all_tasks()) - 1

    assert loop.run(others(), on_stuck=must_not_be_stuck) == 0


@pytest.mark.usefixtures("interrupt_after")
def test_a_coroutine_that_refuses_to_end_is_reported(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.runtime.CANCELLATION_S", 0.2)
    release = threading.Event()
    reports: list[str] = []

    async def refuse() -> None:
        while not release.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    signal.setitimer(signal.ITIMER_REAL, 0.1)
    started = time.monotonic()
    with pytest.raises(InterruptionError):
        loop.run(refuse(), on_stuck=lambda: reports.append("stuck"))
    release.set()

    assert reports == ["stuck"]
    assert time.monotonic() - started < 2
