"""Ending a task of the event loop for certain.

Before Python 3.12 `asyncio.wait_for`, with which Redis's client sends, loses a cancellation that
comes in the same moment as the end of what it waits for. A task that repeats itself then goes on
for ever, and so does whoever waits for its end.

A task that repeats itself asks `is_ending` at each turn, and ends even if nobody cancels it again.

Invariant: when `end_tasks` returns, none of the tasks runs any more.
"""

import asyncio
from typing import Any

# Long enough for what a task still tidies up, which a second cancellation would cut short.
_AGAIN_S = 1.0


def is_ending() -> bool:
    """Return whether the running task was cancelled, though it may have lost that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def end_tasks(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel the tasks, again and again where that was lost, and wait until all have ended."""
    waiting = {task for task in tasks if not task.done()}
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # or the loop would report that nobody asked for it
