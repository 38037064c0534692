"""Running a command's async part over connections to the stores, which are closed at its end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from samplemind.connections.resources import Connections
from samplemind.settings import get_settings

_T = TypeVar("_T")


def with_connections(work: Callable[[Connections], Awaitable[_T]]) -> _T:
    """Run `work` on a loop of its own with connections to the stores of the settings.

    Raises:
        StackNotRunningError: a store has no URL and no embedded stack is running.
    """

    async def call() -> _T:
        async with Connections(get_settings()) as connections:
            return await work(connections)

    return asyncio.run(call())
