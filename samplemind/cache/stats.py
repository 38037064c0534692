"""What is told of the cache: its figures, and which of its values are asked for most."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samplemind.cache.redis_cache import RedisCache

_HOT_SAMPLE = 5000


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Figures of the cache; none where Redis did not answer.

    Attributes:
        hits: of all processes, with those of their local layers.
        hit_rate: 0 to 1; none before the first read.
        p50_ms, p95_ms, p99_ms: of this process's last round trips.
        keys: by prefix; of the first 200,000 where there are more.
        counted: everything that all processes counted, by name.
    """

    available: bool
    hits: int
    misses: int
    hit_rate: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    memory_bytes: int | None
    memory_limit_bytes: int | None
    evictions: int | None
    expirations: int | None
    keys: Mapping[str, int]
    counted: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON has them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class HotKey:
    """A value that is asked for often.

    Attributes:
        key: as `keys.key` built it.
        frequency: Redis's logarithmic counter, 0 to 255, which decays by the minute.
        ttl_s: seconds that it has left; none: it does not expire.
    """

    key: str
    frequency: int
    size_bytes: int
    ttl_s: float | None


async def find_hot_keys(cache: "RedisCache", *, limit: int = 20) -> tuple[HotKey, ...]:
    """Return the keys that are asked for most, of a sample of some thousand.

    None where the server does not count it: that takes an LFU policy (`maxmemory-policy`).
    """
    sample = [name async for batch in _sampled(cache) for name in batch]
    if not sample:
        return ()

    async def send() -> list[Any]:
        pipeline = cache.redis.pipeline(transaction=False)
        for stored in sample:
            pipeline.object("FREQ", stored)
            pipeline.memory_usage(stored)
            pipeline.pttl(stored)
        # A key may expire meanwhile: its answer is an error or none, and it is left out.
        return list(await pipeline.execute(raise_on_error=False))

    answers: list[Any] = await cache.ask(send, [])
    if not answers:
        return ()
    found = [
        HotKey(cache.keys.shown(stored), frequency, size, None if ttl < 0 else ttl / 1000)
        for stored, frequency, size, ttl in zip(
            sample, answers[::3], answers[1::3], answers[2::3], strict=True
        )
        if isinstance(frequency, int) and isinstance(size, int) and isinstance(ttl, int)
    ]
    return tuple(sorted(found, key=lambda each: -each.frequency)[:limit])


async def _sampled(cache: "RedisCache") -> AsyncIterator[list[str]]:
    taken = 0
    async for batch in cache.scan("*"):
        yield batch[: _HOT_SAMPLE - taken]
        taken += len(batch)
        if taken >= _HOT_SAMPLE:
            return
