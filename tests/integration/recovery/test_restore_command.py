"""What `samplemind backup restore` leaves behind it."""

import asyncio
import os
import subprocess
import sys

import redis

from samplemind.connections.resources import Connections
from samplemind.endpoints import Store
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


def _restore(databases: Databases, stack: Settings, *arguments: str) -> None:
    settings = databases.settings.model_copy(update={"broker": stack.broker})
    urls = {f"SAMPLEMIND_{store.name}_URL": settings.url(store) for store in Store}
    environment = {
        **os.environ,
        **{name: url.get_secret_value() for name, url in urls.items() if url is not None},
        "SAMPLEMIND_MONGO_DATABASE": settings.mongo.database,
        "SAMPLEMIND_STORAGE_PATH": str(databases.folder),
        "SAMPLEMIND_HOME": str(settings.home),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "samplemind", "backup", "restore", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr


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
    _restore(databases, stack, "--drop", "--no-safety-backup", "--yes", "--beside-workers")
    assert asyncio.run(_cached(databases)) == []
    assert queue.llen("index") == 1
    queue.close()
