"""A store that hangs holds its own threads, and nobody else's."""

import asyncio
from threading import Event

import pytest

from samplemind.errors import StoreUnavailableError
from worker.console.threads import MOST_WAITING, WIDTH, Place, Threads


async def test_a_store_that_hangs_holds_up_neither_another_nor_the_loops_own_threads() -> None:
    threads, answers = Threads(), Event()
    hanging = [
        asyncio.create_task(threads.run(Place.STORAGE, answers.wait))
        for _ in range(WIDTH + MOST_WAITING)
    ]
    try:
        assert await threads.run(Place.BROKER, lambda: 7) == 7
        assert await asyncio.to_thread(lambda: 8) == 8
        assert not any(each.done() for each in hanging)
        with pytest.raises(StoreUnavailableError, match="the storage of backups"):
            await threads.run(Place.STORAGE, lambda: 9)
        # Giving up does not make room: the thread still hangs.
        hanging[0].cancel()
        with pytest.raises(StoreUnavailableError):
            await threads.run(Place.STORAGE, lambda: 9)
    finally:
        answers.set()
    assert all(await asyncio.gather(*hanging[1:]))
    assert await threads.run(Place.STORAGE, lambda: 10) == 10
    threads.close()
