"""Latencies, hit rates and decisions; each peer is measured on the same Valkey, turn about."""

import asyncio
import gc
import socket
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiocache
import limits.aio
import numpy as np
from cashews import Cache
from limits import RateLimitItemPerHour
from pydantic import SecretStr

from benchmarks.row import Row, row
from samplemind.cache.cached import cached
from samplemind.cache.computed import ComputedCache, Policy
from samplemind.cache.connection import connect_cache
from samplemind.cache.popularity import Popularity
from samplemind.cache.rate_limit import Limit, RateLimitCache
from samplemind.cache.redis_cache import RedisCache
from samplemind.embedded.stack import EmbeddedStack
from samplemind.endpoints import Store
from samplemind.settings import CacheSettings

VALUE = {"id": 7, "title": "dark kick", "tags": ["dark", "kick"], "score": 0.71}
OVERHEAD_GOAL = 1.3
MANY_GOAL = 1.5
QUERIES, DISTINCT, CALLERS = 100_000, 20_000, 16
# Nothing that could be compressed.
ZIPF_VALUE = np.random.default_rng(1).bytes(900)

FIGURES = ("get", "set", "decorated hit")

Call = Callable[[], Awaitable[Any]]


def rows(*, quick: bool) -> list[Row]:
    """Measure everything; `quick` with a tenth of the calls."""
    with tempfile.TemporaryDirectory(prefix="samplemind-bench-") as name:
        home = Path(name)
        home.chmod(0o711)
        with EmbeddedStack(home, durable=False) as stack:
            urls = stack.start()
            settings = CacheSettings(url=urls[Store.CACHE])
            counting = CacheSettings(url=urls[Store.BROKER])
            calls = 300 if quick else 3000
            return asyncio.run(_rows(settings, counting, calls=calls, quick=quick))


