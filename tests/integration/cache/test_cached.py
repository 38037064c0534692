import asyncio
import functools
import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from samplemind.cache.cached import cached, use_cache
from samplemind.cache.computed import ComputedCache, Policy, bypass
from samplemind.cache.redis_cache import HOUR, RedisCache
from samplemind.cache.serialization import dumps
from samplemind.errors import InvalidInputError
from samplemind.settings import Settings
from tests.asynchronous import eventually

POLICY = Policy()


class Counted:
    """A computation that counts how often it ran."""

    def __init__(self, value: Any = "value", *, wait: asyncio.Event | None = None) -> None:
        self.value, self.calls, self._wait = value, 0, wait
        self.begun = asyncio.Event()

    async def __call__(self) -> Any:
        self.calls += 1
        self.begun.set()
        if self._wait is not None:
            await self._wait.wait()
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


async def test_a_second_call_is_not_computed(cache: ComputedCache) -> None:
    use_cache(cache)
    calls = []

    @cached(ttl=HOUR, key_prefix="add")
    async def add(first: int, second: int = 2) -> int:
        calls.append((first, second))
        return first + second

    assert [await add(1), await add(1, 2), await add(second=2, first=1)] == [3, 3, 3]
    assert await add(2) == 4
    assert calls == [(1, 2), (2, 2)]
    with bypass():
        assert await add(1) == 3
    assert len(calls) == 3


def test_plain_functions_share_one_computation_between_threads(stack: Settings) -> None:
    calls = []

    @functools.cache
    def own() -> ComputedCache:
        return ComputedCache(RedisCache(stack.cache, with_local_layer=False))

    @cached(key_prefix="plain", lookup=own)
    def slow(name: str) -> str:
        calls.append(name)
        time.sleep(0.1)  # long enough for the other threads to come
        return name.upper()

    name = f"kick {time.time_ns()}"
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(slow(name))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [name.upper()] * 8
    assert calls == [name]


async def test_an_exception_is_never_cached_and_reaches_all_who_wait(cache: ComputedCache) -> None:
    gate = asyncio.Event()
    failing = Counted(ValueError("no"), wait=gate)
    waiting = [asyncio.create_task(cache.fetch("k", failing, POLICY)) for _ in range(5)]

    async def all_wait() -> bool:
        return cache.cache.counts.total["misses"] == 5

    await eventually(all_wait, seconds=5, what="all five wait")
    gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, ValueError) for each in found)
    assert failing.calls == 1
    assert await cache.fetch("k", Counted("fine"), POLICY) == "fine"


async def test_an_invalidated_tag_makes_its_values_invalid(cache: ComputedCache) -> None:
    first, second = Counted(1), Counted(2)
    await cache.fetch("k", first, POLICY, ("a", "b"))
    await cache.fetch("k", first, POLICY, ("a", "b"))
    await cache.invalidate("b")
    assert await cache.fetch("k", second, POLICY, ("a", "b")) == 2
    assert (first.calls, second.calls) == (1, 1)


async def test_who_asks_after_an_invalidation_does_not_get_what_was_begun_before_it(
    cache: ComputedCache,
) -> None:
    gate = asyncio.Event()
    old, new = Counted("old", wait=gate), Counted("new")

    async def ask(times: int, compute: Counted, *, misses: int) -> "list[asyncio.Task[Any]]":
        asking = [
            asyncio.create_task(cache.fetch("k", compute, POLICY, ("t",))) for _ in range(times)
        ]

        async def all_missed() -> bool:
            return cache.cache.counts.total["misses"] == misses

        await eventually(all_missed, seconds=5, what="all have missed")
        return asking

    before = await ask(1, old, misses=1)
    await old.begun.wait()
    before += await ask(2, new, misses=3)
    elsewhere = RedisCache(cache.cache.settings, with_local_layer=False)
    assert await ComputedCache(elsewhere).invalidate("t")
    after = await ask(3, new, misses=6)
    gate.set()
    assert await asyncio.gather(*before) == ["old"] * 3
    assert await asyncio.gather(*after) == ["new"] * 3
    assert (old.calls, new.calls) == (1, 1)
    await elsewhere.aclose()


async def test_what_was_computed_before_an_invalidation_is_never_served(
    cache: ComputedCache,
) -> None:
    gate = asyncio.Event()
    old = Counted("old", wait=gate)
    computing = asyncio.create_task(cache.fetch("k", old, POLICY, ("t",)))
    await old.begun.wait()
    await cache.invalidate("t")
    gate.set()
    assert await computing == "old"
    assert await cache.fetch("k", Counted("new"), POLICY, ("t",)) == "new"


