"""Values that are computed where they are not cached: by one caller for all that wait.

`@cached` (`cached.py`) puts functions before it.

A stored value carries the versions of its tags from before it was computed, so `invalidate` is one
write per tag, and a value computed before it but stored after it is never served. The caller that
computes holds a lease in Redis, which it renews: the others, in every process, wait for its value,
or take over once the lease lapses because its process died.

A value is refreshed in the background before it expires, the likelier the nearer the end and the
longer it took (XFetch: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede
Prevention", VLDB 2015), and within `stale` after it.

Invariant: an exception is never cached, and none comes from the cache: without Redis the function
is called, still once for all who wait in this process.
"""

import asyncio
import math
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, cast

from samplemind.cache import counts
from samplemind.cache.lane import Script
from samplemind.cache.redis_cache import DAY, HOUR, RedisCache, jittered_ms
from samplemind.cache.serialization import dumps
from samplemind.ending import end_tasks, is_ending
from samplemind.errors import InvalidInputError
from samplemind.log import get_logger

R = TypeVar("R")

_TAG_LIFE = 2 * 30 * DAY
_FIRST_POLL_S = 0.005
_LONGEST_POLL_S = 0.1
_NEWS_S = 0.5
_LONGEST_COMPUTATION_S = 600.0
_BETA = 1.0

# Tags that have no version get one, so that an evicted tag makes its values invalid, not eternal.
_TAKE = Script("""
local got = redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
local answer = {got and 1 or 0}
for i = 2, #KEYS do
    local version = redis.call('GET', KEYS[i])
    if not version then
        version = ARGV[1]
        redis.call('SET', KEYS[i], version, 'PX', ARGV[3])
    end
    answer[i] = version
end
return answer
""")
_PUT = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[1])
return 1
""")
_RELEASE = Script(
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"
)
_RENEW = Script(
    "if redis.call('GET', KEYS[1]) == ARGV[1] "
    "then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
)

_bypassed: ContextVar[bool] = ContextVar("cache_bypassed", default=False)
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """How long a value holds.

    Attributes:
        ttl: how long it is fresh.
        stale: how long after that it may be served while it is computed anew.
        negative_ttl: how long a None is fresh; none: as long as any value. Zero: never cached.
    """

    ttl: timedelta = HOUR
    stale: timedelta = timedelta(0)
    negative_ttl: timedelta | None = None

    def __post_init__(self) -> None:
        """Refuse what no value could be kept for, before one is computed.

        Raises:
            InvalidInputError: a time is not positive (`stale` and `negative_ttl` may be zero), or
                longer than 30 days.
        """
        jittered_ms(self.ttl)
        for other in (self.stale, self.negative_ttl):
            if other:
                jittered_ms(other)

    def fresh_for(self, value: object) -> timedelta:
        """Return how long this value is fresh."""
        if value is None and self.negative_ttl is not None:
            return self.negative_ttl
        return self.ttl


class _Entry(NamedTuple):
    """A value as it is stored; times in seconds since 1970."""

    value: Any
    fresh_until: float
    gone_at: float
    took_s: float
    versions: tuple[bytes, ...]

    def wants_refresh(self, now: float) -> bool:
        # 1 - random() is never 0.
        early_s = -self.took_s * _BETA * math.log(1 - random.random())  # noqa: S311 - XFetch
        return now + early_s >= self.fresh_until


class _Flight:
    """A computation that is under way in this process; `versions` once it has begun to compute."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.versions: tuple[bytes, ...] | None = None

    def serves(self, versions: tuple[bytes | None, ...] | None) -> bool:
        """Whether it will do for a caller who has just read these versions of the tags.

        What was begun before an invalidation will not, for whoever asks after it. Answers come in
        the order of the questions, so one that has not begun has not read anything older.
        """
        if self.task is None or self.task.done():
            return False
        return self.versions is None or versions is None or self.versions == versions