async def _rows(
    settings: CacheSettings, apart: CacheSettings, *, calls: int, quick: bool
) -> list[Row]:
    cache = RedisCache(settings, with_local_layer=False)
    # What counts popularity must not take the room that is measured.
    counting = RedisCache(apart, with_local_layer=False)
    found = [
        *await _beside_redis(cache, settings, calls),
        *await _beside_peers(cache, settings, calls),
        *await _local(settings, calls),
        *await _down(calls),
        *await _limits(cache, settings, calls),
        *await _zipf(cache, counting, QUERIES // 10 if quick else QUERIES),
    ]
    await cache.aclose()
    await counting.aclose()
    return found


async def _beside_redis(cache: RedisCache, settings: CacheSettings, calls: int) -> list[Row]:
    # Bare, but with the timeouts that any caller needs.
    bare = connect_cache(settings)
    data = b"x" * 100
    keys = [f"m:{number}" for number in range(100)]
    await cache.set_many(dict.fromkeys(keys, VALUE))
    await cache.set("a", VALUE)
    stored = [cache.keys.value(key) for key in keys]
    times = await _in_turn(
        {
            "get": lambda: cache.get("a"),
            "bare get": lambda: bare.get(cache.keys.value("a")),
            "set": lambda: cache.set("a", VALUE),
            "bare set": lambda: bare.set("bare", data, px=3_600_000),
            "get_many": lambda: cache.get_many(keys),
            "bare mget": lambda: bare.mget(stored),
        },
        calls,
    )
    alone = await _in_turn(
        {"get": lambda: cache.get("a"), "bare get": lambda: bare.get(stored[0])}, 3 * calls
    )
    await bare.aclose()
    found = []
    for name, peer, goal in (
        ("get", "bare get", OVERHEAD_GOAL),
        ("set", "bare set", OVERHEAD_GOAL),
        ("get_many", "bare mget", MANY_GOAL),
    ):
        ours, theirs = statistics.median(times[name]), statistics.median(times[peer])
        found.append(
            row(
                f"cache {name}, median",
                ours * 1e6,
                "µs",
                peer=(f"redis-py {peer}", theirs * 1e6),
                ratio=theirs / ours,
                goal=f"<= {goal} x redis-py",
                met=ours <= goal * theirs,
            )
        )
    p99_ms, bare_ms = (float(np.percentile(alone[name], 99)) * 1000 for name in alone)
    return [
        *found,
        row("cache get, p99", p99_ms, "ms", peer=("redis-py bare get", bare_ms),
            ratio=bare_ms / p99_ms, goal="< 1", met=p99_ms < 1),
    ]  # fmt: skip


async def _beside_peers(cache: RedisCache, settings: CacheSettings, calls: int) -> list[Row]:
    assert settings.url is not None
    url = settings.url.get_secret_value()
    cashews = Cache()
    cashews.setup(url)
    await cashews.init()
    address, _, rest = url.removeprefix("redis://:").partition("@")
    host, _, port = rest.partition(":")
    where: dict[str, Any] = {
        "endpoint": host,
        "port": int(port.split("/")[0]),
        "password": address,
        "serializer": aiocache.serializers.JsonSerializer(),
    }
    other = aiocache.RedisCache(**where)
    computed = ComputedCache(cache)
    near = RedisCache(settings)
    computed_near = ComputedCache(near)

    async def compute() -> dict[str, Any]:
        return VALUE

    @cached(key_prefix="bench", lookup=lambda: computed)
    async def ours(number: int) -> dict[str, Any]:
        return VALUE

    @cashews(ttl="1h")
    async def theirs(number: int) -> dict[str, Any]:
        return VALUE

    # Without a cache that is named, it keeps values in the process's memory and asks no Redis.
    @aiocache.cached(ttl=3600, cache=aiocache.Cache.REDIS, **where)
    async def third(number: int) -> dict[str, Any]:
        return VALUE

    @cached(key_prefix="bench.near", lookup=lambda: computed_near)
    async def ours_near(number: int) -> dict[str, Any]:
        return VALUE

    @aiocache.cached(ttl=3600, serializer=aiocache.serializers.JsonSerializer())
    async def third_near(number: int) -> dict[str, Any]:
        return VALUE

    await _listening(near, lambda: ours_near(1))
    await cache.set("a", VALUE)
    await cashews.set("a", VALUE)
    await other.set("a", VALUE)
    times = await _in_turn(
        {
            "get": lambda: cache.get("a"),
            "get cashews": lambda: cashews.get("a"),
            "get aiocache": lambda: other.get("a"),
            "set": lambda: cache.set("a", VALUE),
            "set cashews": lambda: cashews.set("a", VALUE, expire=3600),
            "set aiocache": lambda: other.set("a", VALUE, ttl=3600),
            "decorated hit": lambda: ours(1),
            "decorated hit cashews": lambda: theirs(1),
            "decorated hit aiocache": lambda: third(1),
            "decorated hit in the process": lambda: ours_near(1),
            "decorated hit in the process aiocache": lambda: third_near(1),
        },
        calls,
    )
    found = []
    pairs = [(name, peer) for name in FIGURES for peer in ("cashews", "aiocache")]
    for name, peer in (*pairs, ("decorated hit in the process", "aiocache")):
        mine = statistics.median(times[name])
        its = statistics.median(times[f"{name} {peer}"])
        found.append(
            row(
                f"cache {name}",
                mine * 1e6,
                "µs",
                peer=(peer, its * 1e6),
                ratio=its / mine,
                goal="ahead",
                met=mine < its,
            )
        )
    found += await _stampede(computed, cashews)
    await near.aclose()
    await cashews.close()
    await other.close()
    return found


async def _stampede(computed: ComputedCache, cashews: Cache) -> list[Row]:
    """Time until 1,000 concurrent misses of a computation of 50 ms have their value."""
    runs = {"ours": 0, "cashews": 0}

    async def compute() -> dict[str, Any]:
        runs["ours"] += 1
        await asyncio.sleep(0.05)
        return VALUE

    @cashews(ttl="1h", lock=True)
    async def theirs(number: int) -> dict[str, Any]:
        runs["cashews"] += 1
        await asyncio.sleep(0.05)
        return VALUE

    started = time.perf_counter()
    await asyncio.gather(*(computed.fetch("stampede", compute, Policy()) for _ in range(1000)))
    mine = time.perf_counter() - started
    started = time.perf_counter()
    await asyncio.gather(*(theirs(2) for _ in range(1000)))
    its = time.perf_counter() - started
    name = f"stampede of 1,000, {runs['ours']} computation(s)"
    peer = (f"cashews (lock), {runs['cashews']} computation(s)", its * 1000)
    met = mine < its and runs["ours"] == 1
    return [row(name, mine * 1000, "ms", peer=peer, ratio=its / mine, goal="ahead, 1", met=met)]


async def _listening(cache: RedisCache, call: Call) -> None:
    deadline = time.monotonic() + 10
    while not len(cache.local):
        assert time.monotonic() < deadline, "the local layer does not listen"
        await call()
        await asyncio.sleep(0.01)


async def _local(settings: CacheSettings, calls: int) -> list[Row]:
    near, far = RedisCache(settings), RedisCache(settings, with_local_layer=False)
    await far.set("hot", 7)
    await _listening(near, lambda: near.get("hot"))
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        await near.get("hot")
        times.append(time.perf_counter() - started)
    hit_us = statistics.median(times) * 1e6
    lags = []
    for number in range(50):
        await near.get("hot")
        await far.set("hot", number)
        started = time.perf_counter()
        while await near.get("hot") != number:  # noqa: ASYNC110 - the wait is measured
            await asyncio.sleep(0)
        lags.append(time.perf_counter() - started)
    await near.aclose()
    await far.aclose()
    worst_ms = max(lags) * 1000
    return [
        row("local hit, median", hit_us, "µs", goal="< 5", met=hit_us < 5),
        row("local layer stale after a write, worst of 50", worst_ms, "ms", goal="< 1000",
            met=worst_ms < 1000),
    ]  # fmt: skip


async def _down(calls: int) -> list[Row]:
    """Call a cached function while nobody listens where Redis should be."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        nobody = SecretStr(f"redis://127.0.0.1:{bound.getsockname()[1]}/0")
    cache = RedisCache(CacheSettings(url=nobody))
    computed = ComputedCache(cache)

    async def compute() -> int:
        return 1

    times = []
    for _ in range(calls):
        started = time.perf_counter()
        await computed.fetch("k", compute, Policy())
        times.append(time.perf_counter() - started)
    await computed.aclose()
    await cache.aclose()
    p99_ms = float(np.percentile(times, 99)) * 1000
    return [row("latency added while Redis is down, p99", p99_ms, "ms", goal="< 5", met=p99_ms < 5)]


async def _limits(cache: RedisCache, settings: CacheSettings, calls: int) -> list[Row]:
    assert settings.url is not None
    ours = RateLimitCache(cache)
    storage = limits.aio.storage.RedisStorage(
        f"async+{settings.url.get_secret_value()}", implementation="redispy"
    )
    theirs = limits.aio.strategies.MovingWindowRateLimiter(storage)
    limit, item = Limit(1_000_000, timedelta(hours=1)), RateLimitItemPerHour(1_000_000)
    times = await _in_turn(
        {"ours": lambda: ours.hit("a", limit), "limits": lambda: theirs.hit(item, "a")}, calls
    )
    mine, its = (1 / statistics.median(times[name]) for name in ("ours", "limits"))
    return [
        row("rate limit decisions, one caller", mine, "1/s", peer=("limits", its),
            ratio=mine / its, goal="ahead", met=mine > its)
    ]  # fmt: skip


async def _zipf(cache: RedisCache, counting: RedisCache, queries: int) -> list[Row]:
    """Ask a Valkey that has room for few values, under its own eviction, on a Zipf workload.

    The goal of 90 % is beyond any cache with room for a tenth of the distinct queries: the 2,000
    most popular are 78 % of all that is asked, and of those each is missed once at first. Only with
    room for a tenth of the queries that are made, half of the distinct ones, is it in reach, and
    there only once popularity is known.
    """
    weights = 1 / np.arange(1, DISTINCT + 1)
    weights /= weights.sum()
    days = [
        np.random.default_rng(seed).choice(DISTINCT, queries, p=weights).tolist() for seed in (7, 8)
    ]
    found = []
    for room in (DISTINCT // 10, DISTINCT // 2):
        best = 100 * float(weights[:room].sum())
        first, seen = 0, set[int]()
        for each in days[0]:
            first += each < room and each in seen
            seen.add(each)
        popularity = Popularity(counting, f"bench.{room}")
        await _make_room(cache, room)
        unused = Popularity(counting, f"bench.{room}.unused")
        cold = await _ask_a_day(cache, days[0], unused, warming=None)
        await cache.delete_pattern("zipf:*")
        warm = await _ask_a_day(cache, days[0], popularity, warming=room // 2)
        await cache.delete_pattern("zipf:*")
        later = await _ask_a_day(cache, days[1], popularity, warming=room // 2)
        bound = ("best possible, popularity known", best)
        name = f"hit rate, Zipf 1.0, room for {room:,} of {DISTINCT:,}"
        cold_bound = ("best possible, each missed once", 100 * first / queries)
        goal: dict[str, Any] = {"goal": ">= 90"}
        found += [
            row(f"{name}, without warming", cold, "%", peer=cold_bound, ratio=cold / cold_bound[1]),
            row(f"{name}, with warming", warm, "%", peer=cold_bound, ratio=warm / cold_bound[1],
                met=warm >= 90, **goal),
            row(f"{name}, the day after", later, "%", peer=bound, ratio=later / best,
                met=later >= 90, **goal),
        ]  # fmt: skip
    await cache.redis.config_set("maxmemory", 0)
    return found


async def _make_room(cache: RedisCache, values: int) -> None:
    """Set the server's limit to what it uses with so many values, and empty it."""
    await cache.redis.flushall()
    await cache.redis.config_set("maxmemory", 0)
    for start in range(0, values, 500):
        await cache.set_many({_zipf_key(each): ZIPF_VALUE for each in range(start, start + 500)})
    used = (await cache.redis.info("memory"))["used_memory"]
    await cache.delete_pattern("zipf:*")
    await cache.redis.config_set("maxmemory", used)


async def _ask_a_day(
    cache: RedisCache, asked: list[int], popularity: Popularity, *, warming: int | None
) -> float:
    """Ask in groups of callers at once; return the share of hits in percent.

    Args:
        warming: values that are kept warm: made at the start, as far as popularity is known, and
            looked after every 2,000 queries. The rest of the room is for what was not foreseen.
    """
    hits = 0

    async def ask(query: int) -> None:
        nonlocal hits
        popularity.count(b"%d" % query)
        if await cache.get(_zipf_key(query)) is not None:
            hits += 1
        else:
            await cache.set(_zipf_key(query), ZIPF_VALUE)

    for start in range(0, len(asked), CALLERS):
        if warming is not None and start % 2000 < CALLERS:
            await popularity.flush()
            top = [_zipf_key(int(each)) for each in await popularity.top(warming)]
            there = await cache.get_many(top)
            # The most popular last, so that they are the last to go.
            await cache.set_many({each: ZIPF_VALUE for each in top[::-1] if each not in there})
        await asyncio.gather(*map(ask, asked[start : start + CALLERS]))
    return 100 * hits / len(asked)


def _zipf_key(query: int) -> str:
    return f"zipf:{query:06d}"


async def _in_turn(calls: dict[str, Call], times: int) -> dict[str, list[float]]:
    """Time each call `times` times, turn about, so that noise meets all alike."""
    for call in calls.values():
        for _ in range(20):
            await call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    gc.disable()
    try:
        for _ in range(times):
            for name, call in calls.items():
                started = time.perf_counter()
                await call()
                taken[name].append(time.perf_counter() - started)
    finally:
        gc.enable()
    return taken
