"""Warming: the most popular searches are made anew before they expire, or after all was flushed.

What is popular is learned (`samplemind.cache.popularity`): questions of every kind, and files whose
likes were asked for. Each search goes the way of a user's, one at a time, so users are never far
behind it.

Invariant: it ends within its time, and one search that fails stops no other.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from samplemind.cache.popularity import Popularity
from samplemind.cache.searches import CachedSearch
from samplemind.connections.resources import Connections
from samplemind.errors import PermanentError, TransientError
from samplemind.log import get_logger

TOP = 2000

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
    """One thing to keep warm, of those that `among` counts."""

    member: bytes
    among: Popularity


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
        [_Popular(each, among) for each in await among.top(top)]
        for among in (searches.popularity, searches.files)
    ]
    popular = list(_in_turn(ranked))
    warmed = fresh = failed = 0
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
            failed += 1
        else:
            warmed, fresh = warmed + done, fresh + (not done)
    looked = warmed + fresh + failed
    seconds = round(time.monotonic() - started, 3)
    return WarmReport(len(popular), warmed, fresh, failed, seconds, looked == len(popular))


def _in_turn(ranked: Iterable[Sequence[_Popular]]) -> Iterator[_Popular]:
    """Yield the first of each ranking, then the second of each: a short budget serves all."""
    for row in zip_longest(*ranked):
        yield from (each for each in row if each is not None)
