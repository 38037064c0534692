"""A drain that is killed at any of its lines loses nothing and doubles nothing.

The default run tries every thirteenth line; `SAMPLEMIND_DRAIN_LINES=1` in the environment of pytest
tries each.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from samplemind.connections.resources import Connections
from samplemind.endpoints import Store
from samplemind.models.search_document import SearchDocument
from samplemind.search.dirty import CLAIMED_KEY, index_lag, mark_dirty
from samplemind.search.indexer import drain
from samplemind.search.reconcile import reconcile
from samplemind.settings import Settings
from tests.library import add_file, delete_file, unit_vector

STEP = int(os.environ.get("SAMPLEMIND_DRAIN_LINES", "13"))


@pytest.fixture
def kill_drain_at(migrated: Settings) -> Iterator[Callable[[int], bool]]:
    """Drains in a process that dies at the nth line; returns whether there was such a line."""
    urls = {
        f"SAMPLEMIND_{store.name}_URL": url.get_secret_value()
        for store in Store
        if (url := migrated.url(store))
    }
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("killed_drain.py"))],
        env={**os.environ, **urls, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as killed:
        assert killed.stdin is not None
        assert killed.stdout is not None
        stdin, stdout = killed.stdin, killed.stdout

        def kill(number: int) -> bool:
            stdin.write(f"{number}\n")
            stdin.flush()
            return int(stdout.readline()) == signal.SIGKILL

        yield kill
        stdin.close()


@pytest.mark.timeout(900 if STEP == 1 else 120)
async def test_a_drain_killed_at_any_line_is_made_whole_by_the_next(
    connections: Connections, kill_drain_at: Callable[[int], bool]
) -> None:
    await connections.documents()
    gone = await add_file("/pack/gone.wav", vector=unit_vector(0))
    await mark_dirty(connections.broker, [gone.id])
    await drain(connections)
    await delete_file(gone)
    number, killed = 0, True
    while killed:
        new = [
            await add_file(f"/pack/{number}-{n}.wav", vector=unit_vector(number + n))
            for n in range(2)
        ]
        await mark_dirty(connections.broker, [gone.id, *(file.id for file in new)])

        killed = await asyncio.to_thread(kill_drain_at, number)

        await _let_leases_end(connections)
        await drain(connections)
        lag = await index_lag(connections.broker)
        assert (lag.waiting, lag.claimed) == (0, 0), f"killed at line {number}"
        assert (await reconcile(connections, repair=False)).total == 0, f"killed at line {number}"
        number += STEP
    assert number > 60, "the drain was not followed through its lines"
    async with connections.postgres.session() as session:
        rows = await session.scalar(select(func.count()).select_from(SearchDocument))
    assert rows == 2 * (number // STEP)


async def _let_leases_end(connections: Connections) -> None:
    held = await connections.broker.zrange(CLAIMED_KEY, 0, -1)
    if held:
        await connections.broker.zadd(CLAIMED_KEY, dict.fromkeys(held, 1))
