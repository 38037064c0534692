"""The client of the cache's Redis.

Invariant: every wait of it is short, and it sends nothing twice by itself.
"""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from samplemind.connections.redis_spans import asynchronous_client_class
from samplemind.errors import SettingsError, StackNotRunningError
from samplemind.settings import CacheSettings

_POOL_WAIT_S = 1.0


def connect_cache(settings: CacheSettings) -> Redis:
    """Make a client whose every wait is short; it connects at its first use.

    Raises:
        StackNotRunningError: the settings name no URL.
        SettingsError: the URL cannot be read.
    """
    if settings.url is None:
        message = (
            "no address for cache: start the embedded stack with `samplemind up`, "
            "or set SAMPLEMIND_CACHE_URL"
        )
        raise StackNotRunningError(message)
    timeout_s = settings.timeout_ms / 1000
    try:
        pool = BlockingConnectionPool.from_url(
            settings.url.get_secret_value(),
            max_connections=pool_size(settings),
            timeout=_POOL_WAIT_S,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            socket_keepalive=True,
            # `RedisCache` decides what is sent again.
            retry=Retry(NoBackoff(), 0),
            client_name="samplemind-cache",
        )
    except ValueError:
        # The cause would print the URL and its password.
        message = "a Redis URL cannot be read: write redis://:password@host:port/0"
        raise SettingsError(message) from None
    return asynchronous_client_class().from_pool(pool)


def pool_size(settings: CacheSettings) -> int:
    """Return how many connections the client may have beside its two others."""
    # The shared connection and that of the local layer's news are two more.
    return max(1, settings.max_connections - 2)
