import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from samplemind.cache.computed import ComputedCache, Policy
from samplemind.cache.local import LocalLayer
from samplemind.cache.redis_cache import HOUR, RedisCache
from samplemind.settings import CacheSettings, Settings
from tests.asynchronous import eventually
from tests.integration.cache.conftest import OwnRedis


@pytest.fixture
async def near(cache: ComputedCache, stack: Settings) -> AsyncIterator[RedisCache]:
    """Another process's cache, with a local layer that listens."""
    redis_cache = RedisCache(stack.cache)
    await _listening(redis_cache)
    yield redis_cache
    await redis_cache.aclose()


async def _listening(redis_cache: RedisCache) -> None:
    async def trusted() -> bool:
        await redis_cache.get("none")
        return redis_cache.local.is_trusted

    await eventually(trusted, seconds=10, what="news arrive")


async def _held(redis_cache: RedisCache, key: str) -> None:
    async def held() -> bool:
        await redis_cache.get(key)
        return redis_cache.local.get(redis_cache.keys.value(key)) is not None

    await eventually(held, seconds=5, what="the value is kept here")


async def test_a_hot_key_asks_redis_once(cache: ComputedCache, near: RedisCache) -> None:
    await cache.cache.set("a", [1])
    await _held(near, "a")
    before = near.counts.total["local_hits"]
    first = await near.get("a")
    first.append(2)
    assert await near.get("a") == [1]  # nobody changes what another gets
    assert near.counts.total["local_hits"] == before + 2


@pytest.mark.parametrize("change", ["set", "delete", "pattern", "expire", "flush"])
async def test_a_change_elsewhere_shows_within_a_second(
    cache: ComputedCache, near: RedisCache, change: str
) -> None:
    far = cache.cache
    await far.set("a", "old", timedelta(milliseconds=300) if change == "expire" else HOUR)
    await _held(near, "a")
    if change == "set":
        await far.set("a", "new")
    elif change == "delete":
        await far.delete("a")
    elif change == "pattern":
        await far.delete_pattern("a*")
    elif change == "flush":
        await far.redis.flushdb()

    async def changed() -> bool:
        return await near.get("a") != "old"

    await eventually(changed, seconds=1.0, what="the change shows")


async def test_an_invalidated_tag_empties_the_local_layer_of_its_values(
    cache: ComputedCache, near: RedisCache
) -> None:
    values = iter(["old", "new"])

    async def compute() -> str:
        return next(values)

    computed = ComputedCache(near)

    async def held() -> bool:
        assert await computed.fetch("k", compute, Policy(), ("t",)) == "old"
        return near.local.get(near.keys.value("k")) is not None

    await eventually(held, seconds=5, what="the value is kept here")
    await cache.invalidate("t")

    async def changed() -> bool:
        return near.local.get(near.keys.value("k")) is None

    await eventually(changed, seconds=1.0, what="it is dropped")
    assert await computed.fetch("k", compute, Policy(), ("t",)) == "new"
    await computed.aclose()


async def test_a_lost_connection_empties_the_layer(own_redis: OwnRedis) -> None:
    near = RedisCache(CacheSettings(url=own_redis.url))
    await _listening(near)
    await near.set("a", 1)
    await _held(near, "a")
    own_redis.kill()

    async def empty() -> bool:
        return not len(near.local) and not near.local.is_trusted

    await eventually(empty, seconds=1.0, what="the layer is empty")
    own_redis.start()
    await near.aclose()


def test_a_value_read_before_its_news_is_not_kept() -> None:
    layer = LocalLayer("n:", 10)
    layer._heard_at = time.monotonic()
    mark = layer.mark()
    layer.forget(["n:a"])
    layer.keep("n:a", b"old", mark, ttl_s=9)
    layer.keep("n:b", b"old", mark, ttl_s=9, tags=["n:a"])
    layer.keep("n:c", b"kept", mark, ttl_s=9)
    assert [layer.get(name) for name in ("n:a", "n:b", "n:c")] == [None, None, b"kept"]
    layer.flush()
    layer.keep("n:c", b"old", mark, ttl_s=9)
    assert layer.get("n:c") is None


def test_the_layer_is_bounded_and_drops_what_was_used_longest_ago() -> None:
    layer = LocalLayer("n:", 3)
    layer._heard_at = time.monotonic()
    for name in "abc":
        layer.keep(name, b"", layer.mark(), ttl_s=9)
    layer.get("a")
    layer.keep("d", b"", layer.mark(), ttl_s=9)
    assert [name for name in "abcd" if layer.get(name) is not None] == ["a", "c", "d"]


def test_who_waits_for_a_key_is_told_of_it_and_of_a_lost_connection() -> None:
    layer = LocalLayer("n:", 2)
    with layer.watching(["a", "b"]) as first, layer.watching(["b"]) as second:
        layer.forget(["a"])
        assert (first.is_set(), second.is_set()) == (True, False)
        layer.flush()
        assert second.is_set()
    with layer.watching(["a"]) as later:
        layer.forget(["b"])
        assert not later.is_set()


def test_a_layer_that_hears_nothing_serves_nothing() -> None:
    layer = LocalLayer("n:", 3)
    layer._heard_at = time.monotonic()
    layer.keep("a", b"1", layer.mark(), ttl_s=9)
    layer._heard_at -= 1
    assert layer.get("a") is None


async def test_who_writes_reads_it_at_once_though_news_are_late(near: RedisCache) -> None:
    for number in range(100):
        await near.set("own", number)
        assert await near.get("own") == number
        assert await near.increment("own") == number + 1
        assert await near.get("own") == number + 1


async def test_a_value_is_kept_here_no_longer_than_it_has_left(
    cache: ComputedCache, near: RedisCache
) -> None:
    kept: dict[str, float] = {}
    keep = near.local.keep

    def watch(stored: str, data: bytes, mark: int, *, ttl_s: float) -> None:
        kept[stored] = ttl_s
        keep(stored, data, mark, ttl_s=ttl_s)

    near.local.keep = watch  # type: ignore[method-assign,assignment]
    await cache.cache.set("short", [1], timedelta(seconds=20))
    await _held(near, "short")
    assert 0 < kept[near.keys.value("short")] <= 20
