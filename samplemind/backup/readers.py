"""Telling those who read the stores that a restore has changed everything below them.

Invariant: a restore that is done stays done: who cannot be told is named in the result, with what
an operator can do instead.
"""

import redis

from samplemind.errors import SampleMindError
from samplemind.jobs.client import producer, publish
from samplemind.jobs.payloads import ReconcileIndex
from samplemind.settings import Settings

_TIMEOUT_S = 5


def tell_readers(settings: Settings) -> list[str]:
    """Empty the cache and have the search index reconciled; return what could not be done."""
    return [fault for fault in (_empty_cache(settings), _reconcile(settings)) if fault is not None]


def _empty_cache(settings: Settings) -> str | None:
    url = settings.cache.url
    if url is None:
        return None
    try:
        with redis.Redis.from_url(
            url.get_secret_value(),
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
        ) as client:
            # All of this Redis may be forgotten at any time; that is what it is for.
            client.flushdb()
    except redis.RedisError as error:
        return f"the cache was not emptied ({type(error).__name__}): `samplemind cache clear '*'`"
    return None


def _reconcile(settings: Settings) -> str | None:
    if settings.broker.url is None:
        return None
    app = producer(settings)
    try:
        publish(app, [ReconcileIndex()])
    except SampleMindError as error:
        return f"the search index was not told ({error}): `samplemind index reconcile`"
    finally:
        app.close()
    return None
