"""Whether the stores answer, how much they hold, and what the cache has done."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from samplemind.cache import counts
from samplemind.connections.redis import translating_errors
from samplemind.connections.resources import Connections
from samplemind.embedded.probes import ask
from samplemind.endpoints import Store
from samplemind.errors import StoreUnavailableError
from samplemind.maintenance.server_figures import server_figures
from worker.metrics import catalogue
from worker.metrics.page import Page


async def read_answers(connections: Connections, page: Page) -> None:
    """Ask every store for a sign of life, each on a connection of its own."""
    answers = await asyncio.gather(
        *(asyncio.to_thread(_ask, connections, store) for store in Store)
    )
    for store, seconds in zip(Store, answers, strict=True):
        page.put(catalogue.STORE_UP, store.value, to=seconds is not None)
        if seconds is not None:
            page.put(catalogue.STORE_ANSWER, store.value, to=seconds)


async def read_postgres(connections: Connections, page: Page) -> None:
    """Read sessions and size."""
    async with connections.postgres.session() as session:
        found = await server_figures(session)
    for state, sessions in sorted(found.sessions.items()):
        page.put(catalogue.POSTGRES_CONNECTIONS, state, to=sessions)
    page.put(catalogue.POSTGRES_CONNECTIONS_LIMIT, to=found.limit)
    page.put(catalogue.POSTGRES_SIZE, to=found.size_bytes)
    page.put(catalogue.POSTGRES_LONGEST, to=found.longest_transaction_s)


async def read_broker(connections: Connections, page: Page) -> None:
    """Read the broker's memory."""
    _put_memory(page, Store.BROKER, await _info(connections.broker))


async def read_cache(connections: Connections, page: Page) -> None:
    """Read the cache's memory, and what all processes have counted of it."""
    _put_memory(page, Store.CACHE, await _info(connections.cache))
    with translating_errors():
        counted = await connections.cache.hgetall(connections.cached.cache.keys.of("stats"))
    numbers = {_text(name): int(number) for name, number in counted.items()}
    for event in counts.EVENTS:
        page.put(catalogue.CACHE_EVENTS, event, to=numbers.get(event, 0))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _ask(connections: Connections, store: Store) -> float | None:
    url = connections.settings.url(store)
    if url is None:
        return None
    started = time.perf_counter()
    try:
        answer = ask(store, url)
    except StoreUnavailableError:
        return None
    return time.perf_counter() - started if answer.writable else None


async def _info(client: Redis) -> Mapping[str, Any]:
    with translating_errors():
        found: Mapping[str, Any] = await client.info()
    return found


def _put_memory(page: Page, store: Store, info: Mapping[str, Any]) -> None:
    for metric, field in (
        (catalogue.REDIS_MEMORY, "used_memory"),
        (catalogue.REDIS_MEMORY_LIMIT, "maxmemory"),
        (catalogue.REDIS_EVICTED, "evicted_keys"),
        (catalogue.REDIS_CLIENTS, "connected_clients"),
    ):
        page.put(metric, store.value, to=float(info.get(field, 0)))
