"""`@cached`: a function whose results are computed where they are not cached.

    @cached(ttl=HOUR, key_prefix="report", tags=("index",))
    async def report(day: date) -> dict[str, int]: ...

Invariant: a function behaves as it does without the decorator, but for how often it is called:
its exceptions are its own, and none comes from the cache (see `computed.py`).
"""

import asyncio
import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, cast

from samplemind.cache.computed import ComputedCache, Policy, is_bypassed
from samplemind.cache.keys import CallKeys
from samplemind.cache.redis_cache import HOUR, RedisCache
from samplemind.settings import get_settings

P = ParamSpec("P")
R = TypeVar("R")
Tags = Sequence[str] | Callable[..., Sequence[str]]

_caches: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ComputedCache]" = (
    weakref.WeakKeyDictionary()
)


def current_cache() -> ComputedCache:
    """Return the running loop's cache, made at its first use from the process's settings."""
    loop = asyncio.get_running_loop()
    found = _caches.get(loop)
    if found is None:
        found = _caches[loop] = ComputedCache(RedisCache(get_settings().cache))
    return found


def use_cache(cache: ComputedCache) -> None:
    """Make `@cached` functions on the running loop use this one."""
    _caches[asyncio.get_running_loop()] = cache


async def invalidate(*tags: str) -> bool:
    """Make every value with one of the tags invalid; see `ComputedCache.invalidate`."""
    return await current_cache().invalidate(*tags)


def cached(
    *,
    ttl: timedelta = HOUR,
    key_prefix: str,
    stale: timedelta = timedelta(0),
    negative_ttl: timedelta | None = None,
    tags: Tags = (),
    lookup: Callable[[], ComputedCache] = current_cache,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Cache what a function returns, by its bound arguments.

    A plain function is served by a loop in a thread of the cache's own; it runs in yet another
    thread, with the caller's context variables.

    Args:
        ttl: how long a result is fresh.
        key_prefix: names the results in statistics and patterns.
        stale: how long after that it may be served while it is computed anew.
        negative_ttl: how long a None is fresh; zero: it is not cached.
        tags: names to invalidate results by, or a function of the same arguments that returns them.
        lookup: gives the cache.

    Example:
        @cached(ttl=HOUR, key_prefix="pack", tags=lambda pack_id: (f"pack.{pack_id}",))
    """
    policy = Policy(ttl, stale, negative_ttl)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        keys = CallKeys(function, key_prefix)

        def told(args: Any, kwargs: Any) -> tuple[str, Sequence[str]]:
            return keys.of(args, kwargs), tags(*args, **kwargs) if callable(tags) else tags

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def serve(*args: P.args, **kwargs: P.kwargs) -> Any:
                place, named = told(args, kwargs)
                return await lookup().fetch(place, lambda: function(*args, **kwargs), policy, named)

            return cast("Callable[P, R]", serve)

        @functools.wraps(function)
        def serve_plain(*args: P.args, **kwargs: P.kwargs) -> R:
            if is_bypassed():
                return function(*args, **kwargs)
            place, named = told(args, kwargs)

            async def fetch() -> R:
                async def compute() -> R:
                    return await asyncio.to_thread(function, *args, **kwargs)

                return await lookup().fetch(place, compute, policy, named)

            return asyncio.run_coroutine_threadsafe(fetch(), _plain_loop()).result()

        return serve_plain

    return decorate


_plain: asyncio.AbstractEventLoop | None = None
_plain_lock = threading.Lock()


def _plain_loop() -> asyncio.AbstractEventLoop:
    """Return the loop of plain functions' caches, in a daemon thread of this process."""
    global _plain
    with _plain_lock:
        if _plain is None or not _plain.is_running():
            loop = asyncio.new_event_loop()
            started = threading.Event()
            loop.call_soon(started.set)
            threading.Thread(target=loop.run_forever, name="cache-loop", daemon=True).start()
            started.wait()
            _plain = loop
        return _plain
