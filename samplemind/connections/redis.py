"""Clients of the two Redis servers, and their errors in the platform's words.

Every wait is bounded: redis-py's own defaults would keep a caller for a minute. A command whose
connection broke is sent again, up to three times, and may then have run twice. So what goes
through these clients is either idempotent (SET, ZADD, DEL, reads, scripts that check a token) or
a counter where one more does no harm.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004 - redis-py's own name
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,  # noqa: A004 - redis-py's own name
    TryAgainError,
)

from samplemind.connections.redis_spans import asynchronous_client_class
from samplemind.errors import PermanentError, SettingsError, StoreUnavailableError

_RETRIES = 3
_BACKOFF_BASE_S = 0.05
_BACKOFF_CAP_S = 1.0
_CONNECT_TIMEOUT_S = 5.0
_HEALTH_CHECK_S = 25
_UNAVAILABLE = (ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError, TryAgainError)
# How the server begins its refusal of every write while its disk is full; from a script it is
# quoted, so that it may stand anywhere.
_CANNOT_SAVE = "MISCONF"
_REFUSED = (AuthenticationError, AuthorizationError, NoPermissionError)


def connect_redis(url: SecretStr, *, max_connections: int, timeout_s: float = 5.0) -> Redis:
    """Make a client that answers in bytes; it connects at its first use.

    Args:
        url: redis:// or rediss://.
        max_connections: at most, in this process; a caller waits for one that is in use.
        timeout_s: seconds for one answer, and for a free connection.

    Raises:
        SettingsError: the URL cannot be read.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url.get_secret_value(),
            max_connections=max_connections,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            socket_keepalive=True,
            health_check_interval=_HEALTH_CHECK_S,
            retry=Retry(ExponentialWithJitterBackoff(_BACKOFF_CAP_S, _BACKOFF_BASE_S), _RETRIES),
            client_name="samplemind",
        )
    except ValueError:
        # The cause would print the URL and its password.
        message = "a Redis URL cannot be read: write redis://:password@host:port/0"
        raise SettingsError(message) from None
    return asynchronous_client_class().from_pool(pool)


@contextmanager
def translating_errors() -> Iterator[None]:
    """Raise redis-py's errors as the platform's.

    Raises:
        StoreUnavailableError: Redis did not answer, is full, or its disk is; trying again may help.
        PermanentError: Redis refused the login or the command.
    """
    try:
        yield
    except _REFUSED as error:  # before its base class ConnectionError
        message = "Redis refused the login"
        raise PermanentError(message) from error
    except OutOfMemoryError as error:
        message = "Redis is full"
        raise StoreUnavailableError(message) from error
    except _UNAVAILABLE as error:
        message = "Redis did not answer"
        raise StoreUnavailableError(message) from error
    except RedisError as error:
        if _CANNOT_SAVE in str(error):
            message = "Redis cannot write to its disk"
            raise StoreUnavailableError(message) from error
        message = f"Redis refused the command ({type(error).__name__})"
        raise PermanentError(message) from error
