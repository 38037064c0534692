"""The cache's Redis behind calls that never fail because of it.

Invariant: Redis that is down, slow, full or holds rubbish is a miss, counted and logged, and never
an exception of a caller; values that cannot be stored and keys that cannot be built are the
caller's mistake and are told. While the circuit breaker is open, nobody waits.

A command that must not run twice (a count) is sent once; the rest is sent again once where its
connection broke.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from samplemind.cache import counts
from samplemind.cache.breaker import CircuitBreaker
from samplemind.cache.connection import connect_cache, pool_size
from samplemind.cache.counts import Counts
from samplemind.cache.keys import FORMAT, Keys
from samplemind.cache.lane import Lane, Script, Word
from samplemind.cache.local import LocalLayer
from samplemind.cache.serialization import Form, dumps, loads
from samplemind.cache.stats import CacheStats
from samplemind.errors import (
    InvalidInputError,
    StoreUnavailableError,
    UnreadableValueError,
)
from samplemind.log import get_logger
from samplemind.settings import CacheSettings

T = TypeVar("T")

SHORT = timedelta(minutes=5)
HOUR = timedelta(hours=1)
DAY = timedelta(hours=24)

_JITTER = 0.1
_LONGEST = timedelta(days=30)
_SCAN = 500
_STATS_SCAN_KEYS = 200_000
_MISSING: Any = object()

_log = get_logger(__name__)


class RedisCache:
    """One process's access to the cache; belongs to the event loop that first used it."""

    def __init__(
        self, settings: CacheSettings, *, version: int = FORMAT, with_local_layer: bool = True
    ) -> None:
        """Connect to nothing yet.

        Raises:
            StackNotRunningError: the settings name no URL.
            SettingsError: the URL cannot be read.
        """
        self.settings = settings
        self.keys = Keys(version)
        self.counts = Counts()
        self.redis = connect_cache(settings)
        pool = self.redis.connection_pool
        self.lane = Lane(
            lambda: pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": None}),
            settings.timeout_ms / 1000,
        )
        self.breaker = CircuitBreaker(self.redis.ping)
        self.local = LocalLayer(
            self.keys.namespace, settings.local_entries if with_local_layer else 0
        )
        key = settings.signing_key
        self._signing_key = key.get_secret_value().encode() if key else None
        self._slots = asyncio.Semaphore(pool_size(settings))
        self._flushing: asyncio.Task[None] | None = None

    async def get(self, key: str, default: Any = None, *, form: Form | None = None) -> Any:
        """Return the value, or the default where there is none or it cannot be read.

        Args:
            key: as `keys.key` builds it.
            default: for a miss.
            form: needed for a pickle, which is opened for nobody who did not ask.
        """
        stored = self.keys.value(key)
        data = self.local.get(stored)
        if data is not None:
            self.counts.add(counts.LOCAL_HITS)
        else:
            self.local.listen(self.redis.connection_pool)
            mark = self.local.mark()
            if self.local.is_trusted:
                # In one write. Redis tells of an expiry when it deletes, which may be later.
                data, left_ms = await self._with_time_left(stored)
                if data is not None:
                    self.local.keep(stored, data, mark, ttl_s=left_ms / 1000)
            else:
                data = await self.send("GET", stored)
        return self._read(key, data, default, form)

    async def _with_time_left(self, stored: str) -> tuple[bytes | None, int]:
        """Return the bytes, and the milliseconds that they have left; 0 where nobody knows."""
        data, left_ms = await asyncio.gather(self.send("GET", stored), self.send("PTTL", stored))
        return data, max(0, left_ms or 0)

    async def get_many(self, keys: Sequence[str], *, form: Form | None = None) -> dict[str, Any]:
        """Return the values that are there, in one round trip."""
        if not keys:
            return {}
        stored = [self.keys.value(key) for key in keys]
        found = await self.send("MGET", *stored)
        if found is None:
            return {}
        values = {}
        for key, data in zip(keys, found, strict=True):
            value = self._read(key, data, _MISSING, form)
            if value is not _MISSING:
                values[key] = value
        return values

    async def set(
        self, key: str, value: object, ttl: timedelta = HOUR, *, form: Form = Form.MSGPACK
    ) -> bool:
        """Store the value; false where Redis did not take it.

        Raises:
            InvalidInputError: the value cannot be stored, or the TTL is not positive.
        """
        data, px, stored = self._write(value, form), jittered_ms(ttl), self.keys.value(key)
        try:
            return bool(await self.send("SET", stored, data, "PX", px))
        finally:
            self.local.forget([stored])  # who wrote reads what they wrote, whatever news are late

    async def set_many(
        self, values: Mapping[str, object], ttl: timedelta = HOUR, *, form: Form = Form.MSGPACK
    ) -> bool:
        """Store the values in one round trip; false where Redis did not take them.

        Raises:
            InvalidInputError: a value cannot be stored, or the TTL is not positive.
        """
        if not values:
            return True
        rows = [
            (self.keys.value(key), self._write(value, form), jittered_ms(ttl))
            for key, value in values.items()
        ]

        async def send() -> bool:
            pipeline = self.redis.pipeline(transaction=False)
            for stored, data, px in rows:
                pipeline.set(stored, data, px=px)
            await pipeline.execute()
            return True

        try:
            return await self.ask(send, False)
        finally:
            self.local.forget(stored for stored, _, _ in rows)

    async def delete(self, *keys: str) -> int:
        """Delete the values and whatever is being computed for them; return how many were there."""
        if not keys:
            return 0
        stored = [self.keys.value(key) for key in keys]
        leases = [self.keys.lease(key) for key in keys]
        self.local.forget(stored)

        async def send() -> int:
            pipeline = self.redis.pipeline(transaction=True)
            pipeline.unlink(*leases)
            pipeline.unlink(*stored)
            return int((await pipeline.execute())[1])

        return await self.ask(send, 0)

    async def increment(self, key: str, by: int = 1, ttl: timedelta = HOUR) -> int | None:
        """Add to a whole number and return the sum; none where Redis did not answer.

        Atomic. A number that is not there begins at 0 and gets the TTL; one that is there keeps
        the time it has left.

        Raises:
            InvalidInputError: the value is no whole number, or the sum is beyond 64 bits.
        """
        px, stored = jittered_ms(ttl), self.keys.value(key)

        async def send() -> int:
            pipeline = self.redis.pipeline(transaction=True)
            pipeline.incrby(stored, by)
            pipeline.pexpire(stored, px, nx=True)
            return int((await pipeline.execute())[0])

        try:
            return await self.ask(send, None, again=False, raising=ResponseError)
        except (OutOfMemoryError, ReadOnlyError, NoPermissionError) as error:
            self._note_failure(error)  # Redis refuses whatever is asked, not this number
            return None
        except ResponseError as error:
            message = f"{key} cannot be counted: it is no whole number of 64 bits"
            raise InvalidInputError(message) from error
        finally:
            self.local.forget([stored])

    async def decrement(self, key: str, by: int = 1, ttl: timedelta = HOUR) -> int | None:
        """Take from a whole number; see `increment`."""
        return await self.increment(key, -by, ttl)

    async def delete_pattern(self, pattern: str) -> int:
        """Delete the values whose key matches, such as `search:*`; return how many.

        In batches, with SCAN and UNLINK: nobody else waits for it.

        Raises:
            InvalidInputError: the pattern is empty.
        """
        deleted = 0
        async for batch in self.scan(pattern):
            deleted += await self.delete(*map(self.keys.shown, batch))
        return deleted

    async def count_pattern(self, pattern: str) -> int:
        """Return how many values `delete_pattern` would delete."""
        found: set[str] = set()
        async for batch in self.scan(pattern):
            found.update(batch)
        return len(found)

    async def get_stats(self, *, with_keys: bool = True) -> CacheStats:
        """Return the figures of the cache.

        Args:
            with_keys: count them by prefix, which reads the names of at most 200,000.
        """
        await self.flush_counts()
        total = {
            name.decode(): int(number)
            for name, number in (
                await self.ask(lambda: self.redis.hgetall(self.keys.of("stats")), {})
            ).items()
        }
        info: dict[str, Any] = await self.ask(self.redis.info, {})
        hits = total.get(counts.HITS, 0) + total.get(counts.LOCAL_HITS, 0)
        misses = total.get(counts.MISSES, 0)
        return CacheStats(
            available=bool(info),
            hits=hits,
            misses=misses,
            hit_rate=hits / (hits + misses) if hits + misses else None,
            p50_ms=self.counts.percentile_ms(0.50),
            p95_ms=self.counts.percentile_ms(0.95),
            p99_ms=self.counts.percentile_ms(0.99),
            memory_bytes=info.get("used_memory"),
            memory_limit_bytes=info.get("maxmemory"),
            evictions=info.get("evicted_keys"),
            expirations=info.get("expired_keys"),
            keys=await self._keys_by_prefix() if with_keys else {},
            counted=total,
        )

    async def send(self, *words: Word, again: bool = True) -> Any:
        """Send one command on the shared connection; return its answer, or none without one.

        Args:
            words: the command; nothing that blocks.
            again: it may run twice without harm.
        """
        return await self._on_lane(lambda: self.lane.send(*words), again=again)

    async def run(
        self, script: Script, keys: Sequence[str], *words: Word, again: bool = True
    ) -> Any:
        """Run a script on the shared connection; return its answer, or none without one."""
        return await self._on_lane(lambda: self.lane.run(script, keys, *words), again=again)

    async def ask(
        self,
        command: Callable[[], Awaitable[Any]],
        otherwise: T,
        *,
        again: bool = True,
        raising: type[RedisError] | tuple[type[RedisError], ...] = (),
    ) -> Any | T:
        """Return what Redis answers on a connection of the pool, or `otherwise` where it does not.

        Args:
            command: sends it; called a second time where the connection broke.
            otherwise: for a Redis that is down.
            again: the command may run twice without harm.
            raising: errors that are the caller's.
        """
        if not self.breaker.allows():
            self.counts.add(counts.BYPASSED)
            return otherwise
        try:
            # As many slots as connections: who waits here is let go at once when Redis fails.
            async with self._slots:
                if not self.breaker.allows():
                    self.counts.add(counts.BYPASSED)
                    return otherwise
                started = time.perf_counter()
                answer = await self._send(command, again=again)
        except raising:
            raise
        except (RedisError, OSError, TimeoutError) as error:
            self._note_failure(error)
            return otherwise
        self._note_answer(started)
        return answer

    async def _on_lane(self, command: Callable[[], Awaitable[Any]], *, again: bool) -> Any:
        if not self.breaker.allows():
            self.counts.add(counts.BYPASSED)
            return None
        started = time.perf_counter()
        try:
            answer = await self._send(command, again=again)
        except (RedisError, OSError, TimeoutError) as error:
            self._note_failure(error)
            return None
        self._note_answer(started)
        return answer

    def _note_failure(self, error: Exception) -> None:
        self.counts.add(counts.ERRORS)
        if isinstance(error, ResponseError):
            # Redis is there but refuses: full, read only, or a value of another type.
            _log.warning("cache.refused", error=str(error).split(" ", 1)[0])
        else:
            self.breaker.trip(error)

    def _note_answer(self, started: float) -> None:
        self.counts.latencies_s.append(time.perf_counter() - started)
        if self._flushing is None and (new := self.counts.due()):
            self._flushing = asyncio.create_task(self._flush(new))

    async def _send(self, command: Callable[[], Awaitable[T]], *, again: bool) -> T:
        try:
            return await command()
        except RedisConnectionError:
            if not again or self.breaker.is_open:
                raise
            return await command()

    async def require(self) -> None:
        """Ask for a sign of life, for operators, who must know.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        if not await self.ask(self.redis.ping, False):
            message = "the cache's Redis does not answer"
            raise StoreUnavailableError(message)

    async def flush_counts(self) -> None:
        """Add what this process counted to what all have counted."""
        await self._flush(self.counts.take())

    async def aclose(self) -> None:
        """Flush the counts and close the connections; doing it twice is harmless."""
        await self.breaker.aclose()
        await self.local.aclose()
        if self._flushing is not None:
            await asyncio.gather(self._flushing, return_exceptions=True)
        if self.counts.total and not self.breaker.is_open:
            await self.flush_counts()
        await self.breaker.aclose()
        if self._flushing is not None:
            await asyncio.gather(self._flushing, return_exceptions=True)
        await self.lane.aclose()
        await self.redis.aclose()

    def read(self, key: str, data: bytes | None, default: Any) -> Any:
        """Return what the stored bytes hold, or the default; rubbish is logged."""
        if data is None:
            return default
        try:
            return loads(data, form=None, signing_key=self._signing_key)
        except UnreadableValueError as error:
            self._note_unreadable(key, error)
            return default

    def _read(self, key: str, data: bytes | None, default: Any, form: Form | None) -> Any:
        if data is None:
            self.counts.add(counts.MISSES)
            return default
        if data[:1] in b"-0123456789" and _is_number(data):
            self.counts.add(counts.HITS)
            return int(data)
        try:
            value = loads(data, form=form, signing_key=self._signing_key)
        except UnreadableValueError as error:
            self._note_unreadable(key, error)
            self.counts.add(counts.MISSES)
            return default
        self.counts.add(counts.HITS)
        return value

    def _note_unreadable(self, key: str, error: UnreadableValueError) -> None:
        self.counts.add(counts.UNREADABLE)
        _log.warning("cache.unreadable_value", key=key, reason=str(error))

    def _write(self, value: object, form: Form) -> bytes:
        # Whole numbers are stored as Redis counts them.
        if type(value) is int and -(2**63) <= value < 2**63:
            return str(value).encode()
        return dumps(value, form, signing_key=self._signing_key)

    async def scan(self, pattern: str) -> AsyncIterator[list[str]]:
        """Yield where the values lie whose key matches, in batches; some may come twice.

        Raises:
            InvalidInputError: the pattern is empty.
        """
        if not pattern:
            message = "an empty pattern matches nothing: write for example search:*"
            raise InvalidInputError(message)
        cursor = 0
        while True:
            found = await self.ask(
                partial(self.redis.scan, cursor, match=self.keys.value(pattern), count=_SCAN),
                None,
            )
            if found is None:
                return
            cursor, names = found
            if names:
                yield [each.decode(errors="surrogateescape") for each in names]
            if not cursor:
                return

    async def _keys_by_prefix(self) -> dict[str, int]:
        by_prefix: Counter[str] = Counter()
        async for batch in self.scan("*"):
            by_prefix.update(map(self.keys.prefix_of, batch))
            if by_prefix.total() >= _STATS_SCAN_KEYS:
                break
        return dict(by_prefix)

    async def _flush(self, new: Mapping[str, int]) -> None:
        async def send() -> bool:
            pipeline = self.redis.pipeline(transaction=False)
            for name, number in new.items():
                pipeline.hincrby(self.keys.of("stats"), name, number)
            await pipeline.execute()
            return True

        try:
            if new:
                await self.ask(send, False, again=False)
        finally:
            self._flushing = None


def jittered_ms(ttl: timedelta) -> int:
    """Return the TTL in milliseconds, up to a tenth shorter, so that no crowd dies together.

    Raises:
        InvalidInputError: it is not positive, or longer than 30 days.
    """
    if not timedelta(0) < ttl <= _LONGEST:
        message = f"a TTL is more than nothing and at most {_LONGEST.days} days, not {ttl}"
        raise InvalidInputError(message)
    whole = ttl / timedelta(milliseconds=1)
    return max(1, round(whole * (1 - _JITTER * random.random())))  # noqa: S311 - only spreads


def _is_number(data: bytes) -> bool:
    return data.removeprefix(b"-").isdigit()
