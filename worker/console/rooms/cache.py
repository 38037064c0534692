"""Cache: what it saves, what it holds, what is asked for most; clearing parts of it, warming it."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from samplemind.cache.searches import CachedSearch, PopularSearch
from samplemind.cache.stats import CacheStats, HotKey, find_hot_keys
from samplemind.connections.resources import Connections
from samplemind.errors import InvalidInputError
from samplemind.jobs.payloads import WarmCache
from worker.console import wording
from worker.console.reading import Panel, Reading, Subject
from worker.console.room import Action, Outcome, Page, Problem, Room

_LEAST_READS = 1000
_LOW_RATE = 0.3
_FULL = 0.95
_SLOW_MS = 100.0
_LONGEST_PATTERN = 200
_WITHOUT = "everything works without it, more slowly: `samplemind doctor`"


class CachePage(Page):
    """The figures of the cache."""

    template, room = "cache.html", "cache"

    def panels(self, *_: str) -> Mapping[str, Panel]:
        """Read the figures, what is asked for most, and how many keys a pattern takes."""
        cache, pattern = self.connections.cached.cache, self._pattern()
        panels = {
            "stats": Panel(
                partial(cache.get_stats), Subject.CACHE, fresh_s=8, timeout_s=15, mend=_WITHOUT
            ),
            "hot": Panel(
                partial(_hot, self.connections),
                Subject.CACHE,
                fresh_s=8,
                timeout_s=15,
                mend=_WITHOUT,
            ),
            "popular": Panel(
                partial(_popular, self.connections), Subject.CACHE, fresh_s=8, mend=_WITHOUT
            ),
        }
        if pattern:
            panels["matching"] = Panel(
                partial(_count, self.connections, pattern),
                Subject.CACHE,
                key=(pattern,),
                fresh_s=3,
                timeout_s=30,
                mend=_WITHOUT,
            )
        return panels

    def facts(self, readings: Mapping[str, Reading]) -> Mapping[str, Any]:
        """Return what is wrong, how it was, and what the pattern would take."""
        stats = readings["stats"]
        is_open = self.connections.cached.cache.breaker.is_open
        return {
            "problems": find_problems(stats.value, is_open=is_open) if stats.ready else [],
            "breaker_is_open": is_open,
            "rates": self.application.hits.rates(),
            "memory": self.application.hits.memory(),
            "pattern": self._pattern(),
            "matched": readings.get("matching"),
            "filters_of": filters_of,
        }

    def _pattern(self) -> str:
        return self.text("pattern").strip()[:_LONGEST_PATTERN]


class CacheAction(Action):
    """Something done to the cache."""

    resource_kind: ClassVar[str] = "cache"
    changes: ClassVar[tuple[Subject, ...]] = (Subject.CACHE,)


class ClearCache(CacheAction):
    """Deletes the cached values that a pattern takes."""

    action = "console.clear_cache"
    question = "Delete the cached values of this pattern? Nothing is lost: it is computed again."

    async def act(self, *_: str) -> Outcome:
        """Delete them; rate limits and what is known of popularity stay."""
        pattern = self.text("pattern").strip()
        if not 1 <= len(pattern) <= _LONGEST_PATTERN:
            message = f"a pattern has 1 to {_LONGEST_PATTERN} characters: search:* for example"
            raise InvalidInputError(message)
        cache = self.connections.cached.cache
        await cache.require()
        deleted = await cache.delete_pattern(pattern)
        return Outcome(
            f"{wording.number(deleted)} cached values of {pattern} were deleted.",
            details={"pattern": pattern, "deleted": deleted},
        )


class Warm(CacheAction):
    """Makes popular searches anew."""

    action = "console.warm_cache"
    changes = (Subject.JOBS, Subject.SCHEDULE)
    question = "Make the most popular searches anew?"

    async def act(self, *_: str) -> Outcome:
        """Send the job."""
        job_id = await self.run_recurring(WarmCache())
        return Outcome("Popular searches are being made anew.", details={"job_id": job_id})


def find_problems(found: CacheStats, *, is_open: bool) -> list[Problem]:
    """Return what is wrong with the cache, the worst first; pure."""
    if is_open or not found.available:
        return [Problem("danger", "The cache’s Redis does not answer", _WITHOUT)]
    problems = []
    limit, used = found.memory_limit_bytes, found.memory_bytes
    if not limit:
        text = "The cache has no limit of memory: it grows until the machine has none"
        problems.append(Problem("warning", text, "set `maxmemory` and `allkeys-lfu`"))
    elif used is not None and used > _FULL * limit and found.evictions:
        text = f"The cache is full and has evicted {wording.number(found.evictions)} values"
        problems.append(Problem("warning", text, "give it more memory, if the hit rate falls"))
    reads = found.hits + found.misses
    if found.hit_rate is not None and reads >= _LEAST_READS and found.hit_rate < _LOW_RATE:
        text = f"Only {wording.share(found.hits, reads)} of reads are hits"
        problems.append(Problem("warning", text, "look at evictions, and whether writes clear it"))
    if found.p95_ms is not None and found.p95_ms > _SLOW_MS:
        text = f"One in twenty answers takes longer than {found.p95_ms:.0f} ms"
        problems.append(Problem("warning", text, "look at the network and the server’s load"))
    return problems


def filters_of(search: PopularSearch) -> str:
    """Return what narrows a popular search, in a line."""
    return ", ".join(
        f"{wording.words(name)} {value}"
        for name, value in search.filters.items()
        if name != "everything"
    )


async def _hot(connections: Connections) -> tuple[HotKey, ...]:
    return await find_hot_keys(connections.cached.cache)


async def _popular(connections: Connections) -> tuple[PopularSearch, ...]:
    return await CachedSearch(connections).popular()


async def _count(connections: Connections, pattern: str) -> int:
    cache = connections.cached.cache
    await cache.require()
    return await cache.count_pattern(pattern)


ROOM = Room(
    "cache",
    "Cache",
    (
        ("/cache", CachePage),
        ("/cache/clear", ClearCache),
        ("/cache/warm", Warm),
    ),
)
