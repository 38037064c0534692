import asyncio
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from samplemind.cache.computed import ComputedCache
from samplemind.cache.redis_cache import HOUR, RedisCache, jittered_ms
from samplemind.cache.serialization import Form, dumps
from samplemind.errors import InvalidInputError
from samplemind.settings import Settings


async def test_values_are_set_read_and_deleted(cache: ComputedCache) -> None:
    redis = cache.cache
    assert await redis.get("a:1", "none") == "none"
    assert await redis.set("a:1", {"x": [1, None]})
    assert await redis.get("a:1") == {"x": [1, None]}
    assert await redis.delete("a:1", "a:2") == 1
    assert await redis.get("a:1") is None


async def test_many_are_set_and_read_in_one_round_trip(cache: ComputedCache) -> None:
    redis = cache.cache
    values = {f"m:{number}": [number] for number in range(100)}
    assert await redis.set_many(values, timedelta(minutes=5))
    await redis.redis.config_resetstat()
    assert await redis.get_many([*values, "m:missing"]) == values
    commands = await redis.redis.info("commandstats")
    assert commands["cmdstat_mget"]["calls"] == 1
    assert "cmdstat_get" not in commands


async def test_counting_is_atomic_and_keeps_the_ttl(cache: ComputedCache) -> None:
    redis = cache.cache
    await asyncio.gather(*(redis.increment("n", ttl=timedelta(seconds=60)) for _ in range(200)))
    ttl = await redis.redis.pttl(redis.keys.value("n"))
    assert 0 < ttl <= 60_000
    assert await redis.decrement("n", 50, HOUR) == 150
    assert await redis.redis.pttl(redis.keys.value("n")) <= ttl
    assert await redis.get("n") == 150
    await redis.set("text", "x")
    with pytest.raises(InvalidInputError, match="whole number"):
        await redis.increment("text")


async def test_a_pattern_deletes_what_it_matches_and_nothing_else(cache: ComputedCache) -> None:
    redis = cache.cache
    await redis.set_many({f"search:{n}": n for n in range(1200)} | {"other:1": 1})
    await cache.invalidate("search")
    assert await redis.count_pattern("search:*") == 1200
    assert await redis.delete_pattern("search:*") == 1200
    assert await redis.get("other:1") == 1
    assert await redis.redis.exists(redis.keys.tag("search"))


async def test_no_command_keeps_the_server_busy_with_all_keys(cache: ComputedCache) -> None:
    redis = cache.cache
    await redis.redis.config_resetstat()
    await redis.set_many({f"search:{n}": n for n in range(1200)})
    await redis.delete_pattern("*")
    await redis.get_stats()
    ran = await redis.redis.info("commandstats")
    assert "cmdstat_keys" not in ran
    assert "cmdstat_del" not in ran
    assert ran["cmdstat_scan"]["calls"] > 1
    assert ran["cmdstat_unlink"]["calls"] > 1


async def test_any_number_of_callers_keep_to_the_connections_that_are_allowed(
    stack: Settings, cache: ComputedCache
) -> None:
    async def connected() -> set[str]:
        clients = await cache.cache.redis.client_list()
        return {each["id"] for each in clients if each["name"] == "samplemind-cache"}

    before = await connected()
    crowded = RedisCache(stack.cache.model_copy(update={"max_connections": 5}))
    await crowded.get("a")  # the local layer begins to listen
    calls = [crowded.increment("n") for _ in range(200)] + [crowded.get("a") for _ in range(200)]
    await asyncio.gather(*calls)
    assert await crowded.get("n") == 200
    assert 2 <= len(await connected() - before) <= 5
    await crowded.aclose()


PICKLE = dumps("x", Form.PICKLE, signing_key=b"k")


@pytest.mark.parametrize("poison", [b"", b"\x00", b"rubbish", dumps({"a": 1})[:-1], PICKLE])
async def test_poisoned_values_are_a_miss(cache: ComputedCache, poison: bytes) -> None:
    redis = cache.cache
    await redis.redis.set(redis.keys.value("p"), poison)
    with capture_logs() as logs:
        assert await redis.get("p", "miss") == "miss"
        assert await redis.get_many(["p"]) == {}
    assert [(each["event"], each["key"]) for each in logs] == [("cache.unreadable_value", "p")] * 2
    assert redis.counts.total["unreadable"] == 2
    assert await redis.set("p", "well")
    assert await redis.get("p") == "well"


async def test_a_key_of_another_type_is_a_miss(cache: ComputedCache) -> None:
    await cache.cache.redis.lpush(cache.cache.keys.value("p"), "x")
    assert await cache.cache.get("p", "miss") == "miss"
    assert not cache.cache.breaker.is_open


async def test_two_versions_live_side_by_side(cache: ComputedCache, stack: Settings) -> None:
    newer = RedisCache(stack.cache, version=2, with_local_layer=False)
    await cache.cache.set("a", "old")
    assert await newer.get("a") is None
    await newer.set("a", "new")
    assert (await cache.cache.get("a"), await newer.get("a")) == ("old", "new")
    assert await newer.delete_pattern("*") == 1
    assert await cache.cache.get("a") == "old"
    await newer.aclose()


async def test_stats_add_up_over_processes(cache: ComputedCache, stack: Settings) -> None:
    other = RedisCache(stack.cache, with_local_layer=False)
    await other.set("s:1", 1)
    await other.get("s:1")
    await other.aclose()
    await cache.cache.get("s:missing")
    stats = await cache.cache.get_stats()
    assert (stats.hits, stats.misses, stats.hit_rate) == (1, 1, 0.5)
    assert stats.keys == {"s": 1}
    assert stats.available
    assert stats.memory_bytes
    assert stats.p99_ms


async def test_keys_made_together_do_not_die_together() -> None:
    lives = {jittered_ms(HOUR) for _ in range(100)}
    assert len(lives) > 50
    assert all(3_240_000 <= life <= 3_600_000 for life in lives)


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1), timedelta(days=31)])
async def test_a_ttl_that_nobody_means_is_refused(cache: ComputedCache, ttl: timedelta) -> None:
    with pytest.raises(InvalidInputError, match="TTL"):
        await cache.cache.set("a", 1, ttl)
