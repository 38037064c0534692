"""The lock that lets one deployer migrate at a time.

Invariant: it is a session's advisory lock, so it ends with its connection, however that ends. The
connection must reach the server itself, not through a pooler that shares sessions.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from samplemind.errors import TransientError
from samplemind.log import get_logger

# "SampleMi" in ASCII: any number does that nobody else locks in this database.
LOCK_KEY = 0x53616D706C654D69
WAIT_S = 600.0

_POLL_S = 0.2

_log = get_logger(__name__)


@asynccontextmanager
async def hold_migration_lock(
    connection: AsyncConnection, wait_s: float = WAIT_S
) -> AsyncIterator[None]:
    """Hold the lock for the block, after waiting up to `wait_s` seconds for it.

    It asks again and again instead of waiting inside PostgreSQL: a waiting statement holds a
    snapshot, and a `CREATE INDEX CONCURRENTLY` of the deployer that has the lock would wait for
    that snapshot to end: both would stand still.

    Raises:
        TransientError: another deployer held it for all of that time.
    """
    deadline = time.monotonic() + wait_s
    waited = False
    while not await _try_lock(connection):
        if not waited:
            waited = True
            _log.info("postgres.migration_waits", wait_s=wait_s)
        if time.monotonic() >= deadline:
            message = f"another deployer has been migrating for {wait_s:.0f} s"
            raise TransientError(message)
        await asyncio.sleep(random.uniform(_POLL_S / 2, _POLL_S))  # noqa: S311 - only spreads
    try:
        yield
    finally:
        # The caller's transaction may have failed, in which no statement runs any more.
        await connection.rollback()
        await connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK_KEY})
        await connection.commit()


async def _try_lock(connection: AsyncConnection) -> bool:
    locked = await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK_KEY})
    await connection.commit()
    return bool(locked)
