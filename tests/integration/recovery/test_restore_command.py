"""What `samplemind backup restore` leaves behind it."""

import asyncio

import redis

from samplemind.connections.resources import Connections
from samplemind.migrate import migrate_postgres
from samplemind.settings import Settings
from tests.integration.recovery.conftest import Databases

_KEYS = ("search:before", "report:before")


async def _cache(databases: Databases) -> None:
    async with Connections(databases.settings) as connections:
        for key in _KEYS:
            assert await connections.cached.cache.set(key, "before the restore")


async def _cached(databases: Databases) -> list[object]:
    async with Connections(databases.settings) as connections:
        return [value for key in _KEYS if (value := await connections.cached.cache.get(key))]


def test_nothing_that_was_computed_before_a_restore_is_served_after_it(
    databases: Databases, stack: Settings
) -> None:
    asyncio.run(migrate_postgres(databases.settings))
    databases.backup.create_backup()
    asyncio.run(_cache(databases))
    queue = redis.Redis.from_url(databases.settings.cache.url.get_secret_value())
    queue.lpush("index", "a message, where one Redis is cache and broker")

    assert len(asyncio.run(_cached(databases))) == len(_KEYS)
    # Workers of other tests have left their signs of life in the broker.
    how = ("--drop", "--no-safety-backup", "--yes", "--beside-workers")
    databases.command("backup", "restore", *how, broker=stack.broker)
    assert asyncio.run(_cached(databases)) == []
    assert queue.llen("index") == 1
    queue.close()
