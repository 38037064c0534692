import asyncio
import signal
from collections.abc import AsyncIterator

import pytest

from samplemind.cache.computed import ComputedCache, Policy
from samplemind.cache.redis_cache import RedisCache
from samplemind.settings import CacheSettings
from tests.asynchronous import eventually
from tests.integration.cache.conftest import OwnRedis


@pytest.fixture
async def outer(own_redis: OwnRedis) -> AsyncIterator[ComputedCache]:
    redis_cache = RedisCache(CacheSettings(url=own_redis.url))
    cache = ComputedCache(redis_cache)
    yield cache
    await cache.aclose()
    await redis_cache.aclose()


async def _compute() -> str:
    return "value"


async def test_a_killed_redis_fails_nobody_and_is_used_again_when_it_is_back(
    outer: ComputedCache, own_redis: OwnRedis
) -> None:
    stop = asyncio.Event()
    served = 0

    async def load(number: int) -> None:
        nonlocal served
        while not stop.is_set():
            assert await outer.fetch(f"k:{number}", _compute, Policy(), ("t",)) == "value"
            await outer.cache.set("a", 1)
            assert await outer.cache.get("a", 1) == 1
            served += 1
            await asyncio.sleep(0.001)

    async def closed() -> bool:
        return not outer.cache.breaker.is_open and bool(await outer.cache.redis.exists(stored))

    stored = outer.cache.keys.value("k:1")
    loads = [asyncio.create_task(load(number)) for number in range(20)]
    try:
        await asyncio.sleep(0.3)
        own_redis.kill()
        before = served

        async def served_without() -> bool:
            return served > before + 200 and outer.cache.breaker.is_open

        await eventually(served_without, seconds=20, what="callers are served without Redis")
        own_redis.start()
        await eventually(closed, seconds=20, what="values are cached again")
    finally:
        stop.set()
        await asyncio.gather(*loads)
    assert outer.cache.counts.total["redis_down"] > 0


async def test_while_redis_is_frozen_only_the_first_wait(
    outer: ComputedCache, own_redis: OwnRedis
) -> None:
    await outer.cache.set("a", 1)
    own_redis.signal(signal.SIGSTOP)
    try:
        assert await outer.cache.get("b", "down") == "down"
        failed, skipped = (outer.cache.counts.total[name] for name in ("errors", "redis_down"))
        for _ in range(200):
            assert await outer.fetch("k", _compute, Policy()) == "value"
        assert outer.cache.counts.total["errors"] == failed  # nobody asked, so nobody waited
        assert outer.cache.counts.total["redis_down"] >= skipped + 200
    finally:
        own_redis.signal(signal.SIGCONT)

    async def back() -> bool:
        return await outer.cache.get("a") == 1

    await eventually(back, seconds=10, what="Redis is used again")


async def test_an_invalidation_that_redis_did_not_take_is_told(
    outer: ComputedCache, own_redis: OwnRedis
) -> None:
    assert await outer.invalidate("t")
    own_redis.kill()
    assert not await outer.invalidate("t")
