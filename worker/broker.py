"""The main process's own client of the broker, beside the one that Celery consumes with.

Invariant: every wait is bounded to seconds and nothing is tried twice: the main loop and the
renewal of leases call again by themselves, and neither may be held up by a Redis that is gone.
"""

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from samplemind.connections.redis_spans import client_class
from samplemind.errors import StackNotRunningError
from samplemind.settings import BrokerSettings

_TIMEOUT_S = 2.0


def connect_broker(broker: BrokerSettings) -> Redis:
    """Return a client for the broker; it connects at its first command.

    Raises:
        StackNotRunningError: the settings name no broker.
    """
    if broker.url is None:
        message = "no address for the broker: start the embedded stack with `samplemind up`"
        raise StackNotRunningError(message)
    return client_class().from_url(
        broker.url.get_secret_value(),
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        client_name="samplemind-lease",
    )
