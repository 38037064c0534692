"""Warming: the most popular searches are made anew before they expire, or after all was flushed.

What is popular is learned (`samplemind.cache.popularity`): questions of every kind, and files whose
likes were asked for. Each search goes the way of a user's, one at a time, so users are never far
behind it. What was popular at the last warming is kept beside the broker's queues, so that a cache
that was flushed or restarted, and forgot its counts as well, is warm again at the next one.

Invariant: it ends within its time, and one search that fails stops no other.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import zip_longest
from typing import Any

from redis.exceptions import RedisError

from samplemind.cache.popularity import Popularity
from samplemind.cache.searches import CachedSearch
from samplemind.cache.serialization import dumps, loads
from samplemind.connections.resources import Connections
from samplemind.errors import PermanentError, TransientError, UnreadableValueError
from samplemind.log import get_logger

TOP = 2000

_REMEMBERED = timedelta(days=7)
# How long an emptied cache counts before what it knows is more than what was popular before.
_SETTLED = timedelta(hours=1)

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WarmReport:
    """What one warming did; `in_time` is false where its budget ended it."""

    known: int
    warmed: int
    fresh: int
    failed: int
    seconds: float
    in_time: bool


@dataclass(frozen=True, slots=True)
class _Popular:
    """One thing to keep warm, of those that `among` counts; perhaps counted before a flush only."""

    member: bytes
    among: Popularity
    is_remembered: bool = False


async def warm(connections: Connections, *, within_s: float, top: int = TOP) -> WarmReport:
    """Make the most popular searches anew that are not fresh for long enough, best first.

    Args:
        connections: to the stores.
        within_s: begin no search after so many seconds.
        top: how many searches to look at, and how many files.

    Raises:
        TransientError: PostgreSQL did not answer, so there is nothing to warm with.
    """
    started = time.monotonic()
    searches = CachedSearch(connections)
    ranked = [
        await _known(connections, among, top) for among in (searches.popularity, searches.files)
    ]
    popular = list(_in_turn(ranked))
    warmed = fresh = failed = 0
    refused: set[_Popular] = set()
    for each in popular:
        if time.monotonic() - started >= within_s or connections.cached.cache.breaker.is_open:
            break
        renew = searches.warm if each.among is searches.popularity else searches.warm_file
        try:
            done = await renew(each.member)
        except TransientError:
            if not warmed:
                raise
            failed += 1  # the time limit of one slow search
        except PermanentError as error:
            # A question of another version, or one that is refused now.
            _log.info("cache.not_warmed", error=type(error).__name__)
            await each.among.forget(each.member)
            refused.add(each)
            failed += 1
        else:
            warmed, fresh = warmed + done, fresh + (not done)
            if each.is_remembered:
                each.among.count(each.member)
    for ranking in ranked:
        await _remember(connections, [each for each in ranking if each not in refused])
    await searches.aclose()
    looked = warmed + fresh + failed
    seconds = round(time.monotonic() - started, 3)
    return WarmReport(len(popular), warmed, fresh, failed, seconds, looked == len(popular))


async def _known(connections: Connections, among: Popularity, top: int) -> list[_Popular]:
    """Return the most popular, those of the last time too while the cache has hardly counted.

    A cache that was emptied knows a handful after seconds; they must not displace all the others.
    """
    found = [_Popular(each, among) for each in await among.top(top)]
    if await among.counted_for() >= _SETTLED:
        return found
    place = _place(among)
    try:
        kept: Any = await connections.broker.get(place)
    except RedisError as error:
        _log.info("cache.popular_not_known", error=type(error).__name__)
        return found
    known = {each.member for each in found}
    further = [each for each in _remembered(place, kept) if each not in known]
    return [*found, *(_Popular(each, among, is_remembered=True) for each in further)][:top]


async def _remember(connections: Connections, popular: Sequence[_Popular]) -> None:
    """Keep what is popular where a flush of the cache does not reach."""
    if not popular:
        return
    members = [each.member for each in popular]
    try:
        await connections.broker.set(_place(popular[0].among), dumps(members), ex=_REMEMBERED)
    except RedisError as error:
        _log.info("cache.popular_not_kept", error=type(error).__name__)


def _place(among: Popularity) -> str:
    return f"sm:cache:popular:{among.area}"


def _remembered(place: str, kept: Any) -> list[bytes]:
    if kept is None:
        return []
    try:
        found: list[bytes] = loads(kept)
    except UnreadableValueError as error:
        _log.warning("cache.unreadable_value", key=place, reason=str(error))
        return []
    return found


def _in_turn(ranked: Iterable[Sequence[_Popular]]) -> Iterator[_Popular]:
    """Yield the first of each ranking, then the second of each: a short budget serves all."""
    for row in zip_longest(*ranked):
        yield from (each for each in row if each is not None)
