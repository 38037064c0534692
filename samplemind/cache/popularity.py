"""What is asked for most, learned in bounded memory.

Counts decay by half in `_HALF_LIFE`. Nothing is rewritten as time passes: a later call adds more
(forward decay: Cormode, Shkapenyuk, Srivastava, Xu, ICDE 2009), and the scale is brought back long
before numbers overflow. The least counted leave when there are too many; a process gathers its
counts and sends them every few seconds.

Invariant: no caller waits for counting, and none fails because of it.
"""

import asyncio
import time
from collections import Counter
from datetime import timedelta

from samplemind.cache.lane import Script, Word
from samplemind.cache.redis_cache import RedisCache

MOST_MEMBERS = 10_000
_MOST_MEMBER_BYTES = 4096
_GATHERED_MOST = 1000
_GATHER_S = 2.0
_HALF_LIFE = timedelta(hours=6)

# KEYS: counts, their scale's beginning. ARGV: half-life in s, most members, then member, count, …
_COUNT = Script("""
local now = tonumber(redis.call('TIME')[1])
local half_life, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local since = tonumber(redis.call('GET', KEYS[2]) or '') or now
local age = (now - since) / half_life
if age > 60 then
    redis.call('ZUNIONSTORE', KEYS[1], 1, KEYS[1], 'WEIGHTS', string.format('%.17g', 2 ^ -age))
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', 1e-6)
    since, age = now, 0
end
redis.call('SET', KEYS[2], since)
for i = 3, #ARGV, 2 do
    redis.call('ZINCRBY', KEYS[1], string.format('%.17g', ARGV[i + 1] * 2 ^ age), ARGV[i])
end
local extra = redis.call('ZCARD', KEYS[1]) - most
if extra > 0 then redis.call('ZREMRANGEBYRANK', KEYS[1], 0, extra - 1) end
return redis.call('ZCARD', KEYS[1])
""")


class Popularity:
    """Counts of one area, such as `searches`; members are small bytes."""

    def __init__(self, cache: RedisCache, area: str, *, most: int = MOST_MEMBERS) -> None:
        self.area = area
        self._cache = cache
        self._most = most
        self._counts = cache.keys.of("pop", area)
        self._since = cache.keys.of("pop", area, "since")
        self._gathered: Counter[bytes] = Counter()
        self._send_next = time.monotonic() + _GATHER_S
        self._sending: asyncio.Task[None] | None = None

    def count(self, member: bytes) -> None:
        """Count one use; what is too long, or new while too much waits, is left out."""
        known = member in self._gathered or len(self._gathered) < _GATHERED_MOST
        if known and len(member) <= _MOST_MEMBER_BYTES:
            self._gathered[member] += 1
        if self._sending is None and time.monotonic() >= self._send_next:
            self._sending = asyncio.create_task(self._send_gathered())

    async def top(self, number: int) -> list[bytes]:
        """Return the most counted, most first."""
        found: list[bytes] = await self._cache.ask(
            lambda: self._cache.redis.zrange(self._counts, 0, number - 1, desc=True), []
        )
        return list(found)

    async def top_counts(self, number: int) -> list[tuple[bytes, float]]:
        """Return the most counted with their counts of now, most first."""

        async def send() -> tuple[list[tuple[bytes, float]], bytes | None]:
            pipeline = self._cache.redis.pipeline(transaction=False)
            pipeline.zrange(self._counts, 0, number - 1, desc=True, withscores=True)
            pipeline.get(self._since)
            found, since = await pipeline.execute()
            return found, since

        found, since = await self._cache.ask(send, ([], None))
        if since is None:
            return []
        # What was added lately weighs more; counts of now are the sums at the present scale.
        scale = 2 ** ((time.time() - float(since)) / _HALF_LIFE.total_seconds())
        return [(member, score / scale) for member, score in found]

    async def counted_for(self) -> timedelta:
        """Return for how long was counted since the cache was last empty; zero: not at all."""
        since = await self._cache.send("GET", self._since)
        return timedelta(0) if since is None else timedelta(seconds=time.time() - float(since))

    async def forget(self, member: bytes) -> None:
        """Take a member out."""
        await self._cache.ask(lambda: self._cache.redis.zrem(self._counts, member), 0)

    async def flush(self) -> None:
        """Send what was gathered now."""
        self._send_next = time.monotonic() + _GATHER_S
        gathered, self._gathered = self._gathered, Counter()
        if not gathered:
            return
        values: list[Word] = [_HALF_LIFE.total_seconds(), self._most]
        for member, number in gathered.items():
            values += [member, number]
        await self._cache.run(_COUNT, [self._counts, self._since], *values, again=False)

    async def aclose(self) -> None:
        """Send the rest."""
        if self._sending is not None:
            await asyncio.gather(self._sending, return_exceptions=True)
        await self.flush()

    async def _send_gathered(self) -> None:
        try:
            await self.flush()
        finally:
            self._sending = None
