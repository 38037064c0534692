"""Threads for what can only be read by waiting: a few for each store, so that none takes another's.

The loop's own threads look up addresses and serve Flower's pages; a store that hangs for a minute
would soon have all of them. Here it holds its own, and whoever asks for more of it is told.

Invariant: of each place at most `WIDTH` questions are under way and `MOST_WAITING` wait.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TypeVar

from samplemind.errors import StoreUnavailableError

T = TypeVar("T")

WIDTH = 3
MOST_WAITING = 12


class Place(StrEnum):
    """What is waited for."""

    STORAGE = "the storage of backups"
    POSTGRES = "PostgreSQL"
    BROKER = "the broker"
    HEALTH = "the health of stores and processes"


class Threads:
    """The threads of every place; a thread begins with the first question that needs it."""

    def __init__(self) -> None:
        self._pools = {
            place: ThreadPoolExecutor(WIDTH, f"console-{place.name.lower()}") for place in Place
        }
        self._asked = dict.fromkeys(Place, 0)

    async def run(self, place: Place, work: Callable[[], T]) -> T:
        """Do it in a thread of that place, and return what it returns.

        Raises:
            StoreUnavailableError: too many wait for that place already.
        """
        if self._asked[place] >= WIDTH + MOST_WAITING:
            message = f"{self._asked[place]} questions wait for {place.value}: it does not answer"
            raise StoreUnavailableError(message)
        self._asked[place] += 1
        future = asyncio.get_running_loop().run_in_executor(self._pools[place], work)
        # Whoever gave up waiting has left the thread behind: only its end makes room.
        future.add_done_callback(lambda _: self._leave(place))
        return await asyncio.shield(future)

    def close(self) -> None:
        """Begin nothing more; what is under way ends by itself."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def _leave(self, place: Place) -> None:
        self._asked[place] -= 1