class ComputedCache:
    """Computes what is missing, once; see the module."""

    def __init__(self, cache: RedisCache) -> None:
        self.cache = cache
        self._flights: dict[str, _Flight] = {}
        self._ending: set[asyncio.Task[Any]] = set()
        self._refreshes: dict[str, asyncio.Task[None]] = {}

    async def fetch(
        self,
        key: str,
        compute: Callable[[], Awaitable[R]],
        policy: Policy,
        tags: Sequence[str] = (),
    ) -> R:
        """Return the cached value, or what `compute` returns, which is then cached.

        Args:
            key: as `keys.key` builds it, of everything that the value follows from.
            compute: where it raises, that goes to whoever waits in this process.
            policy: how long the value holds.
            tags: `invalidate` of one makes the value invalid.
        """
        if _bypassed.get():
            return await compute()
        entry, versions = await self._read(key, tags)
        now = time.time()
        if entry is not None and now < entry.gone_at:
            if entry.wants_refresh(now):
                if now >= entry.fresh_until:
                    self.cache.counts.add(counts.STALE_SERVED)
                self._refresh_soon(key, compute, policy, tags)
            return cast("R", entry.value)
        self.cache.counts.add(counts.MISSES)
        flight = self._flights.get(key)
        if flight is None or not flight.serves(versions):
            flight = self._start(key, compute, policy, tags)
        # Whoever gives up waiting does not end what others wait for.
        assert flight.task is not None  # noqa: S101 - `_start` has set it
        return cast("R", await asyncio.shield(flight.task))

    async def refresh(
        self,
        key: str,
        compute: Callable[[], Awaitable[object]],
        policy: Policy,
        tags: Sequence[str] = (),
    ) -> bool:
        """Compute and store the value now; false where somebody else is at it or Redis is down."""
        token = secrets.token_hex(12)
        taken, versions = await self._try_lease(key, token, tags)
        if not taken:
            return False
        await self._compute(key, token, compute, policy, versions)
        return True

    async def left(self, key: str, tags: Sequence[str] = ()) -> timedelta | None:
        """Return how long the value will be fresh; none where there is no valid one."""
        entry, _ = await self._read(key, tags, count=False)
        return None if entry is None else timedelta(seconds=entry.fresh_until - time.time())

    async def invalidate(self, *tags: str) -> bool:
        """Make every value with one of the tags invalid, everywhere; false where Redis is down.

        One write for each tag, however many values have it.
        """
        stored = [self.cache.keys.tag(tag) for tag in tags]
        self.cache.local.forget(stored)
        life_ms = int(_TAG_LIFE / timedelta(milliseconds=1))

        async def send() -> bool:
            pipeline = self.cache.redis.pipeline(transaction=True)
            for each in stored:
                pipeline.set(each, secrets.token_hex(12), px=life_ms)
            await pipeline.execute()
            return True

        if not stored:
            return True
        try:
            return await self.cache.ask(send, False)
        finally:
            # Whoever read the old version before it was overwritten may have kept it meanwhile.
            self.cache.local.forget(stored)

    async def aclose(self) -> None:
        """End what is computed in the background."""
        await end_tasks(*self._ending, *self._refreshes.values())

    async def _read(
        self, key: str, tags: Sequence[str], *, count: bool = True
    ) -> tuple[_Entry | None, tuple[bytes | None, ...] | None]:
        """Return the valid entry, if any, and the tags' versions, if Redis was asked and there."""
        cache = self.cache
        stored = cache.keys.value(key)
        data = cache.local.get(stored)
        if data is not None:
            entry = self._entry(key, data)
            if entry is not None:
                cache.counts.add(counts.LOCAL_HITS, count)
            return entry, None
        cache.local.listen(cache.redis.connection_pool)
        tag_keys = [cache.keys.tag(tag) for tag in tags]
        mark = cache.local.mark()
        found = await cache.send("MGET", stored, *tag_keys)
        if found is None:
            return None, None
        data, *read = found
        versions = tuple(read)
        entry = self._entry(key, data) if data is not None else None
        if entry is None or entry.versions != versions:
            return None, versions
        cache.counts.add(counts.HITS, count)
        # Redis ends it at `gone_at` too, but a local copy of what is stale would never be renewed.
        cache.local.keep(stored, data, mark, ttl_s=entry.fresh_until - time.time(), tags=tag_keys)
        return entry, versions

    def _entry(self, key: str, data: bytes) -> _Entry | None:
        content = self.cache.read(key, data, None)
        if not isinstance(content, list) or len(content) != len(_Entry._fields):
            return None
        value, fresh_until, gone_at, took_s, versions = content
        is_timed = all(isinstance(number, float) for number in (fresh_until, gone_at, took_s))
        if not is_timed or not isinstance(versions, list | tuple):
            return None
        return _Entry(value, fresh_until, gone_at, took_s, tuple(versions))

    def _start(
        self,
        key: str,
        compute: Callable[[], Awaitable[R]],
        policy: Policy,
        tags: Sequence[str],
    ) -> _Flight:
        flight = self._flights[key] = _Flight()
        flight.task = asyncio.create_task(self._lead(flight, key, compute, policy, tags))
        self._ending.add(flight.task)
        flight.task.add_done_callback(lambda done: self._land(key, flight, done))
        return flight

    async def _lead(
        self,
        flight: _Flight,
        key: str,
        compute: Callable[[], Awaitable[R]],
        policy: Policy,
        tags: Sequence[str],
    ) -> R:
        """Compute under the lease, or wait for whoever has it."""
        token = secrets.token_hex(12)
        taken, versions = await self._try_lease(key, token, tags)
        waited = not taken and versions is not None
        if waited:
            entry, versions = await self._wait(key, token, tags)
            if entry is not None:
                return cast("R", entry.value)
        if versions is None:  # Redis is down
            self.cache.counts.add(counts.COMPUTED)
            return await compute()
        flight.versions = versions
        # It may have come since it was missed, from whoever had the lease before.
        late, _ = await self._read(key, tags, count=False)
        if late is not None and time.time() < late.fresh_until:
            await self._give_back(key, token)
            return cast("R", late.value)
        if waited:
            self.cache.counts.add(counts.TAKEN_OVER)
        return await self._compute(key, token, compute, policy, versions)

    async def _wait(
        self, key: str, token: str, tags: Sequence[str]
    ) -> tuple[_Entry | None, tuple[bytes, ...] | None]:
        """Wait for the value from whoever has the lease, or until the lease is taken here.

        Returns:
            The value, or none; and the versions to compute under, or none where Redis went down.
        """
        cache = self.cache
        names = (cache.keys.value(key), cache.keys.lease(key))
        pause_s = _FIRST_POLL_S
        while True:
            with cache.local.watching(names) as changed:
                entry, _ = await self._read(key, tags, count=False)
                if entry is not None and time.time() < entry.gone_at:
                    return entry, entry.versions
                taken, versions = await self._try_lease(key, token, tags)
                if taken or versions is None:
                    return None, versions
                # Where news arrive there is no need to ask, except for a lost lease's sake.
                within_s = _NEWS_S if cache.local.is_trusted else pause_s
                with suppress(TimeoutError):
                    async with asyncio.timeout(within_s * (0.5 + random.random())):  # noqa: S311
                        await changed.wait()
            pause_s = min(2 * pause_s, _LONGEST_POLL_S)

    async def _try_lease(
        self, key: str, token: str, tags: Sequence[str]
    ) -> tuple[bool, tuple[bytes, ...] | None]:
        names = [self.cache.keys.lease(key), *map(self.cache.keys.tag, tags)]
        life_ms = int(_TAG_LIFE / timedelta(milliseconds=1))
        # Sent once: a lease taken by an answer that was lost would keep its own taker waiting.
        answer = await self.cache.run(
            _TAKE, names, token, self.cache.settings.lease_s * 1000, life_ms, again=False
        )
        return (False, None) if answer is None else (bool(answer[0]), tuple(answer[1:]))

    async def _compute(
        self,
        key: str,
        token: str,
        compute: Callable[[], Awaitable[R]],
        policy: Policy,
        versions: tuple[bytes, ...] | None,
    ) -> R:
        renewal = asyncio.create_task(self._keep_lease(key, token))
        started = time.perf_counter()
        try:
            value = await compute()
            took_s = time.perf_counter() - started
            self.cache.counts.add(counts.COMPUTED)
            await self._store(key, token, value, took_s, policy, versions or ())
        except BaseException:
            await asyncio.shield(self._give_back(key, token))
            raise
        finally:
            await end_tasks(renewal)
        return value

    async def _store(
        self,
        key: str,
        token: str,
        value: object,
        took_s: float,
        policy: Policy,
        versions: tuple[bytes, ...],
    ) -> None:
        fresh = policy.fresh_for(value)
        if fresh <= timedelta(0):
            await self._give_back(key, token)
            return
        fresh_s = jittered_ms(fresh) / 1000
        gone_s = fresh_s + policy.stale.total_seconds()
        now = time.time()
        try:
            data = dumps([value, now + fresh_s, now + gone_s, took_s, list(versions)])
        except InvalidInputError as error:
            # The caller has its value; that it cannot be kept is a mistake for the log.
            _log.warning("cache.not_storable", key=key, reason=str(error))
            await self._give_back(key, token)
            return
        names = [self.cache.keys.lease(key), self.cache.keys.value(key)]
        await self.cache.run(_PUT, names, token, data, max(1, int(gone_s * 1000)))

    async def _keep_lease(self, key: str, token: str) -> None:
        life_s = self.cache.settings.lease_s
        names = [self.cache.keys.lease(key)]
        # What hangs must not keep every process waiting for ever: another one takes over.
        deadline = time.monotonic() + _LONGEST_COMPUTATION_S
        while not is_ending() and time.monotonic() < deadline:
            await asyncio.sleep(life_s / 3)
            await self.cache.run(_RENEW, names, token, life_s * 1000)

    async def _give_back(self, key: str, token: str) -> None:
        await self.cache.run(_RELEASE, [self.cache.keys.lease(key)], token)

    def _refresh_soon(
        self,
        key: str,
        compute: Callable[[], Awaitable[object]],
        policy: Policy,
        tags: Sequence[str],
    ) -> None:
        if key in self._refreshes or self.cache.breaker.is_open:
            return

        async def refresh() -> None:
            try:
                if await self.refresh(key, compute, policy, tags):
                    self.cache.counts.add(counts.REFRESHED)
            except Exception as error:  # noqa: BLE001 - nobody waits; the old value still serves
                _log.warning("cache.refresh_failed", key=key, error=type(error).__name__)
            finally:
                del self._refreshes[key]

        self._refreshes[key] = asyncio.create_task(refresh())

    def _land(self, key: str, flight: _Flight, task: "asyncio.Task[Any]") -> None:
        self._ending.discard(task)
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # every waiter may have given up: then nobody else asks for it


@contextmanager
def bypass() -> Iterator[None]:
    """Call functions as if nothing were cached, and cache nothing, within the block."""
    token = _bypassed.set(True)
    try:
        yield
    finally:
        _bypassed.reset(token)


def is_bypassed() -> bool:
    """Whether a block of `bypass` is being run."""
    return _bypassed.get()