async def test_a_value_deleted_while_computed_is_not_stored(cache: ComputedCache) -> None:
    gate = asyncio.Event()
    old = Counted("old", wait=gate)
    computing = asyncio.create_task(cache.fetch("k", old, POLICY))
    await old.begun.wait()
    await cache.cache.delete("k")
    gate.set()
    await computing
    assert await cache.fetch("k", Counted("new"), POLICY) == "new"


async def test_an_evicted_tag_makes_its_values_invalid(cache: ComputedCache) -> None:
    await cache.fetch("k", Counted("old"), POLICY, ("t",))
    await cache.cache.redis.delete(cache.cache.keys.tag("t"))
    assert await cache.fetch("k", Counted("new"), POLICY, ("t",)) == "new"


async def test_a_stale_value_is_served_while_it_is_made_anew(cache: ComputedCache) -> None:
    policy = Policy(ttl=timedelta(milliseconds=20), stale=HOUR)
    await cache.fetch("k", Counted("old"), policy)
    await asyncio.sleep(0.03)  # its time to live
    gate = asyncio.Event()
    new = Counted("new", wait=gate)
    assert [await cache.fetch("k", new, policy) for _ in range(5)] == ["old"] * 5
    gate.set()

    async def renewed() -> bool:
        return await cache.fetch("k", new, policy) == "new"

    await eventually(renewed, seconds=5, what="the new value is served")


async def test_a_popular_value_is_refreshed_before_it_expires(cache: ComputedCache) -> None:
    async def compute() -> int:
        await asyncio.sleep(0.2)
        return 1

    # Nothing may be stale, so whatever is refreshed had not expired.
    policy = Policy(ttl=timedelta(milliseconds=400))

    async def refreshed() -> bool:
        assert await cache.fetch("k", compute, policy) == 1
        return bool(cache.cache.counts.total["refreshed"])

    await eventually(refreshed, seconds=20, what="it is computed again")


async def test_none_is_cached_for_a_time_of_its_own(cache: ComputedCache) -> None:
    absent, never = Counted(None), Counted(None)
    for _ in range(3):
        await cache.fetch("a", absent, Policy(negative_ttl=timedelta(minutes=1)))
        await cache.fetch("n", never, Policy(negative_ttl=timedelta(0)))
    assert (absent.calls, never.calls) == (1, 3)
    assert await cache.cache.redis.pttl(cache.cache.keys.value("a")) <= 60_000


@pytest.mark.parametrize(
    "poison",
    [b"", b"x", b"17", dumps(["v", 9e9, 9e9, 0.1, 7]), dumps(["v", "soon", 9e9, 0.1, []])],
    ids=["empty", "rubbish", "number", "versions", "time"],
)
async def test_a_poisoned_value_is_computed_again(cache: ComputedCache, poison: bytes) -> None:
    await cache.cache.redis.set(cache.cache.keys.value("k"), poison)
    assert await cache.fetch("k", Counted("fine"), POLICY) == "fine"
    assert await cache.fetch("k", Counted("other"), POLICY) == "fine"


async def test_a_result_that_cannot_be_stored_still_reaches_its_caller(
    cache: ComputedCache,
) -> None:
    odd = Counted(object())
    assert await cache.fetch("k", odd, POLICY) is odd.value


async def test_who_gives_up_waiting_does_not_stop_the_others(cache: ComputedCache) -> None:
    gate = asyncio.Event()
    slow = Counted(wait=gate)
    leaving = asyncio.create_task(cache.fetch("k", slow, POLICY))
    staying = asyncio.create_task(cache.fetch("k", slow, POLICY))
    await slow.begun.wait()
    leaving.cancel()
    gate.set()
    assert await staying == "value"
    assert slow.calls == 1


async def test_a_long_computation_keeps_its_lease(stack: Settings, cache: ComputedCache) -> None:
    settings = stack.cache.model_copy(update={"lease_s": 1})
    slow = ComputedCache(RedisCache(settings, with_local_layer=False))
    other = ComputedCache(RedisCache(settings, with_local_layer=False))
    gate = asyncio.Event()
    counted = Counted(wait=gate)
    first = asyncio.create_task(slow.fetch("k", counted, POLICY))
    await counted.begun.wait()
    second = asyncio.create_task(other.fetch("k", counted, POLICY))
    await asyncio.sleep(1.5)  # longer than the lease
    gate.set()
    assert await first == await second == "value"
    assert counted.calls == 1
    for each in (slow, other):
        await each.aclose()
        await each.cache.aclose()


@pytest.mark.parametrize("ttl", [timedelta(days=31), timedelta(0)], ids=["long", "none"])
def test_a_time_that_nothing_can_be_kept_for_is_refused_before_anything_is_computed(
    ttl: timedelta,
) -> None:
    with pytest.raises(InvalidInputError, match="TTL"):
        cached(key_prefix="never", ttl=ttl)
