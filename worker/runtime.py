"""The event loop and the connections that a worker process owns.

A job is a plain function in the process's main thread, where Celery's soft time limit can interrupt
it; what it awaits runs on one loop in a thread beside it, to which every pool of connections stays
bound for the life of the process.

Invariant: when `run` returns or raises, the coroutine has ended: no later job meets what an earlier
one left behind. Nothing here is made before the fork, and nothing made in one process is used in
another.
"""

import asyncio
import contextvars
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from celery import signals

from samplemind.connections.postgres import PoolCounts
from samplemind.connections.resources import Connections
from samplemind.log import get_logger
from samplemind.settings import get_settings

T = TypeVar("T")

CANCELLATION_S = 5.0
"""Seconds that a cancelled coroutine may take to clean up before its process is given up."""

_CLOSING_S = 3.0

_log = get_logger(__name__)


class LoopThread:
    """An event loop in a daemon thread, for coroutines that another thread waits for."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="event-loop", daemon=True)
        self._thread.start()
        self._call: _Call[Any] | None = None

    def run(self, coroutine: Coroutine[Any, Any, T], *, on_stuck: Callable[[], None]) -> T:
        """Run the coroutine in the caller's context and return what it returns.

        An exception in the waiting thread, such as a soft time limit, cancels the coroutine and is
        raised once that has ended. `on_stuck` is called where it did not end within
        `CANCELLATION_S`.
        """
        call = _Call(self._loop, coroutine)
        self._call = call
        try:
            call.start()
            return call.outcome.result()
        except BaseException:
            if not call.cancel_and_wait(CANCELLATION_S):
                on_stuck()
            raise
        finally:
            self._call = None

    def interrupt(self) -> None:
        """Cancel the coroutine that `run` waits for in another thread, if there is one."""
        call = self._call
        if call is not None:
            call.cancel()

    def stop(self) -> None:
        """Stop the loop and wait, not for long, for its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=_CLOSING_S)
        if not self._thread.is_alive():
            self._loop.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()


class _Call(Generic[T]):
    """One coroutine on the loop, and the thread-safe future of its outcome."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> None:
        self.outcome: Future[T] = Future()
        self._loop = loop
        self._coroutine = coroutine
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[T] | None = None
        self._cancelled = False

    def start(self) -> None:
        self._loop.call_soon_threadsafe(self._start_on_loop)

    def cancel(self) -> None:
        self._loop.call_soon_threadsafe(self._cancel_on_loop)

    def cancel_and_wait(self, seconds: float) -> bool:
        """Return whether the coroutine has ended, cancelled if it had not before."""
        if self.outcome.done():
            return True
        self.cancel()
        # `exception` waits for the end without raising what the coroutine raised.
        try:
            self.outcome.exception(timeout=seconds)
        except TimeoutError:
            return False
        return True

    def _start_on_loop(self) -> None:
        if self._cancelled:
            return
        self._task = self._loop.create_task(self._coroutine, context=self._context)
        self._task.add_done_callback(self._settle)

    def _cancel_on_loop(self) -> None:
        # The interruption may come before the loop has seen the coroutine at all.
        again, self._cancelled = self._cancelled, True
        if self._task is None:
            if again:
                return
            self._coroutine.close()
            self.outcome.set_exception(asyncio.CancelledError())
        else:
            self._task.cancel()

    def _settle(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.outcome.set_exception(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())


class _Runtime:
    """The loop and the connections of one process."""

    def __init__(self) -> None:
        self.loop = LoopThread()
        self.connections = Connections(get_settings(), worker=True)

    def close(self) -> None:
        async def close_in_time() -> None:
            async with asyncio.timeout(_CLOSING_S):
                await self.connections.aclose()

        try:
            self.loop.run(close_in_time(), on_stuck=lambda: None)
        except TimeoutError:
            # The servers end idle sessions by themselves; the process must not wait for them.
            _log.warning("connections_not_closed_in_time", seconds=_CLOSING_S)
        self.loop.stop()


_current: _Runtime | None = None


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine on this process's loop and return what it returns.

    Context variables of the caller hold inside it. Where the waiting is interrupted by an
    exception, the coroutine is cancelled and has ended before the exception goes on. One that
    refuses to end costs its process: the job goes back to its queue, and the count of deliveries
    bounds how often.
    """
    return _runtime().loop.run(coroutine, on_stuck=_give_up_process)


def interrupt() -> None:
    """Cancel what `run` waits for, from another thread of the process; `run` then raises that."""
    if _current is not None and _current.loop.pid == os.getpid():
        _current.loop.interrupt()


def connections() -> Connections:
    """Return this process's connections; await on them only inside `run`."""
    return _runtime().connections


def pool_counts() -> PoolCounts | None:
    """Return what this process's PostgreSQL pool has counted; none where it has none."""
    if _current is None or _current.loop.pid != os.getpid():
        return None
    return _current.connections.pool_counts()


def close() -> None:
    """Close the connections and stop the loop, if this process has any; harmless to repeat."""
    global _current
    runtime, _current = _current, None
    if runtime is not None and runtime.loop.pid == os.getpid():
        runtime.close()


def _runtime() -> _Runtime:
    global _current
    if _current is None or _current.loop.pid != os.getpid():
        # A loop that was inherited through a fork has no thread here to serve it.
        _current = _Runtime()
    return _current


def _give_up_process() -> None:
    _log.critical("coroutine_not_cancellable", seconds=CANCELLATION_S)
    os.kill(os.getpid(), signal.SIGKILL)


@signals.worker_process_shutdown.connect
def _close_with_process(**_: object) -> None:
    close()
